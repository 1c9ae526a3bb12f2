"""Schedules of runs, through the published SDK (contract agents, section 1.5)."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError
from tests.contract.servers import Server

from .steps import until

STEPS = "01d10e59-d4b4-51ec-8e94-9b2716b34de8"
NEVER = "0 0 29 2 *"


async def test_a_cron_runs(client: LangGraphClient, thread: str) -> None:
    """Each time makes a run of the thread, with the cron's id in its metadata, until the cron is deleted."""
    cron: Any = await client.crons.create_for_thread(
        thread, "steps", schedule="* * * * * *", input={"n": 1}, metadata={"a": 1}
    )

    async def two_runs() -> Any:
        runs = await client.runs.list(thread, status="success")
        return runs if len(runs) >= 2 else None

    runs = await until(two_runs, "two runs of the cron")
    await client.crons.delete(cron["cron_id"])
    assert len({run["run_id"] for run in runs}) == len(runs)
    for run in runs:
        assert run["metadata"]["cron_id"] == cron["cron_id"]
        assert run["metadata"]["a"] == 1
    with pytest.raises(NotFoundError):
        await client.crons.delete(cron["cron_id"])


async def test_a_stateless_cron_keeps_its_threads_when_told(client: LangGraphClient) -> None:
    """`on_run_completed="keep"` leaves a thread for each run; the end of the calendar ends the cron."""
    mark = str(uuid.uuid4())
    cron: Any = await client.crons.create(
        "steps",
        schedule="* * * * * *",
        input={"n": 1},
        metadata={"mark": mark},
        on_run_completed="keep",
    )

    async def kept() -> Any:
        return await client.threads.search(metadata={"mark": mark}, status="idle")

    assert await until(kept, "a thread of the cron")
    await client.crons.update(cron["cron_id"], end_time=datetime.now(UTC) + timedelta(seconds=1.5))

    async def ended() -> Any:
        found = await client.crons.search(metadata={"mark": mark})
        return found if found[0]["next_run_date"] is None else None

    await until(ended, "the cron has ended")
    await client.crons.delete(cron["cron_id"])


async def test_life_of_a_cron(client: LangGraphClient, thread: str) -> None:
    """What was given is shown; changes keep what they do not name; disabled crons are not due."""
    end = datetime(2050, 1, 1, tzinfo=UTC)
    cron: Any = await client.crons.create_for_thread(
        thread,
        "steps",
        schedule=NEVER,
        timezone="America/New_York",
        input={"n": 1},
        metadata={"k": "v"},
        config={"tags": ["t"]},
        webhook="https://example.com/hook",
        multitask_strategy="interrupt",
        stream_mode=["values", "updates"],
        end_time=end,
    )
    assert (cron["assistant_id"], cron["thread_id"], cron["enabled"]) == (STEPS, thread, True)
    assert cron["next_run_date"] == "2028-02-29T05:00:00.000000+00:00"
    assert cron["payload"] == {
        "assistant_id": STEPS,
        "input": {"n": 1},
        "config": {"tags": ["t"]},
        "metadata": {"k": "v"},
        "webhook": "https://example.com/hook",
        "multitask_strategy": "interrupt",
        "stream_mode": ["values", "updates"],
    }
    assert cron["end_time"] == "2050-01-01T00:00:00.000000+00:00"
    changed: Any = await client.crons.update(
        cron["cron_id"],
        schedule="0 0 1 1 *",
        timezone="UTC",
        input={"n": 2},
        stream_mode="values",
        end_time=None,
    )
    assert changed["payload"] == {**cron["payload"], "input": {"n": 2}, "stream_mode": ["values"]}
    assert changed["end_time"] is None
    assert changed["next_run_date"].endswith("-01-01T00:00:00.000000+00:00")
    disabled: Any = await client.crons.update(cron["cron_id"], enabled=False)
    assert (disabled["enabled"], disabled["next_run_date"]) == (False, None)
    assert [each["cron_id"] for each in await client.crons.search(thread_id=thread)] == [cron["cron_id"]]
    assert await client.crons.search(thread_id=thread, enabled=True) == []
    assert await client.crons.count(thread_id=thread, assistant_id="steps") == 1
    selected: Any = await client.crons.search(
        thread_id=thread, select=["schedule"], sort_by="end_time", sort_order="asc"
    )
    assert selected == [{"schedule": "0 0 1 1 *"}]
    await client.threads.delete(thread)
    assert await client.crons.count(thread_id=thread) == 0


async def test_refusals(client: LangGraphClient, thread: str, server: Server) -> None:
    """Calendars and zones that do not exist, unknown assistants and threads, and what could be no run."""
    for schedule, timezone in (("every day", None), (NEVER, "Mars/Olympus")):
        with pytest.raises(UnprocessableEntityError):
            await client.crons.create("steps", schedule=schedule, timezone=timezone)
    with pytest.raises(UnprocessableEntityError):
        await client.crons.create("steps", schedule=NEVER, webhook="ftp://example.com/")
    for assistant in ("nothing", str(uuid.uuid4())):
        with pytest.raises(NotFoundError):
            await client.crons.create(assistant, schedule=NEVER)
    with pytest.raises(NotFoundError):
        await client.crons.create_for_thread(str(uuid.uuid4()), "steps", schedule=NEVER)
    with pytest.raises(NotFoundError):
        await client.crons.update(str(uuid.uuid4()), enabled=True)
    async with httpx.AsyncClient(base_url=server.url) as http:
        for path, body in (
            ("/runs/crons", "{}"),
            ("/runs/crons", '{"assistant_id":"steps","schedule":"* * * * *","end_time":"soon"}'),
            ("/runs/crons", '{"assistant_id":"steps","schedule":"* * * * *","durability":"never"}'),
            ("/runs/crons/search", '{"limit":0}'),
            ("/runs/crons/search", '{"sort_by":"color"}'),
            ("/runs/crons/count", '{"thread_id":"x"}'),
        ):
            assert (await http.post(path, content=body)).status_code == 422
        assert (await http.get("/runs/crons/x")).status_code == 422
        made: Any = await client.crons.create("steps", schedule=NEVER, enabled=False)
        cron = made["cron_id"]
        assert (await http.get(f"/runs/crons/{cron}")).json()["enabled"] is False
        await client.crons.delete(cron)
