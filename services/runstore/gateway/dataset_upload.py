"""Reads the form of `POST /datasets/upload`: a CSV file, and which of its columns are what."""

import csv
import io
import uuid
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

import msgspec
from multipart import MultipartError, MultipartParser

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway.dataset_json import DATA_TYPES
from runstore.gateway.run_json import canonical_uuid
from runstore.v1 import dataset_service_pb2 as datasets_pb
from runstore.v1 import example_service_pb2 as pb

_MAX_PARTS: Final = 1_000
# Python's own limit is 128 KiB a field; the body is bounded anyway.
csv.field_size_limit(2**31 - 1)


class DatasetUpload:
    """One form."""

    def __init__(self, body: bytes, boundary: str) -> None:
        """Raises MALFORMED_BODY for what is no form, INVALID_ARGUMENT for one without a file."""
        self._fields: dict[str, list[str]] = {}
        self._file: bytes | None = None
        self._file_name = ""
        try:
            parser = MultipartParser(
                io.BytesIO(body),
                boundary,
                part_limit=_MAX_PARTS,
                memory_limit=len(body) + 1,
                spool_limit=len(body) + 1,
            )
            for part in parser:
                if part.name == "file":
                    self._file, self._file_name = part.raw, part.filename or ""
                else:
                    self._fields.setdefault(part.name, []).append(part.raw.decode())
        except (MultipartError, UnicodeDecodeError) as error:
            raise RunstoreError(ErrorReason.MALFORMED_BODY, f"The form cannot be read: {error}.") from error
        if self._file is None:
            raise invalid("file", "missing")
        self.input_keys = self._fields.get("input_keys", [])
        self.output_keys = self._fields.get("output_keys", [])
        self.metadata_keys = self._fields.get("metadata_keys", [])
        if not self.input_keys:
            raise invalid("input_keys", "missing")

    def dataset(self) -> datasets_pb.CreateDatasetRequest:
        """The dataset; without a name it has the file's. Raises INVALID_ARGUMENT."""
        data_type = self._one("data_type") or "kv"
        if data_type not in DATA_TYPES:
            raise invalid("data_type", "must be kv, llm or chat")
        dataset_id, description = self._one("id"), self._one("description")
        schemas: dict[str, Any] = {
            key: None if (text := self._one(f"{key}_definition")) is None else text.encode()
            for key in ("inputs_schema", "outputs_schema")
        }
        return datasets_pb.CreateDatasetRequest(
            name=self._one("name") or PurePath(self._file_name).name,
            id=None if dataset_id is None else canonical_uuid("id", dataset_id),
            description=description,
            type=DATA_TYPES[data_type],
            **schemas,
        )

    def examples(self) -> Iterator[pb.ExampleChange]:
        """An example for each line. Raises INVALID_ARGUMENT for a file that is no CSV, or lacks a column."""
        assert self._file is not None  # noqa: S101 - checked when it was read
        try:
            text = self._file.decode("utf-8-sig")
            lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            columns = set(lines.fieldnames or ())
            for field in ("input_keys", "output_keys", "metadata_keys"):
                for key in self._fields.get(field, ()):
                    if key not in columns:
                        raise invalid(field, f"the file has no column {key!r}")
            for line in lines:
                change = pb.ExampleChange(
                    id=str(uuid.uuid4()), create=True, inputs=_object(line, self.input_keys)
                )
                if self.output_keys:
                    change.outputs = _object(line, self.output_keys)
                if self.metadata_keys:
                    change.metadata = _object(line, self.metadata_keys)
                yield change
        except (csv.Error, UnicodeDecodeError) as error:
            raise invalid("file", f"not CSV in UTF-8: {error}") from error

    def _one(self, key: str) -> str | None:
        values = self._fields.get(key)
        return values[-1] if values and values[-1] else None


def _object(line: dict[str, str | None], keys: list[str]) -> bytes:
    return msgspec.json.encode({key: line[key] or "" for key in keys})
