"""Traces with the langsmith SDK in its OTEL mode, which is read from the environment when it is imported.

Arguments: the server's address, the project.
"""

import contextlib
import os
import sys

url, project = sys.argv[1:]
os.environ.update(
    LANGSMITH_TRACING="true",
    LANGSMITH_OTEL_ENABLED="true",
    LANGSMITH_OTEL_ONLY="true",
    LANGSMITH_ENDPOINT=url,
    LANGSMITH_API_KEY="any",
    LANGSMITH_PROJECT=project,
    OTEL_EXPORTER_OTLP_TIMEOUT="60",  # Seconds, instead of ten, after which spans are dropped.
)

from langsmith import Client, traceable  # noqa: E402
from opentelemetry import trace  # noqa: E402

client = Client()


@traceable(
    run_type="llm", name="model", client=client, metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o"}
)
def model(question: str) -> dict[str, object]:
    """An answer with its usage."""
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    details = {"input_token_details": {"cache_read": 4}, "output_token_details": {"reasoning": 2}}
    return {"answer": question.upper(), "usage_metadata": {**usage, **details}}


@traceable(run_type="tool", name="broken", client=client)
def broken() -> None:
    """Fails."""
    raise ValueError("it broke")


@traceable(name="agent", client=client, tags=["blue"], metadata={"thread_id": "thread-7"})
def agent(question: str) -> object:
    """The root."""
    answer = model(question)
    with contextlib.suppress(ValueError):
        broken()
    return answer["answer"]


agent("hello")
client.flush()
provider = trace.get_tracer_provider()
provider.force_flush()  # type: ignore[attr-defined]  # the SDK has set one that can
