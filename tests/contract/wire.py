"""Requests to the ingest routes, byte by byte as SDKs and strangers write them."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

BOUNDARY = "d8b6a3c2e1f0495786a7b8c9d0e1f239"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def dotted_order(*run_ids: UUID, at: datetime | None = None) -> str:
    """The position of the last of `run_ids` below the others, all started at the same time."""
    started = at or datetime.now(UTC)
    return ".".join(f"{started:%Y%m%dT%H%M%S%fZ}{run_id}" for run_id in run_ids)


def run_json(run_id: UUID, project: str, **fields: Any) -> dict[str, Any]:
    """A root run as `/runs/batch` and `/runs/multipart` take it; `fields` win."""
    return {
        "id": str(run_id),
        "trace_id": str(run_id),
        "dotted_order": dotted_order(run_id),
        "name": "sent",
        "run_type": "chain",
        "session_name": project,
        **fields,
    }


def part(
    name: str,
    content: object,
    mime_type: str = "application/json",
    length: int | None = None,
) -> bytes:
    """One part; anything but bytes is written as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return (
        f'Content-Disposition: form-data; name="{name}"\r\n'
        f"Content-Type: {mime_type}\r\n"
        f"Content-Length: {len(raw) if length is None else length}\r\n\r\n"
    ).encode() + raw


def multipart(parts: Iterable[bytes]) -> bytes:
    """A whole body."""
    opened = b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts)
    return opened + f"--{BOUNDARY}--\r\n".encode()
