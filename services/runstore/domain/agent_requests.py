"""What a new run is made of: the request, its assistant's configuration and its thread's, merged.

The order of precedence is the contract's (agents.md, section 2.13): assistant, thread, request, and over all
of them what only the store knows.
"""

import secrets
import uuid
from typing import Any, Final

import msgspec

from runstore.domain.agent_runs import AgentThread, NewAgentRun
from runstore.domain.assistants import Assistant
from runstore.domain.errors import ErrorReason, RunstoreError

# What the store and the graph's library say about a run; a caller's word for them is dropped.
_RESERVED_METADATA: Final = frozenset(
    ("thread_id", "assistant_id", "run_id", "cron_id", "counters_since_delta_snapshot")
)
_OPTIONS: Final = {
    "stream_mode": ["values"],
    "interrupt_before": None,
    "interrupt_after": None,
    "feedback_keys": None,
    "subgraphs": False,
    "resumable": False,
    "checkpoint_during": None,
    "durability": None,
    "strict_resume": None,
}


def check_request(new: NewAgentRun) -> None:
    """Raises INCONSISTENT for fields that exclude each other."""
    if new.context and (new.config or {}).get("configurable"):
        raise _inconsistent("context", "context and config.configurable cannot both be given")
    if new.thread_id is None and has_resume(new.command):
        raise _inconsistent("command", "a resume needs a thread")


def has_resume(command: bytes | None) -> bool:
    """Whether a command resumes an interrupt."""
    return command is not None and msgspec.json.decode(command, type=dict[str, Any]).get("resume") is not None


def run_metadata(new: NewAgentRun, assistant: Assistant, thread: AgentThread | None) -> dict[str, Any]:
    """Metadata of the run; `thread` is None when it is created with the run."""
    merged = {
        **_object(assistant.metadata),
        **({} if thread is None else _object(thread.metadata)),
        **_own_metadata(new),
    }
    of_cron = {} if new.cron_id is None else {"cron_id": new.cron_id}
    return {**merged, "assistant_id": assistant.assistant_id, **of_cron}


def thread_metadata(new: NewAgentRun, assistant: Assistant) -> dict[str, Any]:
    """Metadata of the thread that is created with the run."""
    return {
        **_own_metadata(new),
        "graph_id": assistant.graph_id,
        "assistant_id": assistant.assistant_id,
    }


def _own_metadata(new: NewAgentRun) -> dict[str, Any]:
    own = {**_dict((new.config or {}).get("metadata")), **(new.metadata or {})}
    return {key: value for key, value in own.items() if key not in _RESERVED_METADATA}


def run_kwargs(
    new: NewAgentRun, assistant: Assistant, thread: AgentThread, run_id: str, metadata: dict[str, Any]
) -> bytes:
    """The merged request as it is stored, shown and sent to the worker: a JSON object."""
    return msgspec.json.encode(
        {
            **_OPTIONS,
            **new.options,
            "input": msgspec.Raw(new.input or b"null"),
            "command": msgspec.Raw(new.command or b"null"),
            "config": _config(new, assistant, thread, run_id, metadata),
            "context": {**_object(assistant.context), **(new.context or {})},
            "checkpoint": new.checkpoint,
            "webhook": new.webhook,
            "temporary": thread.is_temporary,
        }
    )


def _config(
    new: NewAgentRun, assistant: Assistant, thread: AgentThread, run_id: str, metadata: dict[str, Any]
) -> dict[str, Any]:
    layers = (_object(assistant.config), _object(thread.config), new.config or {})
    merged: dict[str, Any] = {}
    configurable: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
        configurable |= _dict(layer.get("configurable"))
    configurable |= new.headers
    configurable |= {
        "run_id": run_id,
        "thread_id": thread.thread_id,
        "graph_id": assistant.graph_id,
        "assistant_id": assistant.assistant_id,
        "user_id": new.user_id,
        "langgraph_auth_user_id": new.user_id,
        "langgraph_request_id": new.request_id,
    }
    if new.project_name is not None:
        configurable["__langsmith_project__"] = new.project_name
        if new.example_id is not None:
            configurable["__langsmith_example_id__"] = new.example_id
    return {**merged, "metadata": metadata, "configurable": configurable}


class TimeOrderedIds:
    """Makes UUIDs of version 7 (RFC 9562, methods 1 and 3): each is greater than those made before.

    So runs that are due in the same microsecond start in the order of their creation.
    """

    def __init__(self) -> None:
        self._last = 0

    def next_id(self, now_us: int) -> str:
        """An id of this time, or just after the last one when that was later."""
        milliseconds, microseconds = divmod(now_us, 1_000)
        fraction = microseconds * 4_096 // 1_000
        number = (milliseconds % 2**48) << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(61)
        self._last = max(number, self._last + 1)
        return str(uuid.UUID(int=self._last))


def _object(document: bytes) -> dict[str, Any]:
    return msgspec.json.decode(document, type=dict[str, Any])


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _inconsistent(field: str, message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.INCONSISTENT, message, field=field)
