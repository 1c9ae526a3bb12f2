"""Registers services with a gRPC server, if each of their methods has an entry in the table of access."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from runstore.domain.access_table import method_access


class Registration:
    """What generated code takes for the server that it adds a service to."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server: Any = server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Raises LookupError for a service of which a method has no entry."""
        for handler in handlers:
            service = descriptor_pool.Default().FindServiceByName(handler.service_name())
            for method in service.methods:
                method_access(f"/{service.full_name}/{method.name}")
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As above, for what gRPC looks up without asking the handlers."""
        for name in handlers:
            method_access(f"/{service}/{name}")
        self._server.add_registered_method_handlers(service, handlers)
