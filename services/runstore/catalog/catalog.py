"""The catalog as the rest of runstore uses it: opened once per process, migrated, with its default tenant."""

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import insert, select

from runstore.catalog import tables
from runstore.catalog.agent_claims import AgentClaimCatalog
from runstore.catalog.agent_items import AgentItemCatalog
from runstore.catalog.agent_registry import AgentRegistry
from runstore.catalog.agent_runs import AgentRunCatalog
from runstore.catalog.agent_threads import AgentThreadCatalog
from runstore.catalog.annotation_queues import AnnotationQueueCatalog
from runstore.catalog.assistants import AssistantCatalog
from runstore.catalog.comparative_experiments import ComparativeExperimentCatalog
from runstore.catalog.crons import CronCatalog
from runstore.catalog.database import Conflict, Database, open_database
from runstore.catalog.dataset_shares import DatasetShareCatalog
from runstore.catalog.dataset_versions import DatasetVersionCatalog
from runstore.catalog.datasets import DatasetCatalog
from runstore.catalog.example_search import ExampleSearch
from runstore.catalog.example_sources import ExampleSources
from runstore.catalog.examples import ExampleCatalog
from runstore.catalog.feedback_setup import FeedbackConfigCatalog, FeedbackTokenCatalog
from runstore.catalog.keys import KeyCatalog
from runstore.catalog.leases import LeaseCatalog
from runstore.catalog.metrics import CatalogMetrics
from runstore.catalog.migrations import migrate
from runstore.catalog.online_evaluators import OnlineEvaluatorCatalog
from runstore.catalog.projects import ProjectCatalog
from runstore.catalog.prompt_commits import PromptCommitCatalog
from runstore.catalog.prompts import PromptCatalog
from runstore.catalog.queue_items import QueueItemCatalog
from runstore.catalog.retention import RetentionCatalog
from runstore.catalog.shares import ShareCatalog
from runstore.catalog.stores import StoreCatalog
from runstore.catalog.tenant_deletions import TenantDeletionCatalog
from runstore.catalog.tenant_handles import TenantHandles
from runstore.catalog.tenant_limits import TenantLimitCatalog
from runstore.catalog.webhook_outbox import WebhookOutbox
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID, DEFAULT_TENANT_NAME
from runstore.runtime.clock import Clock, SystemClock

_SECRET_BYTES = 32


class Catalog:
    """Everything transactional: projects, datasets, tenants, keys and the server's own secrets."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.projects = ProjectCatalog(database, clock)
        self.datasets = DatasetCatalog(database, clock)
        self.dataset_versions = DatasetVersionCatalog(database)
        self.dataset_shares = DatasetShareCatalog(database)
        self.comparative_experiments = ComparativeExperimentCatalog(database)
        self.example_sources = ExampleSources(database, clock)
        self.examples = ExampleCatalog(database, clock, self.example_sources)
        self.example_search = ExampleSearch(database, self.datasets, self.examples)
        self.keys = KeyCatalog(database, self.projects, clock)
        self.annotation_queues = AnnotationQueueCatalog(database, clock)
        self.queue_items = QueueItemCatalog(database, clock)
        self.agent_threads = AgentThreadCatalog(database, clock)
        self.agent_runs = AgentRunCatalog(database, clock)
        self.agent_claims = AgentClaimCatalog(database, clock)
        self.assistants = AssistantCatalog(database, clock)
        self.crons = CronCatalog(database, clock)
        self.agent_items = AgentItemCatalog(database, clock)
        self.stores = StoreCatalog(database, clock)
        self.webhook_outbox = WebhookOutbox(database, clock)
        self.shares = ShareCatalog(database, clock)
        self.feedback_tokens = FeedbackTokenCatalog(database, clock)
        self.feedback_configs = FeedbackConfigCatalog(database, clock)
        self.tenant_limits = TenantLimitCatalog(database)
        self.tenant_deletions = TenantDeletionCatalog(database, self.keys, clock)
        self.tenant_handles = TenantHandles(database)
        self.prompts = PromptCatalog(database, self.tenant_handles, clock)
        self.prompt_commits = PromptCommitCatalog(database, clock)
        self.online_evaluators = OnlineEvaluatorCatalog(database, clock)
        self.agent_registry = AgentRegistry(database)
        self.retention = RetentionCatalog(database, clock)

    def leases(self, holder: str) -> LeaseCatalog:
        """The leases of a store with this id."""
        return LeaseCatalog(self._database, self._clock, holder)

    async def secret(self, name: str) -> bytes:
        """32 random bytes that stay the same for this catalog for ever; made on first use, exactly once."""
        secret = tables.secrets.c
        query = select(secret.value).where(secret.name == name)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).scalar_one_or_none()
        if found is not None:
            return bytes(found)
        made = secrets.token_bytes(_SECRET_BYTES)
        values = {"name": name, "value": made, "created_at_us": self._clock.now_us()}
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.secrets).values(values))
        except Conflict:  # Another process was first; its value is the one that counts.
            return await self.secret(name)
        return made

    async def operator_key(self) -> str:
        """The credential for what concerns all tenants; whoever can open the catalog can have it."""
        return "rso_" + base64.urlsafe_b64encode(await self.secret("operator")).rstrip(b"=").decode()

    async def ensure_defaults(self) -> None:
        """The default tenant and its default project exist afterwards."""
        tenant = tables.tenants.c
        async with self._database.read() as connection:
            query = select(tenant.id).where(tenant.id == DEFAULT_TENANT_ID)
            found = (await connection.execute(query)).one_or_none()
        if found is None:
            try:
                await self.keys.create_tenant(DEFAULT_TENANT_NAME, tenant_id=DEFAULT_TENANT_ID)
            except RunstoreError as error:
                if error.reason is not ErrorReason.ALREADY_EXISTS:
                    raise
        await self.projects.ensure_default(DEFAULT_TENANT_ID)


@asynccontextmanager
async def open_catalog(
    url: str, clock: Clock | None = None, metrics: CatalogMetrics | None = None
) -> AsyncIterator[Catalog]:
    """Connects to `url` (`sqlite:///path`, `postgresql://…`), migrates it, ensures the default tenant.

    Raises SchemaTooNew for a database of a later runstore, RunstoreError INVALID_ARGUMENT for a
    URL that cannot be used, UNAVAILABLE when the database does not answer.
    """
    async with open_database(url, metrics) as database:
        await migrate(database)
        catalog = Catalog(database, clock or SystemClock())
        await catalog.ensure_defaults()
        yield catalog
