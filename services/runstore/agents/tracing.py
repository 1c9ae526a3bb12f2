"""Traces runs into the store that they came from, with the tracers that langgraph and `@traceable` bring."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import langsmith
from langsmith import tracing_context
from langsmith.run_trees import WriteReplica

from runstore.agents.attempts import Attempt
from runstore.agents.json_values import to_json
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2 as runs

# Keys of `configurable` where the store keeps what a run asked for (contract agents, section 4).
_PROJECT: Final = "__langsmith_project__"
_EXAMPLE: Final = "__langsmith_example_id__"

Put = Callable[[ingest.RunOperation], None]
"""Takes an operation to be sent to the store soon; does not block."""


class Tracing:
    """Gives each attempt its trace; does nothing without `put`."""

    def __init__(self, put: Put | None) -> None:
        self._client = _StoreClient(put) if put is not None else None
        self.default_project_name = "default"
        """Project of runs that name none; the store's to say."""

    @property
    def is_on(self) -> bool:
        """Whether runs are traced."""
        return self._client is not None

    @contextmanager
    def of(self, attempt: Attempt) -> Iterator[None]:
        """Whatever is called inside is traced to the default project.

        And once more, under ids derived from the first ones, to the project that the run asked for, where it
        may belong to an example.
        """
        if self._client is None:
            yield
            return
        configurable: Mapping[str, Any] = (attempt.kwargs.get("config") or {}).get("configurable") or {}
        project, example = configurable.get(_PROJECT), configurable.get(_EXAMPLE)
        replicas: list[WriteReplica | str] | None = None
        if project is not None and project != self.default_project_name:
            updates = {"reference_example_id": example} if example else None
            replicas = [
                WriteReplica(project_name=self.default_project_name),
                WriteReplica(project_name=project, updates=updates),
            ]
        with tracing_context(
            enabled=True,
            client=self._client,
            project_name=self.default_project_name,
            replicas=replicas,
            parent=False,
        ):
            yield


class _StoreClient(langsmith.Client):
    """What tracers take for the LangSmith service: makes operations of the runs, and calls nobody."""

    def __init__(self, put: Put) -> None:
        super().__init__("http://store.invalid", api_key="-", auto_batch_tracing=False, info={})
        self._put = put

    def create_run(
        self,
        name: str,
        inputs: dict[str, Any],
        run_type: str,
        *,
        project_name: str | None = None,
        **fields: Any,
    ) -> None:
        """Sends a new run."""
        fields |= {"name": name, "inputs": inputs, "run_type": run_type}
        if project_name is not None:
            fields["session_name"] = project_name
        self._put(ingest.RunOperation(create=_fields(fields)))

    def update_run(self, run_id: UUID | str, **fields: Any) -> None:
        """Sends what is new of a run."""
        self._put(ingest.RunOperation(update=_fields({**fields, "id": run_id})))


_JSON_FIELDS = {
    "inputs": "inputs",
    "outputs": "outputs",
    "events": "events",
    "extra": "extra",
    "serialized": "manifest",
}
_TEXT_FIELDS = {
    "name": "name",
    "trace_id": "trace_id",
    "dotted_order": "dotted_order",
    "parent_run_id": "parent_run_id",
    "session_name": "project_name",
    "error": "error",
    "reference_example_id": "reference_example_id",
}


def _fields(given: Mapping[str, Any]) -> ingest.RunFields:
    fields = ingest.RunFields(id=str(given["id"]))
    for name, field in _TEXT_FIELDS.items():
        if given.get(name) is not None:
            setattr(fields, field, str(given[name]))
    for name, field in _JSON_FIELDS.items():
        if given.get(name) is not None:
            setattr(fields, field, _json(given[name]))
    if run_type := given.get("run_type"):
        fields.run_type = runs.RunType.Value(f"RUN_TYPE_{run_type.upper()}")
    if tags := given.get("tags"):
        fields.tags.values.extend(str(tag) for tag in tags)
    for name in ("start_time", "end_time"):
        if (time := given.get(name)) is not None:
            getattr(fields, name).FromDatetime(_utc(time))
    for name, attachment in (given.get("attachments") or {}).items():
        mime_type, content = (
            attachment if isinstance(attachment, tuple) else (attachment.mime_type, attachment.data)
        )
        data = content.read_bytes() if isinstance(content, Path) else content
        fields.attachments.add(name=name, mime_type=mime_type, content=data)
    return fields


def _json(value: Any) -> bytes:
    try:
        return to_json(value)
    except (
        TypeError,
        RecursionError,
    ):  # A trace is worth more than the one value in it that JSON cannot hold.
        return json.dumps(value, default=repr, skipkeys=True).encode()


def _utc(time: datetime | str) -> datetime:
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
