"""Stored runs as messages, with tokens for what is read apart from them."""

from runstore.domain.blob_refs import BlobRef
from runstore.domain.runs import RunField, StoredRun
from runstore.query.read_tokens import ReadTokens
from runstore.rpc.mapping import run_message
from runstore.v1 import run_pb2


class RunMessages:
    """Makes messages of runs."""

    def __init__(self, read_tokens: ReadTokens) -> None:
        self._read_tokens = read_tokens

    def message(self, tenant_id: str, run: StoredRun, fields: frozenset[RunField]) -> run_pb2.Run:
        """The run with the selected fields that have a value."""
        message = run_message(run, fields)
        for field, value in run.values.items():
            if isinstance(value, BlobRef):
                payload = message.large_payloads[field.value]
                payload.size_bytes = value.size_bytes
                payload.read_token = self._read_tokens.of_payload(value)
        key, files = run.values.get(RunField.ATTACHMENTS, (None, {}))
        for name, (mime_type, size_bytes) in files.items():
            attachment = message.attachments[name]
            attachment.mime_type = mime_type
            attachment.size_bytes = size_bytes
            attachment.read_token = self._read_tokens.of_attachment(tenant_id, key, name)
        return message
