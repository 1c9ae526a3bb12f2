"""Creates the runs of crons when they are due."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from runstore.domain.crons import Cron, next_time_us, run_id_at
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.clock import Clock

_POLL_S: Final = 1.0
_MAX_DUE: Final = 100

logger = structlog.get_logger(__name__)

CreateRun = Callable[[Cron, str], Awaitable[None]]
"""Creates the run of a cron under the given id. Raises RunstoreError, ALREADY_EXISTS for a second time."""


class Crons(Protocol):
    """Where the crons are; `CronCatalog` describes its methods."""

    async def due(self, limit: int) -> list[Cron]: ...

    async def advance(self, cron: Cron, next_run_at_us: int | None) -> None: ...


class CronScheduler:
    """Looks once a second for what is due. Any number of stores may do so on one catalog."""

    def __init__(self, crons: Crons, create_run: CreateRun, clock: Clock) -> None:
        self._crons = crons
        self._create_run = create_run
        self._clock = clock

    async def run(self) -> None:
        """Creates runs until it is cancelled."""
        while True:
            try:
                await self.create_due()
            except RunstoreError as error:  # The catalog is away; what is due stays due.
                logger.warning("crons_not_read", reason=error.reason.name)
            except Exception:
                logger.exception("crons_failed")
            await asyncio.sleep(_POLL_S)

    async def create_due(self) -> None:
        """Creates the run of every cron that is due, and has it wait for its next time."""
        while due := await self._crons.due(_MAX_DUE):
            for cron in due:
                await self._fire(cron)

    async def _fire(self, cron: Cron) -> None:
        """The run first: whoever dies before the cron has advanced finds the run there the next time."""
        due_us = cron.next_run_at_us
        if due_us is None:
            return
        try:
            await self._create_run(cron, run_id_at(cron.id, due_us))
        except RunstoreError as error:
            if error.reason.retryable:
                raise
            if error.reason is not ErrorReason.ALREADY_EXISTS:
                logger.warning(
                    "cron_run_refused", cron_id=cron.id, reason=error.reason.name, field=error.field
                )
        except Exception:  # A defect with one cron must not hold up all others.
            logger.exception("cron_failed", cron_id=cron.id)
        await self._crons.advance(cron, self._following(cron))

    def _following(self, cron: Cron) -> int | None:
        try:
            return next_time_us(
                cron.schedule, cron.timezone, after_us=self._clock.now_us(), end_time_us=cron.end_time_us
            )
        except RunstoreError as error:  # It was good once: a time zone may be gone.
            logger.warning("cron_ended", cron_id=cron.id, field=error.field)
            return None
