"""Puts the parts of a multipart body together to examples (contract resources, section 3)."""

import re
from typing import Final

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway.example_json import ExampleJson, change_of, read_example, read_operations
from runstore.gateway.multipart import Part
from runstore.gateway.operations import LargePart
from runstore.gateway.run_json import canonical_uuid
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import example_service_pb2 as pb

_PAYLOADS: Final = frozenset({"inputs", "outputs"})
_OPERATIONS: Final = "attachments_operations"
# `<example id>`, or with `.inputs`, `.attachment.<name>`, … The OpenAPI says `.attachments.<name>`.
_NAME: Final = re.compile(r"([0-9A-Fa-f-]{32,36})(?:\.(attachments?)\.(.+)|\.([a-z_]+))?", re.DOTALL)


def example_part_kind(name: str) -> "blobs.BlobKind.ValueType | None":
    """What a large part of a body of examples is uploaded as."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    if found[2]:
        return blobs.BLOB_KIND_ATTACHMENT
    return blobs.BLOB_KIND_PAYLOAD if found[4] in _PAYLOADS else None


class ExampleParts:
    """The examples of one body."""

    def __init__(self, *, create: bool, upsert: bool = False) -> None:
        self._create = create
        self._upsert = upsert
        self._mains: dict[str, ExampleJson] = {}
        self._fields: dict[str, list[tuple[str, Part | LargePart]]] = {}

    def add(self, part: Part | LargePart) -> None:
        """Raises INVALID_ARGUMENT for a name that is not understood or a main part that cannot be read."""
        found = _NAME.fullmatch(part.name)
        if found is None:
            raise invalid(part.name[:100], "not the name of a part: <example id>[.<field>]")
        example_id = canonical_uuid(part.name[:100], found[1])
        if found[2] is None and found[4] is None:
            if isinstance(part, LargePart) or example_id in self._mains:
                raise invalid(part.name, "given twice")
            main = _read_main(part)
            if main.id is not None and canonical_uuid("id", main.id) != example_id:
                raise invalid(part.name, "differs from the id in the part's name")
            main.id = example_id
            self._mains[example_id] = main
        elif found[2] or found[4] in _PAYLOADS or found[4] == _OPERATIONS:
            self._fields.setdefault(example_id, []).append((found[3] or "", part))
        else:
            raise invalid(part.name, "not the name of a part: <example id>[.<field>]")

    def changes(self) -> list[tuple[str | None, pb.ExampleChange]]:
        """Each example with the dataset that its main part names. Raises INVALID_ARGUMENT naming the part."""
        for example_id in self._fields:
            if example_id not in self._mains:
                raise invalid(example_id, "the part of the example itself is missing")
        found = []
        for example_id, main in self._mains.items():
            change = change_of(main, create=self._create, upsert=self._upsert)
            for file_name, part in self._fields.get(example_id, ()):
                _add(change, file_name, part)
            found.append((main.dataset_id, change))
        return found


def _read_main(part: Part) -> ExampleJson:
    try:
        return read_example(part.content)
    except RunstoreError as error:
        if error.reason is ErrorReason.MALFORMED_BODY:
            raise invalid(part.name, error.message) from error
        raise


def _add(change: pb.ExampleChange, file_name: str, part: Part | LargePart) -> None:
    if isinstance(part, LargePart) and part.refusal is not None:
        raise invalid(part.name, part.refusal.message)
    if file_name:
        file = change.files.add(name=file_name, mime_type=part.mime_type)
        if isinstance(part, LargePart):
            file.upload_token = part.upload_token
        else:
            file.content = part.content
        return
    field = part.name.rpartition(".")[2]
    if isinstance(part, LargePart):
        change.uploaded[field] = part.upload_token
    elif field == _OPERATIONS:
        read_operations(change, part.content)
    elif part.content.strip() != b"null":
        if change.HasField(field):  # type: ignore[arg-type]
            raise invalid(part.name, "given twice")
        setattr(change, field, part.content)
