"""Stored runs as messages, with tokens for what is read apart from them, and what the catalog knows."""

from collections.abc import Sequence
from typing import Protocol

from runstore.domain.blob_refs import BlobRef
from runstore.domain.runs import RunField, StoredRun
from runstore.query.read_tokens import ReadTokens
from runstore.query.retention import ReadRetention
from runstore.rpc.mapping import run_message
from runstore.rpc.retention import TIERS
from runstore.v1 import run_pb2


class Shares(Protocol):
    """What is needed of the catalog's shares."""

    async def tokens_of(self, tenant_id: str, run_ids: Sequence[str]) -> dict[str, str]: ...


class Examples(Protocol):
    """What is needed of the catalog's examples."""

    async def datasets_of(self, tenant_id: str, example_ids: Sequence[str]) -> dict[str, str]: ...
    async def runs_in_datasets(self, tenant_id: str, run_ids: Sequence[str]) -> set[str]: ...


class RunMessages:
    """Makes messages of runs."""

    def __init__(
        self, read_tokens: ReadTokens, shares: Shares, examples: Examples, retention: ReadRetention
    ) -> None:
        self._read_tokens = read_tokens
        self._retention = retention
        self._shares = shares
        self._examples = examples

    async def messages(
        self, tenant_id: str, runs: Sequence[StoredRun], fields: frozenset[RunField]
    ) -> list[run_pb2.Run]:
        """The runs with the selected fields that have a value."""
        messages = [self._message(tenant_id, run, fields) for run in runs]
        run_ids = [run.position.run_id for run in runs]
        if RunField.SHARE_URL in fields:
            tokens = await self._shares.tokens_of(tenant_id, run_ids)
            for run_id, message in zip(run_ids, messages, strict=True):
                if (token := tokens.get(run_id)) is not None:
                    message.share_url = f"/public/{token}/r"
        if RunField.REFERENCE_DATASET_ID in fields:
            example_ids = {each.reference_example_id for each in messages if each.reference_example_id}
            datasets = await self._examples.datasets_of(tenant_id, list(example_ids)) if example_ids else {}
            for message in messages:
                if message.reference_example_id in datasets:
                    message.reference_dataset_id = datasets[message.reference_example_id]
        if RunField.IS_IN_DATASET in fields:
            sources = await self._examples.runs_in_datasets(tenant_id, run_ids)
            for run_id, message in zip(run_ids, messages, strict=True):
                message.is_in_dataset = run_id in sources
        if RunField.TRACE_TIER in fields:
            await self._add_retention(tenant_id, messages)
        return messages

    async def _add_retention(self, tenant_id: str, messages: Sequence[run_pb2.Run]) -> None:
        project_of = {message.trace_id: message.project_id for message in messages}
        found = await self._retention.of_traces(tenant_id, project_of)
        for message in messages:
            retention, is_kept = found[message.trace_id]
            message.trace_tier = TIERS[retention.tier_of(is_kept=is_kept)]
            if (ttl_seconds := retention.ttl_seconds(is_kept=is_kept)) is not None:
                message.ttl_seconds = ttl_seconds
            message.is_trace_kept = is_kept

    def _message(self, tenant_id: str, run: StoredRun, fields: frozenset[RunField]) -> run_pb2.Run:
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
