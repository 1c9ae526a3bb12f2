"""What the OpenAPI says of routes whose bodies are not read through pydantic models."""

from typing import Any, Final

_RUN_PROPERTIES: Final[dict[str, Any]] = {
    "id": {"type": "string", "format": "uuid", "description": "With dashes, or 32 hex digits."},
    "name": {"type": "string"},
    "run_type": {
        "type": "string",
        "enum": ["tool", "chain", "llm", "retriever", "embedding", "prompt", "parser"],
    },
    "start_time": {
        "type": "string",
        "format": "date-time",
        "description": "UTC when without offset. Taken from dotted_order, or now, when absent.",
    },
    "end_time": {"type": "string", "format": "date-time"},
    "inputs": {"type": "object"},
    "outputs": {"type": "object"},
    "error": {"type": "string"},
    "events": {"type": "array", "items": {"type": "object"}},
    "extra": {"type": "object", "description": "`metadata`, `runtime`, `invocation_params`, …"},
    "serialized": {"type": "object"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "trace_id": {"type": "string", "format": "uuid", "description": "Id of the root of the trace."},
    "dotted_order": {
        "type": "string",
        "description": "`<start>Z<id>` of every ancestor and of the run, joined by dots.",
        "example": "20240429T004912090000Z0190c8a0-0000-7000-8000-000000000001",
    },
    "parent_run_id": {"type": "string", "format": "uuid"},
    "session_id": {"type": "string", "format": "uuid", "description": "Project; wins over session_name."},
    "session_name": {
        "type": "string",
        "description": "Project by name, created when missing; `default` when neither is given.",
    },
    "address": {
        "type": "string",
        "description": "Stands in for both: `lrn:agents/<agent id>/environments/<environment>`.",
    },
    "reference_example_id": {"type": "string", "format": "uuid"},
}
_RUN: Final = {
    "type": "object",
    "description": "A run. Null is the same as absent; unknown keys are ignored.",
    "properties": _RUN_PROPERTIES,
}

_COMPRESSION: Final = (
    "`Content-Encoding` may be `zstd`, `gzip` or `deflate`, any number of frames or members."
)

RUN_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": _COMPRESSION,
        "content": {"application/json": {"schema": _RUN}},
    }
}
BATCH_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": _COMPRESSION,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "post": {"type": "array", "items": _RUN, "description": "Runs to create."},
                        "patch": {"type": "array", "items": _RUN, "description": "Runs to update."},
                    },
                }
            }
        },
    }
}
MULTIPART_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": _COMPRESSION
        + """

| part | content |
|---|---|
| `post.<run_id>`, `patch.<run_id>` | JSON of a run without payloads, with `id`, `trace_id`, `dotted_order` |
| the same and `.inputs`, `.outputs`, `.events`, `.extra`, `.error` or `.serialized` | JSON of one payload |
| `attachment.<run_id>.<name>` | a file; the part's Content-Type is its MIME type |
| `feedback.<feedback_id>` | JSON of a record of feedback, as `POST /feedback` takes it |

Every part needs its length: a `Content-Length` header, or `; length=N` in its Content-Type.""",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
            }
        },
    }
}

_CHANGES: Final[dict[str, Any]] = {
    "score": {"type": "number", "description": "Truth values are 0 and 1."},
    "value": {"description": "A label, or another text, number, truth value or object."},
    "comment": {"type": "string"},
    "correction": {"description": "What would have been right: text or an object."},
}
_FEEDBACK_PROPERTIES: Final[dict[str, Any]] = {
    "id": {"type": "string", "format": "uuid", "description": "Made when absent."},
    "run_id": {"type": "string", "format": "uuid"},
    "trace_id": {"type": "string", "format": "uuid", "description": "Stands for its root without `run_id`."},
    "session_id": {
        "type": "string",
        "format": "uuid",
        "description": "The run's project, or the judged one.",
    },
    "key": {"type": "string", "maxLength": 180},
    **_CHANGES,
    "error": {"type": "boolean", "description": "Whether what was to judge has failed."},
    "feedback_source": {
        "type": "object",
        "properties": {
            "type": {"type": "string", "example": "api"},
            "metadata": {"type": "object"},
            "user_id": {"type": "string"},
            "user_name": {"type": "string"},
        },
    },
    "extra": {"type": "object"},
    "comparative_experiment_id": {"type": "string", "format": "uuid"},
    "feedback_group_id": {"type": "string", "format": "uuid"},
    "start_time": {"type": "string", "format": "date-time", "description": "When the run began."},
    "created_at": {"type": "string", "format": "date-time"},
    "modified_at": {"type": "string", "format": "date-time"},
}


def _json_body(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "description": description, "properties": properties}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


FEEDBACK_BODY: Final = _json_body(
    "Needs `key`, and `run_id`, `trace_id` or `session_id`. Null is the same as absent.", _FEEDBACK_PROPERTIES
)
FEEDBACK_CHANGES_BODY: Final = _json_body("Null is the same as absent.", _CHANGES)

_EXAMPLE_PROPERTIES: Final[dict[str, Any]] = {
    "id": {"type": "string", "format": "uuid", "description": "Made when absent."},
    "dataset_id": {"type": "string", "format": "uuid"},
    "inputs": {"type": "object"},
    "outputs": {"type": "object"},
    "metadata": {"type": "object", "description": "`dataset_split` in it names the splits."},
    "split": {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "Goes before that in the metadata; `base` when there is neither.",
    },
    "source_run_id": {"type": "string", "format": "uuid"},
    "created_at": {"type": "string", "format": "date-time"},
    "attachments_operations": {
        "type": "object",
        "description": "Of the files that an example has, those not named go.",
        "properties": {
            "rename": {"type": "object", "additionalProperties": {"type": "string"}},
            "retain": {"type": "array", "items": {"type": "string"}},
        },
    },
}
_EXAMPLE: Final = {"type": "object", "properties": _EXAMPLE_PROPERTIES}
EXAMPLE_BODY: Final = _json_body("An example. Null is the same as absent.", _EXAMPLE_PROPERTIES)
EXAMPLES_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "array", "items": _EXAMPLE}}},
    }
}
EXAMPLES_MULTIPART_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": _COMPRESSION
        + """

| part | content |
|---|---|
| `<example_id>` | JSON of an example without contents; may be `{}` |
| `<example_id>.inputs`, `<example_id>.outputs` | JSON objects |
| `<example_id>.attachment.<name>` | a file; the part's Content-Type is its MIME type |
| `<example_id>.attachments_operations` | `{"rename": {old: new}, "retain": [names]}` |

Files without operations replace those that there are.""",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
            }
        },
    }
}

DATASET_UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "input_keys"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "CSV with a header."},
                        "input_keys": {"type": "array", "items": {"type": "string"}},
                        "output_keys": {"type": "array", "items": {"type": "string"}},
                        "metadata_keys": {"type": "array", "items": {"type": "string"}},
                        "name": {"type": "string", "description": "That of the file when absent."},
                        "description": {"type": "string"},
                        "data_type": {"type": "string", "enum": ["kv", "llm", "chat"]},
                        "id": {"type": "string", "format": "uuid"},
                        "inputs_schema_definition": {"type": "string", "description": "JSON Schema."},
                        "outputs_schema_definition": {"type": "string", "description": "JSON Schema."},
                    },
                }
            }
        },
    }
}

ACCEPTED_ANSWER: Final = {
    "description": "Everything is stored durably.",
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"message": {"type": "string"}}},
        }
    },
}


def _go_error(description: str, **more: Any) -> dict[str, Any]:
    properties = {"error": {"type": "string"}, "details": {"type": "string"}, **more}
    schema = {"type": "object", "required": ["error"], "properties": properties}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


INGEST_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: _go_error("The body is not JSON, multipart, or what its compression says; nothing of it is stored."),
    401: _go_error("No credentials, or unknown ones."),
    403: _go_error("The credentials do not cover the workspace."),
    413: _go_error("The body is too large; nothing of it is stored."),
    422: _go_error(
        "Runs or parts were refused. Everything else of the request is stored: do not send it again.",
        refused={
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "source": {"type": "string", "description": "Name of the part, or place in the batch."},
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    ),
    429: _go_error("Overloaded; send again after `Retry-After` seconds."),
    503: _go_error("The store is away; send again."),
}
"""Answers of the ingest routes, by status."""

DESCRIPTION: Final = """\
Stores and serves the runs (traces) of LLM applications and agents, under the LangSmith contract.

**Prefixes.** Routes are shown in their shortest form. v1 routes answer under `/X`, `/api/v1/X` and
`/api/X`, v2 routes under `/api/v2/X` and `/v2/X`, each with or without a trailing slash.

**Credentials.** An API key in `x-api-key` (or `authorization: Bearer …`); `x-tenant-id` names the
workspace of keys that cover several. A server without authentication ignores them.

**Errors.** v1 reads and sessions: `{"detail": …}`. v1 ingest: `{"error": …, "details": …}`. v2:
`application/problem+json` (RFC 7807).
"""

SECURITY_SCHEMES: Final = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}

INDEX_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>runstore</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}
code{background:#8881;padding:.1em .3em}</style>
<h1>runstore</h1>
<p>Stores and serves the runs of LLM applications and agents.</p>
<p>Point a LangSmith SDK here: <code>LANGSMITH_ENDPOINT=<span id="origin">this address</span></code>,
<code>LANGSMITH_TRACING=true</code>.</p>
<ul>
<li><a href="/docs">Documentation of the HTTP interface</a> (<a href="/redoc">for reading</a>)</li>
<li><a href="/openapi.json">OpenAPI</a></li>
<li><a href="/health">Health</a></li>
</ul>
<script>document.getElementById("origin").textContent = location.origin</script>
</html>
"""
