"""Which access every gRPC method and every HTTP route needs: the fewest rights that do.

The one table of both interfaces. A method or route that is missing here cannot be served: store and gateway
refuse to start with it. The store enforces the methods; the gateway enforces the routes before it looks at
anything else of a request, so that a stranger learns nothing from how it is refused.
"""

from collections.abc import Mapping
from typing import Final

from runstore.domain.access import Access


def method_access(method: str) -> Access:
    """Access that a gRPC method (`/package.Service/Method`) needs. Raises LookupError without an entry."""
    service, _, name = method.removeprefix("/").partition("/")
    methods = METHODS.get(service, {})
    access = methods.get(name) or methods.get("*")
    if access is None:
        raise LookupError(f"{method} has no entry in the table of access (domain/access_table.py)")
    return access


def route_access(method: str, path: str) -> Access:
    """Access that an HTTP route needs, its path as it is registered. Raises LookupError without an entry."""
    access = ROUTES.get(f"{method} {path}") or ROUTES.get(f"* {path}")
    if access is None:
        raise LookupError(f"{method} {path} has no entry in the table of access (domain/access_table.py)")
    return access


def _by_name(table: Mapping[Access, str]) -> dict[str, Access]:
    return {name: access for access, names in table.items() for name in names.split()}


def _by_line(table: Mapping[Access, str]) -> dict[str, Access]:
    return {
        line.strip(): access for access, lines in table.items() for line in lines.splitlines() if line.strip()
    }


# Short names, so that a service is a line or two.
_INGEST, _READ, _EDIT = Access.INGEST, Access.READ, Access.EDIT

_SERVICES: Final[Mapping[str, Mapping[Access, str]]] = {
    # -- about the server -----------------------------------------------------------------------------------
    "grpc.health.v1.Health": {Access.PUBLIC: "*"},
    "grpc.reflection.v1alpha.ServerReflection": {Access.PUBLIC: "*"},
    "runstore.v1.AdminService": {
        Access.OPERATOR: "GetStatus GetMetrics ListDeadLetters GetDeadLetter ReplayDeadLetters "
        "DropDeadLetters CreateBackup CreateApiKey ListApiKeys RevokeApiKey ListTenants DeleteTenant "
        "GetTenantLimits SetTenantLimits ListTenantLimits"
    },
    "runstore.v1.TenantService": {
        Access.MEMBER: "GetCaller GetLimits",
        _READ: "GetTenant",
        Access.ADMIN: "SetTenantHandle",
    },
    # -- runs and feedback ----------------------------------------------------------------------------------
    "runstore.v1.RunIngestService": {Access.MEMBER: "WaitVisible", _INGEST: "StreamRuns WriteRuns"},
    "opentelemetry.proto.collector.trace.v1.TraceService": {_INGEST: "Export"},
    "runstore.v1.BlobService": {Access.TOKEN: "ReadBlob", _INGEST: "UploadBlob"},
    "runstore.v1.RunQueryService": {_READ: "ListRuns GetRun ExportRuns"},
    "runstore.v1.RunStatsService": {_READ: "RunStats"},
    "runstore.v1.RunDeletionService": {_EDIT: "DeleteRuns DeleteTraces"},
    "runstore.v1.TraceQueryService": {_READ: "ListTraces ListTraceRuns"},
    "runstore.v1.ThreadQueryService": {
        _READ: "ListThreads AggregateThreadStats GetThreadStats ListThreadTraces"
    },
    "runstore.v1.FilterService": {_READ: "CheckFilters GenerateFilter"},
    "runstore.v1.ShareService": {_READ: "GetShare", _EDIT: "ShareRun ShareThread Unshare"},
    "runstore.v1.SharedRunService": {Access.TOKEN: "ListSharedRuns"},
    "runstore.v1.FeedbackService": {
        _INGEST: "WriteFeedback",
        _READ: "GetFeedback ListFeedback GetFeedbackStats",
        _EDIT: "UpdateFeedback DeleteFeedback",
    },
    "runstore.v1.FeedbackTokenService": {
        Access.TOKEN: "UseFeedbackToken",
        _READ: "ListFeedbackTokens",
        _EDIT: "CreateFeedbackTokens",
    },
    "runstore.v1.FeedbackConfigService": {
        _READ: "ListFeedbackConfigs",
        _EDIT: "CreateFeedbackConfig UpdateFeedbackConfig DeleteFeedbackConfig",
    },
    # -- what people set up ---------------------------------------------------------------------------------
    "runstore.v1.ProjectService": {
        _READ: "GetProject ListProjects",
        _EDIT: "CreateProject UpdateProject DeleteProject",
    },
    "runstore.v1.RetentionService": {
        _READ: "GetRetention",
        _EDIT: "KeepTraces",
        Access.ADMIN: "SetRetention",
    },
    "runstore.v1.AgentRegistryService": {
        _READ: "GetRegisteredAgent ListRegisteredAgents",
        _EDIT: "RegisterAgent UpdateRegisteredAgent DeleteRegisteredAgent",
    },
    "runstore.v1.AnnotationQueueService": {
        _READ: "GetAnnotationQueue ListAnnotationQueues ListQueueItems CountQueueItems GetQueueItemPlacement",
        _EDIT: "CreateAnnotationQueue UpdateAnnotationQueue DeleteAnnotationQueue AddQueueItems "
        "PopulateAnnotationQueue UpdateQueueItem ReviewQueueItem RemoveQueueItems",
    },
    "runstore.v1.OnlineEvaluatorService": {
        _READ: "GetOnlineEvaluator ListOnlineEvaluators",
        _EDIT: "CreateOnlineEvaluator UpdateOnlineEvaluator DeleteOnlineEvaluators",
    },
    "runstore.v1.ComparativeExperimentService": {
        _READ: "ListComparativeExperiments",
        _EDIT: "CreateComparativeExperiment DeleteComparativeExperiment",
    },
    "runstore.v1.DatasetService": {
        _READ: "GetDataset ListDatasets ListDatasetVersions GetDatasetVersion DiffDatasetVersions "
        "ListDatasetSplits",
        _EDIT: "CreateDataset UpdateDataset DeleteDataset TagDatasetVersion UpdateDatasetSplit",
    },
    "runstore.v1.DatasetSharingService": {_READ: "GetDatasetShare", _EDIT: "ShareDataset UnshareDataset"},
    "runstore.v1.SharedDatasetService": {
        Access.TOKEN: "GetSharedDataset ListSharedExamples ListSharedProjects"
    },
    "runstore.v1.ExampleService": {_READ: "GetExample ListExamples", _EDIT: "WriteExamples DeleteExamples"},
    "runstore.v1.ExampleSearchService": {_READ: "SearchExamples", _EDIT: "IndexDataset SyncDatasetIndex"},
    "runstore.v1.PromptService": {
        Access.PUBLISHED: "GetPrompt ListPrompts GetPromptCommit ListPromptCommits ListPromptTags",
        _EDIT: "CreatePrompt UpdatePrompt DeletePrompt LikePrompt CreatePromptCommit CreateDirectoryCommit "
        "SetPromptTag DeletePromptTag",
    },
    # -- graphs ---------------------------------------------------------------------------------------------
    "runstore.v1.AgentRunService": {
        _READ: "GetAgentRun ListAgentRuns JoinAgentRun",
        _EDIT: "CreateAgentRun CreateAgentRuns CancelAgentRun CancelAgentRuns DeleteAgentRun",
    },
    "runstore.v1.ThreadService": {
        _READ: "GetAgentThread SearchAgentThreads CountAgentThreads GetThreadState ListThreadHistory "
        "JoinAgentThread",
        _EDIT: "CreateAgentThread UpdateAgentThread DeleteAgentThread CopyAgentThread PruneAgentThreads "
        "UpdateThreadState",
    },
    "runstore.v1.AssistantService": {
        _READ: "GetAssistant SearchAssistants CountAssistants ListAssistantVersions GetAssistantSchemas "
        "GetAssistantGraph GetAssistantSubgraphs",
        _EDIT: "CreateAssistant UpdateAssistant DeleteAssistant SetLatestAssistantVersion",
    },
    "runstore.v1.CronService": {
        _READ: "GetCron SearchCrons CountCrons",
        _EDIT: "CreateCron UpdateCron DeleteCron",
    },
    "runstore.v1.AgentItemService": {
        _READ: "GetAgentItem SearchAgentItems ListAgentItemNamespaces",
        _EDIT: "PutAgentItem DeleteAgentItem",
    },
    # A worker writes the states of threads, and runs of graphs may do whatever an editor may.
    "runstore.v1.AgentWorkerService": {_EDIT: "Work RenewClaims"},
}

METHODS: Final[Mapping[str, Mapping[str, Access]]] = {
    service: _by_name(table) for service, table in _SERVICES.items()
}
"""Service → method → access; `*` stands for every method of a service of gRPC itself."""

ROUTES: Final[Mapping[str, Access]] = _by_line(
    {
        Access.PUBLIC: """
            GET /
            GET /docs
            GET /docs/oauth2-redirect
            GET /redoc
            GET /openapi.json
            HEAD /openapi.json
            * /static-offline-docs
            GET /info
            GET /ok
            GET /health
        """,
        Access.TOKEN: """
            GET /attachments/{read_token:path}
            GET /feedback/tokens/{token}
            POST /feedback/tokens/{token}
            GET /public/{share_token}/run
            GET /public/{share_token}/run/{run_id}
            POST /public/{share_token}/runs/query
            GET /public/{share_token}/datasets
            GET /public/{share_token}/datasets/sessions
            GET /public/{share_token}/examples
            POST /api/v2/public/{share_token}/runs/query
            GET /api/v2/public/{share_token}/run/{run_id}
        """,
        Access.PUBLISHED: """
            GET /repos
            GET /repos/{owner}/{repo}
            GET /repos/{owner}/{repo}/tags
            GET /repos/{owner}/{repo}/tags/{tag_name}
            GET /commits/{owner}/{repo}
            GET /commits/{owner}/{repo}/{reference}
            GET /v1/platform/hub/repos/{owner}/{repo}/directories
        """,
        Access.MEMBER: """
            * /runs/rules
            * /runs/rules/{rest:path}
            * /sessions/{session_id}/insights
            * /sessions/{session_id}/insights/{rest:path}
            * /workspaces/current/secrets
            * /prompt-webhooks
            * /prompt-webhooks/{rest:path}
            * /v1/platform/issues
            * /v1/platform/issues/{rest:path}
            * /v1/platform/product-feedbacks
            * /v1/platform/product-feedbacks/{rest:path}
            * /v1/fleet/{rest:path}
            * /api/v2/sandboxes/{rest:path}
        """,
        Access.INGEST: """
            POST /runs
            PATCH /runs/{run_id}
            POST /runs/batch
            POST /runs/multipart
            POST /v1/traces
            POST /traces
            POST /otel/v1/traces
            POST /otel
            POST /feedback
        """,
        Access.READ: """
            GET /runs/{run_id}
            GET /runs/{run_id}/share
            GET /runs/threads/{thread_id:path}
            POST /runs/query
            POST /runs/query/validate
            POST /runs/generate-query
            POST /runs/stats
            POST /runs/group
            POST /runs/group/stats
            POST /api/v2/runs/query
            GET /api/v2/runs/{run_id}
            GET /api/v2/runs/{run_id}/url
            POST /api/v2/traces/query
            GET /api/v2/traces/{trace_id}/runs
            POST /api/v2/threads/query
            POST /api/v2/threads/stats
            GET /api/v2/threads/{thread_id:path}/share
            GET /api/v2/threads/{thread_id:path}/stats
            GET /api/v2/threads/{thread_id:path}/traces
            GET /sessions
            GET /sessions/{session_id}
            GET /sessions/resolutions
            GET /feedback
            GET /feedback/{feedback_id}
            GET /feedback/tokens
            GET /feedback-configs
            GET /settings
            GET /agents
            GET /agents/{agent_id}
            GET /annotation-queues
            GET /annotation-queues/{queue_id}
            GET /annotation-queues/{run_id}/queues
            GET /annotation-queues/{queue_id}/runs
            GET /annotation-queues/{queue_id}/run/{index}
            GET /annotation-queues/{queue_id}/size
            GET /annotation-queues/{queue_id}/total_size
            GET /annotation-queues/{queue_id}/total_archived
            POST /annotation-queues/{queue_id}/export
            GET /v1/platform/annotation-queues/{queue_id}/items
            GET /v1/platform/annotation-queues/{queue_id}/items/count
            GET /v1/platform/annotation-queues/{queue_id}/items/{item_id}/placement
            GET /v1/platform/evaluators
            GET /v1/platform/evaluators/spend
            GET /v1/platform/evaluators/{evaluator_id}
            GET /datasets
            GET /datasets/{dataset_id}
            GET /datasets/{dataset_id}/csv
            GET /datasets/{dataset_id}/jsonl
            GET /datasets/{dataset_id}/openai
            GET /datasets/{dataset_id}/openai_ft
            GET /datasets/{dataset_id}/versions
            GET /datasets/{dataset_id}/version
            GET /datasets/{dataset_id}/versions/diff
            GET /datasets/{dataset_id}/splits
            GET /datasets/{dataset_id}/share
            GET /datasets/{dataset_id}/comparative
            POST /datasets/{dataset_id}/runs
            POST /datasets/{dataset_id}/search
            POST /api/v2/datasets/{dataset_id}/experiment-runs
            GET /examples
            GET /examples/{example_id}
            GET /threads/{thread_id}
            GET /threads/{thread_id}/stream
            GET /threads/{thread_id}/state
            GET /threads/{thread_id}/state/{checkpoint_id}
            GET /threads/{thread_id}/runs
            GET /threads/{thread_id}/runs/{run_id}
            GET /threads/{thread_id}/runs/{run_id}/join
            GET /threads/{thread_id}/runs/{run_id}/stream
            POST /threads/search
            POST /threads/count
            POST /threads/{thread_id}/state/checkpoint
            POST /threads/{thread_id}/history
            GET /runs/crons/{cron_id}
            POST /runs/crons/search
            POST /runs/crons/count
            GET /assistants/{assistant_id}
            GET /assistants/{assistant_id}/schemas
            GET /assistants/{assistant_id}/graph
            GET /assistants/{assistant_id}/subgraphs
            GET /assistants/{assistant_id}/subgraphs/{namespace}
            POST /assistants/search
            POST /assistants/count
            POST /assistants/{assistant_id}/versions
            GET /store/items
            POST /store/items/search
            POST /store/namespaces
        """,
        Access.EDIT: """
            POST /runs/delete
            POST /runs/delete/traces
            PUT /runs/{run_id}/share
            DELETE /runs/{run_id}/share
            POST /api/v2/runs/{run_id}/share
            DELETE /api/v2/runs/{trace_id}/share
            POST /api/v2/threads/{thread_id:path}/share
            DELETE /api/v2/threads/{thread_id:path}/share
            POST /sessions
            PATCH /sessions/{session_id}
            DELETE /sessions/{session_id}
            POST /feedback/tokens
            PATCH /feedback/{feedback_id}
            DELETE /feedback/{feedback_id}
            POST /feedback-configs
            PATCH /feedback-configs
            DELETE /feedback-configs
            POST /agents
            PATCH /agents/{agent_id}
            DELETE /agents/{agent_id}
            POST /annotation-queues
            POST /annotation-queues/populate
            PATCH /annotation-queues/{queue_id}
            DELETE /annotation-queues/{queue_id}
            POST /annotation-queues/{queue_id}/runs
            POST /annotation-queues/{queue_id}/runs/by-key
            PATCH /annotation-queues/{queue_id}/runs/{queue_run_id}
            POST /annotation-queues/{queue_id}/runs/delete
            DELETE /annotation-queues/{queue_id}/runs/{run_id}
            POST /annotation-queues/status/{queue_run_id}
            POST /v1/platform/annotation-queues/{queue_id}/items
            PATCH /v1/platform/annotation-queues/{queue_id}/items/{item_id}
            POST /v1/platform/annotation-queues/items/{item_id}/status
            POST /v1/platform/annotation-queues/{queue_id}/items/delete
            POST /v1/platform/evaluators
            PATCH /v1/platform/evaluators/{evaluator_id}
            DELETE /v1/platform/evaluators
            DELETE /v1/platform/evaluators/{evaluator_id}
            POST /datasets
            POST /datasets/upload
            PATCH /datasets/{dataset_id}
            DELETE /datasets/{dataset_id}
            PUT /datasets/{dataset_id}/tags
            PUT /datasets/{dataset_id}/splits
            PUT /datasets/{dataset_id}/share
            DELETE /datasets/{dataset_id}/share
            POST /datasets/{dataset_id}/index
            POST /datasets/{dataset_id}/index/sync
            POST /datasets/comparative
            DELETE /datasets/comparative/{comparative_experiment_id}
            POST /examples
            POST /examples/bulk
            PATCH /examples/bulk
            PATCH /examples/{example_id}
            DELETE /examples
            DELETE /examples/{example_id}
            POST /v1/platform/datasets/examples/delete
            POST /v1/platform/datasets/{dataset_id}/examples
            PATCH /v1/platform/datasets/{dataset_id}/examples
            DELETE /v1/platform/datasets/{dataset_id}/examples/{example_id}
            POST /v1/platform/examples/multipart
            POST /repos
            PATCH /repos/{owner}/{repo}
            DELETE /repos/{owner}/{repo}
            POST /repos/{owner}/{repo}/tags
            PATCH /repos/{owner}/{repo}/tags/{tag_name}
            DELETE /repos/{owner}/{repo}/tags/{tag_name}
            POST /likes/{owner}/{repo}
            POST /commits/{owner}/{repo}
            POST /v1/platform/hub/repos/{owner}/{repo}/directories/commits
            DELETE /v1/platform/hub/repos/{owner}/{repo}/directories
            POST /threads
            POST /threads/prune
            PATCH /threads/{thread_id}
            DELETE /threads/{thread_id}
            POST /threads/{thread_id}/copy
            POST /threads/{thread_id}/state
            POST /threads/{thread_id}/runs
            POST /threads/{thread_id}/runs/wait
            POST /threads/{thread_id}/runs/stream
            POST /threads/{thread_id}/runs/crons
            POST /threads/{thread_id}/runs/{run_id}/cancel
            DELETE /threads/{thread_id}/runs/{run_id}
            POST /runs/wait
            POST /runs/stream
            POST /runs/cancel
            POST /runs/crons
            PATCH /runs/crons/{cron_id}
            DELETE /runs/crons/{cron_id}
            POST /assistants
            PATCH /assistants/{assistant_id}
            DELETE /assistants/{assistant_id}
            POST /assistants/{assistant_id}/latest
            PUT /store/items
            DELETE /store/items
        """,
        Access.ADMIN: """
            POST /settings/handle
        """,
        Access.OPERATOR: """
            GET /metrics
        """,
    }
)
"""`METHOD path` → access; `*` stands for every method."""
