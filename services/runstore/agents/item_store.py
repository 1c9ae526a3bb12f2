"""What nodes find at `runtime.store`: the items of the store that the runs come from."""

import asyncio
import concurrent.futures
from collections.abc import Iterable
from datetime import UTC
from typing import Any, Final

import grpc
from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from runstore.agents.json_values import from_json, to_json
from runstore.v1 import agent_item_service_pb2 as pb
from runstore.v1 import agent_item_service_pb2_grpc as items_grpc

_THREADS: Final = 4
_TIMEOUT_S: Final = 30.0


class ItemsUnavailable(RuntimeError):
    """The store of items has not answered."""


class ItemStore(BaseStore):
    """langgraph's store over gRPC. Any thread and any event loop may use it.

    Searches in natural language find what `filter` finds: items have no embeddings.
    Raises ValueError for what the store refuses, ItemsUnavailable when it does not answer.
    """

    __slots__ = ("_metadata", "_stub", "_threads")
    supports_ttl = True

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub = items_grpc.AgentItemServiceStub(channel)
        self._metadata = metadata
        # Of its own: those of nodes may all be busy with nodes.
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="items")

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Executes the operations one after the other."""
        return [self._execute(op) for op in ops]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Executes the operations one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.batch, list(ops))

    def close(self) -> None:
        """Ends the threads; calls under way are left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _execute(self, op: Op) -> Result:
        try:
            match op:
                case GetOp():
                    return self._get(op)
                case PutOp():
                    self._put(op)
                    return None
                case SearchOp():
                    return self._search(op)
                case ListNamespacesOp():
                    return self._namespaces(op)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
                raise ValueError(error.details()) from error
            raise ItemsUnavailable(f"the store of items has not answered: {code.name}") from error
        raise TypeError(f"{type(op).__name__} is no operation of a store")

    def _get(self, op: GetOp) -> Item | None:
        request = pb.GetAgentItemRequest(namespace=op.namespace, key=op.key, keeps_ttl=not op.refresh_ttl)
        response = self._stub.GetAgentItem(request, timeout=_TIMEOUT_S, metadata=self._metadata)
        return Item(**_fields(response.item)) if response.HasField("item") else None

    def _put(self, op: PutOp) -> None:
        if op.value is None:
            deletion = pb.DeleteAgentItemRequest(namespace=op.namespace, key=op.key)
            self._stub.DeleteAgentItem(deletion, timeout=_TIMEOUT_S, metadata=self._metadata)
            return
        request = pb.PutAgentItemRequest(
            namespace=op.namespace, key=op.key, value=to_json(dict(op.value)), ttl_minutes=op.ttl
        )
        self._stub.PutAgentItem(request, timeout=_TIMEOUT_S, metadata=self._metadata)

    def _search(self, op: SearchOp) -> list[SearchItem]:
        request = pb.SearchAgentItemsRequest(
            namespace_prefix=op.namespace_prefix,
            filter=to_json(op.filter) if op.filter else b"",
            offset=op.offset,
            page_size=op.limit,
            keeps_ttl=not op.refresh_ttl,
        )
        response = self._stub.SearchAgentItems(request, timeout=_TIMEOUT_S, metadata=self._metadata)
        return [SearchItem(**_fields(item)) for item in response.items]

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        request = pb.ListAgentItemNamespacesRequest(
            prefix=_path(conditions, "prefix"),
            suffix=_path(conditions, "suffix"),
            max_depth=op.max_depth or 0,
            offset=op.offset,
            page_size=op.limit,
        )
        response = self._stub.ListAgentItemNamespaces(request, timeout=_TIMEOUT_S, metadata=self._metadata)
        return [tuple(namespace.labels) for namespace in response.namespaces]


def _fields(item: pb.AgentItem) -> dict[str, Any]:
    return {
        "namespace": tuple(item.namespace),
        "key": item.key,
        "value": from_json(item.value),
        "created_at": item.create_time.ToDatetime(UTC),
        "updated_at": item.update_time.ToDatetime(UTC),
    }


def _path(conditions: Iterable[MatchCondition], kind: str) -> tuple[str, ...]:
    """The labels of the one condition of a kind; langgraph makes no more than one."""
    return next((tuple(each.path) for each in conditions if each.match_type == kind), ())
