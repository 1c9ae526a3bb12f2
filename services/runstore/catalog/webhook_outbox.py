"""Calls that are to be made when runs have ended: stored with the end, removed once they are made.

What is in the outbox survives the process that put it there, and is tried by one process at a time.
"""

import dataclasses
import uuid
from typing import Any

from sqlalchemy import Row, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import agent_tables as tables
from runstore.catalog.database import Database
from runstore.domain.agent_runs import AgentRun
from runstore.domain.webhooks import Webhook
from runstore.runtime.clock import Clock

_outbox = tables.webhook_outbox.c


async def put_webhook(connection: AsyncConnection, run: AgentRun, body: bytes, now_us: int) -> None:
    """Puts the call that `run` asks for into the outbox, in the transaction that stores its end."""
    webhook = Webhook(
        id=str(uuid.uuid4()),
        tenant_id=run.tenant_id,
        run_id=run.run_id,
        url=run.webhook or "",
        body=body,
        attempts=0,
        due_at_us=now_us,
        created_at_us=now_us,
    )
    await connection.execute(insert(tables.webhook_outbox).values(dataclasses.asdict(webhook)))


class WebhookOutbox:
    """Hands out the calls that are due. Every method may raise RunstoreError UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, limit: int, lease_s: float) -> list[Webhook]:
        """Calls of all tenants that are due now, the longest waiting first; each counts as tried once more.

        They are the caller's for `lease_s`. Without `delivered`, `put_off` or `give_back` until then, whoever
        asks next gets them again.
        """
        now_us = self._clock.now_us()
        due = (
            select(tables.webhook_outbox)
            .where(_outbox.due_at_us <= now_us)
            .order_by(_outbox.due_at_us, _outbox.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            found = [_webhook(row) for row in await connection.execute(due)]
        if not found:
            return []
        claimed = []
        async with self._database.write() as connection:
            for webhook in found:
                mine = dataclasses.replace(
                    webhook, attempts=webhook.attempts + 1, due_at_us=now_us + round(lease_s * 1_000_000)
                )
                taking = update(tables.webhook_outbox).where(_is_still(webhook))
                values = {"attempts": mine.attempts, "due_at_us": mine.due_at_us}
                if (await connection.execute(taking.values(values))).rowcount:
                    claimed.append(mine)
        return claimed

    async def remove(self, webhook: Webhook) -> None:
        """The call was made, or is not tried any more."""
        async with self._database.write() as connection:
            await connection.execute(delete(tables.webhook_outbox).where(_is_still(webhook)))

    async def put_off(self, webhook: Webhook, delay_s: float) -> None:
        """The call failed and is tried again after `delay_s`."""
        await self._return(webhook, delay_s, webhook.attempts)

    async def give_back(self, webhook: Webhook) -> None:
        """The call was not made: somebody else may make it at once."""
        await self._return(webhook, 0.0, webhook.attempts - 1)

    async def _return(self, webhook: Webhook, delay_s: float, attempts: int) -> None:
        due_at_us = self._clock.now_us() + round(delay_s * 1_000_000)
        statement = update(tables.webhook_outbox).where(_is_still(webhook))
        async with self._database.write() as connection:
            await connection.execute(statement.values(due_at_us=due_at_us, attempts=attempts))


def _is_still(webhook: Webhook) -> Any:
    """The call as it was read: a claim that ran out and was taken by somebody else is not."""
    return and_(_outbox.id == webhook.id, _outbox.due_at_us == webhook.due_at_us)


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(**row._mapping)
