"""Builds request bodies as the SDKs write them."""

import json
from typing import Any

BOUNDARY = "d8b6aa39f0d24c1f9a7a0d8b6aa3239f"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

RUN_ID = "0190c8a0-1111-7000-8000-000000000001"
OTHER_ID = "0190c8a0-2222-7000-8000-000000000002"


def dotted_order(run_id: str) -> str:
    """Of a root run."""
    return f"20240429T004912090000Z{run_id}"


def run(run_id: str = RUN_ID, **keys: Any) -> dict[str, Any]:
    """A root run with everything that batches need."""
    return {
        "id": run_id,
        "trace_id": run_id,
        "dotted_order": dotted_order(run_id),
        "name": "n",
        "run_type": "llm",
        **keys,
    }


def part(name: str, content: Any, headers: str | None = None) -> bytes:
    """A part; content that is not bytes becomes JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    if headers is None:
        headers = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n{headers}\r\n'
    return head.encode() + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    """A complete multipart body."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
