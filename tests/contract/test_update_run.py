"""`Client.update_run` with each parameter that it has."""

import inspect
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from langsmith import Client
from langsmith import utils as langsmith_utils
from langsmith.schemas import Run

from .reading import files_of
from .servers import Server
from .wire import dotted_order

STARTED = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
EXAMPLE_ID = uuid.uuid4()


def created(client: Client, project: str, **fields: Any) -> uuid.UUID:
    """A run that is there before the update."""
    run_id = uuid.uuid4()
    client.create_run(
        "before",
        {"i": 0},
        "chain",
        id=run_id,
        project_name=project,
        start_time=STARTED,
        tags=["old"],
        **fields,
    )
    return run_id


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({"name": "after"}, {"name": "after"}),
        ({"run_type": "llm"}, {"run_type": "llm"}),
        ({"start_time": STARTED - timedelta(hours=1)}, {"start_time": STARTED - timedelta(hours=1)}),
        (
            {"end_time": STARTED + timedelta(seconds=3)},
            {"end_time": STARTED + timedelta(seconds=3), "latency": 3.0},
        ),
        ({"error": "it broke"}, {"error": "it broke", "status": "error"}),
        ({"inputs": {"i": [1, "ü"]}}, {"inputs": {"i": [1, "ü"]}}),
        ({"outputs": {"o": {"deep": None}}}, {"outputs": {"o": {"deep": None}}}),
        ({"outputs": {}}, {"outputs": {}}),
        (
            {"events": [{"name": "start", "time": STARTED.isoformat()}]},
            {"events": [{"name": "start", "time": STARTED.isoformat()}]},
        ),
        ({"tags": ["new", "two"]}, {"tags": ["new", "two"]}),
        ({"reference_example_id": EXAMPLE_ID}, {"reference_example_id": EXAMPLE_ID}),
        ({"reference_example_id": str(EXAMPLE_ID)}, {"reference_example_id": EXAMPLE_ID}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("way", ["patch", "multipart"])
def test_updated_field_changes_and_the_others_stay(
    client: Client, project: str, update: dict[str, Any], expected: dict[str, Any], way: str
) -> None:
    """One parameter at a time, in a request of its own and in a multipart body: it alone changes."""
    run_id = created(client, project)
    before = client.read_run(run_id)
    place = {"trace_id": run_id, "dotted_order": before.dotted_order} if way == "multipart" else {}
    client.update_run(run_id, **update, **place)
    client.flush()
    after = client.read_run(run_id)
    for name, value in expected.items():
        assert getattr(after, name) == value, name
    # The SDK always sends an end.
    assert after.end_time is not None
    changing = {
        *expected,
        "end_time",
        "status",
        "dotted_order",
        "app_path",
        "extra",
        "outputs_preview",
        "inputs_preview",
    }
    assert kept(after, changing) == kept(before, changing)
    assert [run.id for run in client.list_runs(project_name=project)] == [run_id]


def kept(run: Run, changing: set[str]) -> dict[str, Any]:
    """The fields of a run that an update left alone."""
    facts = run.model_dump(exclude={*changing, "attachments"})
    return {name: value for name, value in facts.items() if name not in changing}


def test_extra_is_merged_by_key(client: Client, project: str) -> None:
    """An update's `extra` and its metadata join what was there; the same key takes the later value."""
    run_id = created(client, project, extra={"metadata": {"a": 1, "b": 1}, "x": 1})
    client.update_run(run_id, extra={"metadata": {"b": 2, "c": 3}, "y": 2})
    run = client.read_run(run_id)
    assert {name: run.metadata[name] for name in "abc"} == {"a": 1, "b": 2, "c": 3}
    assert (run.extra["x"], run.extra["y"]) == (1, 2)


def test_attachments_accumulate_by_name(client: Client, project: str, tmp_path: Path) -> None:
    """Files of updates join those of the create; `dangerously_allow_filesystem` sends one from the disk."""
    (tmp_path / "three.bin").write_bytes(b"3" * 1000)
    run_id = uuid.uuid4()
    place: dict[str, Any] = {"trace_id": run_id, "dotted_order": dotted_order(run_id)}
    client.create_run(
        "files",
        {},
        "tool",
        id=run_id,
        project_name=project,
        attachments={"one": ("text/plain", b"1")},
        **place,
    )
    client.update_run(run_id, attachments={"two": ("image/gif", b"22")}, **place)
    client.update_run(
        run_id,
        attachments={"three": ("application/pdf", tmp_path / "three.bin")},
        dangerously_allow_filesystem=True,
        **place,
    )
    client.flush()
    assert files_of(client.read_run(run_id)) == {
        "one": ("text/plain", b"1"),
        "two": ("image/gif", b"22"),
        "three": ("application/pdf", b"3" * 1000),
    }


def test_position_can_be_given_by_an_update(client: Client, project: str) -> None:
    """`trace_id`, `parent_run_id` and `dotted_order` in an update that comes before its create are kept."""
    root, child = uuid.uuid4(), uuid.uuid4()
    order = dotted_order(root, child, at=STARTED)
    client.update_run(child, trace_id=root, parent_run_id=root, dotted_order=order, outputs={"o": 1})
    client.flush()
    with pytest.raises(langsmith_utils.LangSmithNotFoundError):
        client.read_run(child)
    client.create_run(
        "child",
        {},
        "tool",
        id=child,
        trace_id=root,
        parent_run_id=root,
        dotted_order=order,
        project_name=project,
    )
    client.flush()
    run = client.read_run(child)
    assert (run.trace_id, run.parent_run_id, run.dotted_order) == (root, root, order)
    assert (run.outputs, run.status) == ({"o": 1}, "success")


@pytest.mark.parametrize("parameter", ["session_id", "session_name"])
def test_update_names_the_project_of_its_run(client: Client, project: str, parameter: str) -> None:
    """An update that names the project of its run, by id or by name, reaches it."""
    run_id = created(client, project)
    session_id = client.read_project(project_name=project).id
    named: dict[str, Any] = {"session_id": session_id, "session_name": project}
    client.update_run(run_id, outputs={"o": 1}, **{parameter: named[parameter]})
    [run] = client.list_runs(project_id=session_id)
    assert (run.id, run.outputs) == (run_id, {"o": 1})


def test_api_url_of_one_call_wins(client: Client, guarded: Server, key: str, project: str) -> None:
    """`api_url` with `api_key` sends this one update to another server."""
    other = Client(guarded.url, api_key=key)
    run_id = created(other, project)
    client.update_run(run_id, outputs={"o": 1}, api_url=guarded.url, api_key=key)
    assert other.read_run(run_id).outputs == {"o": 1}
    with pytest.raises(langsmith_utils.LangSmithNotFoundError):
        client.read_run(run_id)
    other.close()


@pytest.fixture
def keyless(guarded: Server) -> Iterator[Client]:
    """A client without a key of its own, in front of the guarded server."""
    client = Client(guarded.url)
    assert client.api_key is None
    yield client
    client.close()


def credentials(parameter: str, secret: str) -> dict[str, Any]:
    """The parameters of one call that carry `secret`."""
    match parameter:
        case "authorization":
            return {"authorization": f"Bearer {secret}"}
        case "cookie":
            return {"cookie": f"theme=dark; runstore_session={secret}; last=1"}
    return {parameter: secret}


@pytest.mark.parametrize("parameter", ["api_key", "service_key", "authorization", "cookie"])
def test_credential_of_one_call_is_used(
    keyless: Client, guarded: Server, key: str, project: str, parameter: str
) -> None:
    """A key in a call's own parameter lets it through; without one it is refused."""
    owner = Client(guarded.url, api_key=key)
    run_id = created(owner, project)
    with pytest.raises(langsmith_utils.LangSmithAuthError):
        keyless.update_run(run_id, outputs={"by": "nobody"})
    keyless.update_run(run_id, outputs={"by": parameter}, **credentials(parameter, key))
    assert owner.read_run(run_id).outputs == {"by": parameter}
    owner.close()


@pytest.mark.parametrize("parameter", ["api_key", "service_key", "authorization", "cookie"])
def test_credential_of_one_call_is_checked(
    keyless: Client, guarded: Server, key: str, foreign_key: str, project: str, parameter: str
) -> None:
    """A wrong key in a call's own parameter is refused; a foreign one changes nothing of this tenant's."""
    owner = Client(guarded.url, api_key=key)
    run_id = created(owner, project)
    with pytest.raises(langsmith_utils.LangSmithAuthError):
        keyless.update_run(run_id, outputs={"by": "x"}, **credentials(parameter, "rsk_" + "y" * 43))
    keyless.update_run(run_id, outputs={"by": "stranger"}, **credentials(parameter, foreign_key))
    assert owner.read_run(run_id).outputs is None
    owner.close()


@pytest.mark.parametrize("parameter", ["api_key", "service_key", "authorization", "cookie"])
def test_credential_of_one_call_wins_over_the_clients_own(
    guarded: Server, key: str, foreign_key: str, project: str, parameter: str
) -> None:
    """The SDK sends its own `x-api-key` beside a call's credential: the call's says whose run it is."""
    owner, stranger = Client(guarded.url, api_key=key), Client(guarded.url, api_key=foreign_key)
    run_id = created(owner, project)
    stranger.update_run(run_id, outputs={"by": parameter}, **credentials(parameter, key))
    assert owner.read_run(run_id).outputs == {"by": parameter}
    owner.close()
    stranger.close()


def test_tenant_of_one_call_must_be_the_keys(
    guarded: Server, key: str, foreign_key: str, project: str
) -> None:
    """`tenant_id` is accepted when the key belongs to it, and refused with 403 when it does not."""
    owner = Client(guarded.url, api_key=key)
    run_id = created(owner, project)
    mine = str(owner.read_project(project_name=project).tenant_id)
    stranger = Client(guarded.url, api_key=foreign_key)
    other = str(stranger.read_project(project_name="default").tenant_id)
    owner.update_run(run_id, outputs={"by": "me"}, tenant_id=mine, api_key=key)
    assert owner.read_run(run_id).outputs == {"by": "me"}
    for wrong in (other, str(uuid.uuid4())):
        with pytest.raises(langsmith_utils.LangSmithError, match="403"):
            owner.update_run(run_id, outputs={"by": "x"}, tenant_id=wrong, api_key=key)
    assert owner.read_run(run_id).outputs == {"by": "me"}
    owner.close()
    stranger.close()


def test_every_parameter_is_tested() -> None:
    """A parameter that a newer SDK adds to `update_run` fails here until it has its test."""
    tested = {
        "self",
        "run_id",
        "name",
        "run_type",
        "start_time",
        "end_time",
        "error",
        "inputs",
        "outputs",
        "events",
        "extra",
        "tags",
        "attachments",
        "dangerously_allow_filesystem",
        "reference_example_id",
        "api_key",
        "api_url",
        "service_key",
        "tenant_id",
        "authorization",
        "cookie",
        "kwargs",
    }
    assert set(inspect.signature(Client.update_run).parameters) == tested


def test_update_hours_later_reaches_an_old_run(client: Client, project: str) -> None:
    """A bare PATCH, long after the create and without any position, completes the run."""
    run_id = created(client, project)
    answer = httpx.patch(
        f"{client.api_url}/runs/{run_id}",
        json={"outputs": {"late": True}, "end_time": (STARTED + timedelta(hours=30)).isoformat()},
    )
    assert answer.status_code == 202
    run = client.read_run(run_id)
    assert (run.outputs, run.latency) == ({"late": True}, 30 * 3600.0)
    again = httpx.patch(
        f"{client.api_url}/runs/{run_id}", json={"outputs": None, "error": None, "name": None}
    )
    assert again.status_code == 202
    unchanged = client.read_run(run_id)
    assert (unchanged.name, unchanged.outputs, unchanged.status) == ("before", {"late": True}, "success")
