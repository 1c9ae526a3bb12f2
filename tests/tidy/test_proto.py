"""Lint of the protos, over the compiler's own description of them (the rules are buf's STANDARD)."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

PROTO = Path(__file__).parents[2] / "proto"
FILES = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))

# Field numbers inside the descriptors: how source locations name an element.
MESSAGE, ENUM, SERVICE = 4, 5, 6
FIELD, NESTED_MESSAGE, NESTED_ENUM, ONEOF = 2, 3, 4, 8
VALUE, METHOD = 2, 2

Path_ = tuple[int, ...]


@pytest.fixture(scope="module")
def descriptions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    out = tmp_path_factory.mktemp("proto") / "descriptors"
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}",
            "--include_source_info", f"--descriptor_set_out={out}", *FILES,
        ],
        check=True,
    )  # fmt: skip
    return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, descriptions: dict[str, FileDescriptorProto]) -> FileDescriptorProto:
    return descriptions[request.param]


def messages(
    siblings: list[DescriptorProto], prefix: Path_, number: int
) -> Iterator[tuple[Path_, DescriptorProto]]:
    """Every written message, nested ones too; entries of maps are the compiler's."""
    for index, message in enumerate(siblings):
        if message.options.map_entry:
            continue
        path = (*prefix, number, index)
        yield path, message
        yield from messages(list(message.nested_type), path, NESTED_MESSAGE)


def enums(file: FileDescriptorProto) -> Iterator[tuple[Path_, EnumDescriptorProto]]:
    yield from (((ENUM, index), enum) for index, enum in enumerate(file.enum_type))
    for path, message in messages(list(file.message_type), (), MESSAGE):
        yield from (((*path, NESTED_ENUM, index), enum) for index, enum in enumerate(message.enum_type))


def elements(file: FileDescriptorProto) -> Iterator[tuple[Path_, str]]:
    """Every element that a reader may look up, with its name."""
    for path, message in messages(list(file.message_type), (), MESSAGE):
        yield path, message.name
        yield from (
            ((*path, FIELD, i), f"{message.name}.{field.name}") for i, field in enumerate(message.field)
        )
        for i, oneof in enumerate(message.oneof_decl):
            if not oneof.name.startswith("_"):  # The compiler's, for `optional`.
                yield (*path, ONEOF, i), f"{message.name}.{oneof.name}"
    for path, enum in enums(file):
        yield path, enum.name
        yield from (((*path, VALUE, i), f"{enum.name}.{value.name}") for i, value in enumerate(enum.value))
    for index, service in enumerate(file.service):
        yield (SERVICE, index), service.name
        for i, method in enumerate(service.method):
            yield (SERVICE, index, METHOD, i), f"{service.name}.{method.name}"


def test_every_element_is_commented(file: FileDescriptorProto) -> None:
    """Services, methods, messages, fields, oneofs, enums and values all say what they mean."""
    commented = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip()
    }
    assert [name for path, name in elements(file) if path not in commented] == []


def test_package_is_the_directory(file: FileDescriptorProto) -> None:
    """`runstore/v1/run.proto` declares `runstore.v1`, with a lower_snake file name."""
    assert file.package == str(Path(file.name).parent).replace("/", ".")
    assert re.fullmatch(r"[a-z0-9_]+\.proto", Path(file.name).name)


def test_names_have_their_case(file: FileDescriptorProto) -> None:
    """Messages, enums, services and methods are PascalCase, fields and oneofs lower_snake_case."""
    pascal, snake = re.compile(r"[A-Z][A-Za-z0-9]*"), re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
    wrong = [enum.name for _, enum in enums(file) if not pascal.fullmatch(enum.name)]
    for _, message in messages(list(file.message_type), (), MESSAGE):
        wrong += [message.name] * (not pascal.fullmatch(message.name))
        wrong += [field.name for field in message.field if not snake.fullmatch(field.name)]
    for service in file.service:
        wrong += [method.name for method in service.method if not pascal.fullmatch(method.name)]
    assert wrong == []


def test_enum_values_carry_the_enums_name_and_start_unspecified(file: FileDescriptorProto) -> None:
    """Zero is `<ENUM>_UNSPECIFIED`, so that absent is never mistaken for a choice."""
    for _, enum in enums(file):
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper()
        assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
        assert [value.name for value in enum.value if not value.name.startswith(prefix + "_")] == []


def test_services_and_their_messages_are_named_alike(file: FileDescriptorProto) -> None:
    """A service ends in `Service`; each method has a request and a response of its own name."""
    for service in file.service:
        assert service.name.endswith("Service")
        for method in service.method:
            package = f".{file.package}."
            assert method.input_type == f"{package}{method.name}Request"
            assert method.output_type == f"{package}{method.name}Response"


def test_requests_and_responses_are_used_once(descriptions: dict[str, FileDescriptorProto]) -> None:
    """No two methods share a message: each can grow alone."""
    used = Counter(
        name
        for file in descriptions.values()
        for service in file.service
        for method in service.method
        for name in (method.input_type, method.output_type)
    )
    assert [name for name, times in used.items() if times > 1] == []
