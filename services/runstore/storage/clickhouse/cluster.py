"""The tables on a cluster: for each a local one on every node, and a `Distributed` one of its name in front.

Everything else says its statements as for one server. Reads and inserts mean the tables in front, as they
are. What defines or changes tables is rendered here: it goes to the local ones, on every node
(docs/decisions/0017-cluster.md).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_SHARDING: Final[Mapping[str, str]] = {
    "runs": "cityHash64(trace_id)",
    # These know their run, but not its trace.
    "run_payloads": "cityHash64(run_id)",
    "run_attachments": "cityHash64(run_id)",
    "feedback": "cityHash64(run_id)",
    "deleted_runs": "cityHash64(run_id)",
    "dead_letters": "cityHash64(run_id)",
    "parked_operations": "cityHash64(awaited_run_id)",
    "model_prices": "cityHash64(price_model_id)",
    "schema_migrations": "version",
    # That a trace is kept is said in front; all else a view fills in on each node.
    "trace_keys": "cityHash64(trace_id)",
    # Views fill these on each node, from what it has: nothing is inserted in front of them.
    "run_keys": "",
    "feedback_keys": "",
}
"""By what rows of a table are spread over shards."""

SETTINGS: Final[Mapping[str, Any]] = {
    # Inserts return once the shards have the rows: then the log forgets them.
    "distributed_foreground_insert": 1,
    # A subquery is asked of all shards once, and its answer given to each: rows need not lie together.
    "distributed_product_mode": "global",
    # Each subquery within another counts as one level of recursion, of which there is none here.
    "max_distributed_depth": 100,
    # What says its trace is asked of one shard.
    "optimize_skip_unused_shards": 1,
    # Rows go where their key says, also those that are copied from other rows.
    "parallel_distributed_insert_select": 0,
    # Every store reads of the replicas that every store writes to, as long as they are there.
    "load_balancing": "in_order",
    "prefer_localhost_replica": 0,
    # A replica that is away learns of it from the others; nobody waits for it.
    "distributed_ddl_output_mode": "throw_only_active",
    "lightweight_deletes_sync": 1,
}
"""Of every connection to a cluster, beside those of any engine."""

_CREATE_TABLE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<table>\w+) (?P<body>\(.*\)) "
    r"ENGINE = (?P<engine>\w*MergeTree)(?:\((?P<arguments>[^)]*)\))?(?P<rest> .*)?",
    re.DOTALL,
)
_CREATE_VIEW: Final = re.compile(
    r"CREATE MATERIALIZED VIEW IF NOT EXISTS (?P<view>\w+) TO (?P<target>\w+) "
    r"AS (?P<head>SELECT .* FROM )(?P<source>\w+)(?P<tail>.*)",
    re.DOTALL,
)
_ALTER: Final = re.compile(r"ALTER TABLE (?P<table>\w+) (?P<actions>.*)", re.DOTALL)
_DELETE: Final = re.compile(r"DELETE FROM (?P<table>\w+) (?P<condition>WHERE .*)", re.DOTALL)
_OPTIMIZE: Final = re.compile(r"OPTIMIZE TABLE (?P<table>\w+) (?P<how>.*)", re.DOTALL)
_RENDERED: Final = re.compile(r"\s*(CREATE|ALTER|DELETE|DROP|TRUNCATE|OPTIMIZE|RENAME)\b")
_OF_COLUMNS: Final = re.compile(r"(?:ADD|DROP|MODIFY|RENAME) COLUMN ")
_OF_OTHERS: Final = re.compile(
    r"\b(?:ADD|DROP|MODIFY|MATERIALIZE) (?:INDEX|SETTING|TTL|PARTITION|PROJECTION) "
)


class ClusterDDL:
    """Renders what defines or changes tables for a cluster of ClickHouse."""

    def __init__(self, cluster: str) -> None:
        """`cluster` is the name in the servers' `remote_servers`, of letters, digits and `_`."""
        self._on = f"ON CLUSTER {cluster}"
        self._cluster = cluster

    def render(self, statement: str) -> list[str]:
        """The statements that do on a cluster what `statement` does on one server; itself when that is no
        matter of clusters. Raises ValueError for one that has no rule here."""
        if _RENDERED.match(statement) is None:
            return [statement]
        rules: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], list[str]]], ...] = (
            (_CREATE_TABLE, self._table),
            (_CREATE_VIEW, self._view),
            (_ALTER, self._change),
            (_DELETE, self._deletion),
            (_OPTIMIZE, self._merge),
        )
        for pattern, rule in rules:
            if (match := pattern.fullmatch(statement)) is not None:
                return rule(match)
        raise ValueError(f"no rule for a cluster: {statement[:100]}")

    def _table(self, match: re.Match[str]) -> list[str]:
        table = match["table"]
        if table not in _SHARDING:
            raise ValueError(f"no sharding for the table {table}")
        local = _local(table)
        place = f"'/clickhouse/tables/{{shard}}/{{database}}/{local}', '{{replica}}'"
        engine = ", ".join(filter(None, (place, match["arguments"])))
        target = (f"'{self._cluster}'", "currentDatabase()", f"'{local}'", _SHARDING[table])
        front = ", ".join(filter(None, target))
        body, rest = match["body"], match["rest"] or ""
        engine = f"Replicated{match['engine']}({engine})"
        return [
            f"CREATE TABLE IF NOT EXISTS {local} {self._on} {body} ENGINE = {engine}{rest}",
            f"CREATE TABLE IF NOT EXISTS {table} {self._on} AS {local} ENGINE = Distributed({front})",
        ]

    def _view(self, match: re.Match[str]) -> list[str]:
        query = f"{match['head']}{_local(match['source'])}{match['tail']}"
        name = f"{match['view']} {self._on} TO {_local(match['target'])}"
        return [f"CREATE MATERIALIZED VIEW IF NOT EXISTS {name} AS {query}"]

    def _change(self, match: re.Match[str]) -> list[str]:
        table, actions = match["table"], match["actions"]
        changed = [_local(table)]
        if _OF_COLUMNS.match(actions):
            if _OF_OTHERS.search(actions):
                raise ValueError(f"columns and other things in one statement: {actions[:100]}")
            changed.append(table)
        return [f"ALTER TABLE {each} {self._on} {actions}" for each in changed]

    def _merge(self, match: re.Match[str]) -> list[str]:
        return [f"OPTIMIZE TABLE {_local(match['table'])} {self._on} {match['how']}"]

    def _deletion(self, match: re.Match[str]) -> list[str]:
        return [f"DELETE FROM {_local(match['table'])} {self._on} {match['condition']}"]


class ClusterClient:
    """A client of the driver that may be told statements as for one server."""

    def __init__(self, client: Any, ddl: ClusterDDL) -> None:
        self._client = client
        self._ddl = ddl

    def command(self, cmd: str, *args: Any, **options: Any) -> Any:
        """As the driver's; the answer to the last of the statements that it becomes."""
        answer = None
        for statement in self._ddl.render(cmd):
            answer = self._client.command(statement, *args, **options)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _local(table: str) -> str:
    return f"{table}_local"
