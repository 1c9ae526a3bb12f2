"""What a graph says while it runs, as the events of an agent server."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message
from langchain_core.runnables import RunnableConfig
from langgraph.types import Interrupt

from runstore.agents.attempts import Event
from runstore.agents.graphs import AnyGraph
from runstore.agents.json_values import to_json

_INTERRUPT: Final = "__interrupt__"
# Modes that langgraph knows by another name, or not at all.
_MESSAGES, _MESSAGES_TUPLE, _EVENTS = "messages", "messages-tuple", "events"


class Stream:
    """Runs a graph once and turns what it says into events, and into what `wait` answers."""

    def __init__(self, modes: Iterable[str], *, subgraphs: bool) -> None:
        self._modes = frozenset(modes)
        self._subgraphs = subgraphs
        self._messages = _Messages()
        self._values: bytes | None = None
        self._interrupts: list[Interrupt] = []
        self._interrupted: bytes | None = None
        self._shown: frozenset[str] | None = None

    async def events(
        self, graph: AnyGraph, graph_input: Any, config: RunnableConfig, options: Mapping[str, Any]
    ) -> AsyncGenerator[Event]:
        """Runs `graph` to its end.

        Raises what the graph raises, and TypeError for values that JSON cannot hold.
        """
        self._shown = _shown_keys(graph)
        modes = {"values"} | (self._modes - {_EVENTS, _MESSAGES_TUPLE})
        if _MESSAGES_TUPLE in self._modes:
            modes.add(_MESSAGES)
        options = {**options, "stream_mode": sorted(modes), "subgraphs": self._subgraphs}
        if _EVENTS in self._modes:
            async for event in graph.astream_events(graph_input, config, version="v2", **options):
                yield Event(_EVENTS, to_json(event))
                if said := _said_inside(event, config):
                    for inner in self._events_of(said):
                        yield inner
        else:
            async for said in graph.astream(graph_input, config, **options):
                for said_event in self._events_of(said):
                    yield said_event

    @property
    def result(self) -> bytes | None:
        """What `wait` answers: the last values; with the interrupts of the one task that paused, or the
        interrupts alone when several did. JSON; None when the graph has said nothing of the kind."""
        return self._values if self._interrupted is None else self._interrupted

    def _events_of(self, said: Any) -> Iterable[Event]:
        # Without subgraphs, langgraph leaves the namespace out.
        namespace, mode, data = said if self._subgraphs else ((), *said)
        if mode == _MESSAGES:
            yield from self._message_events(namespace, data)
            return
        text = to_json(data)
        if mode == "values" and not namespace:
            self._note_values(data, text if self._shown is None else to_json(self._visible(data)))
        if mode in self._modes:
            yield Event(mode, text, namespace)

    def _visible(self, data: dict[str, Any]) -> dict[str, Any]:
        """What the graph's output schema shows of its values."""
        shown = self._shown or frozenset()
        return {name: value for name, value in data.items() if name in shown or name == _INTERRUPT}

    def _note_values(self, data: Any, text: bytes) -> None:
        if interrupts := _interrupts_in(data):
            self._interrupts += interrupts
            several = len(self._interrupts) > len(interrupts)
            self._interrupted = to_json({_INTERRUPT: self._interrupts}) if several else text
        else:
            self._values = text

    def _message_events(self, namespace: tuple[str, ...], data: Any) -> Iterable[Event]:
        if _MESSAGES_TUPLE in self._modes:
            yield Event(_MESSAGES, to_json(data), namespace)
        if _MESSAGES in self._modes:
            message, metadata = data
            for name, content in self._messages.take(message, metadata):
                yield Event(name, to_json(content), namespace)


def _shown_keys(graph: AnyGraph) -> frozenset[str] | None:
    """The keys that `wait` may answer, or None when they are all that the graph streams."""
    output, streamed = graph.output_channels, graph.stream_channels_asis
    if isinstance(output, str) or isinstance(streamed, str) or set(output) >= set(streamed):
        return None
    return frozenset(output)


def _interrupts_in(data: Any) -> list[Interrupt]:
    """The interrupts that langgraph has put into values; what a graph's own state calls so is none."""
    found = data.get(_INTERRUPT) if isinstance(data, dict) else None
    is_marker = isinstance(found, tuple) and found and all(isinstance(entry, Interrupt) for entry in found)
    return list(found) if is_marker and found else []


def _said_inside(event: Any, config: RunnableConfig) -> Any:
    """What the graph itself said, which `astream_events` passes on among everything else."""
    if event["event"] != "on_chain_stream" or event["run_id"] != str(config.get("run_id")):
        return None
    return event["data"]["chunk"]


class _Messages:
    """Puts the chunks of each message together, as they come."""

    def __init__(self) -> None:
        self._so_far: dict[str, BaseMessage] = {}

    def take(self, message: Any, metadata: Any) -> Iterable[tuple[str, Any]]:
        """Names and contents of the events for one message or one chunk of it."""
        if not isinstance(message, BaseMessage):
            return
        key = message.id or ""
        if key not in self._so_far:
            yield "messages/metadata", {key: {"metadata": metadata}}
        if isinstance(message, BaseMessageChunk):
            earlier = self._so_far.get(key)
            whole = earlier + message if isinstance(earlier, BaseMessageChunk) else message
            self._so_far[key] = whole
            yield "messages/partial", [message_chunk_to_message(whole)]
        else:
            self._so_far[key] = message
            yield "messages/complete", [message]
