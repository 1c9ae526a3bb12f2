"""What tests read out of the SDK's models of runs."""

from typing import Any, cast

from langsmith.schemas import Run


def files_of(run: Run) -> dict[str, tuple[str, bytes]]:
    """A run's attachments, fetched: name → MIME type and content."""
    # The SDK's annotation is that of attachments on their way in.
    attachments = cast("dict[str, dict[str, Any]]", run.attachments or {})
    return {name: (file["mime_type"], file["reader"].read()) for name, file in attachments.items()}


def address_of(run: Run, name: str) -> str:
    """Where the server says that an attachment can be fetched."""
    attachments = cast("dict[str, dict[str, Any]]", run.attachments or {})
    return str(attachments[name]["presigned_url"])
