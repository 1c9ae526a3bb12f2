"""A service of which nobody has said who may call it cannot be served."""

from typing import Any, cast
from unittest.mock import Mock

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from runstore.domain import access_table
from runstore.domain.access import Access
from runstore.rpc.registration import Registration
from runstore.v1 import filter_service_pb2_grpc


class _Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        self.calls.append("generic")

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        self.calls.append(service)


def add_filter_service(server: _Recorder) -> None:
    """As the store does, with what protoc has generated."""
    add: Any = filter_service_pb2_grpc.add_FilterServiceServicer_to_server
    add(Mock(), Registration(cast("Any", server)))


def test_known_service_is_registered() -> None:
    """Both of gRPC's ways to find a method know the service afterwards."""
    server = _Recorder()
    add_filter_service(server)
    assert server.calls == ["generic", "runstore.v1.FilterService"]


def test_method_without_an_entry_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that was added to a service, but not to the table, ends the start of the store."""
    methods = {**access_table.METHODS, "runstore.v1.FilterService": {"CheckFilters": Access.READ}}
    monkeypatch.setattr(access_table, "METHODS", methods)
    server = _Recorder()
    with pytest.raises(LookupError, match="FilterService/GenerateFilter has no entry"):
        add_filter_service(server)
    assert server.calls == []


def test_new_service_stops_the_start() -> None:
    """So does a whole service, however it is registered."""
    file = descriptor_pb2.FileDescriptorProto(name="new.proto", package="new", syntax="proto3")
    file.message_type.add(name="Empty")
    file.service.add(name="New").method.add(name="Get", input_type=".new.Empty", output_type=".new.Empty")
    pool: Any = descriptor_pool.Default()
    pool.Add(file)
    registration = Registration(cast("Any", _Recorder()))
    handler = grpc.method_handlers_generic_handler("new.New", {})
    with pytest.raises(LookupError, match=r"new\.New/Get has no entry"):
        registration.add_generic_rpc_handlers([handler])
    with pytest.raises(LookupError, match=r"new\.New/Get has no entry"):
        registration.add_registered_method_handlers("new.New", {"Get": None})
