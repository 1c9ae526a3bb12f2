"""What the contract says a run is, on plain Python values (runs-v1.md sections 4.3 and 9 to 11).

Operations merge field by field in the order of their sequence numbers, whole values replacing whole
values; `extra` merges by key and attachments by name. Everything derived is a function of the
merged content. What one payload says is asked of the domain's functions, which have tests of their own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from runstore.domain import dotted_order
from runstore.domain.events import first_token_time
from runstore.domain.extra import read_extra
from runstore.domain.previews import error_preview, preview
from runstore.domain.prices import cost
from runstore.domain.runs import RunField, RunPatch
from runstore.domain.times import format_naive
from runstore.domain.usage import EXACT, Usage, usage_from_metadata, usage_from_outputs

from .pipeline import PRICES

_REPLACED = (
    "name", "run_type", "end_time_us", "inputs", "outputs", "error", "events", "manifest", "tags",
    "reference_example_id", "project_id", "dotted_order", "parent_run_id", "trace_id", "start_time_us",
)  # fmt: skip
_SMALLEST = Decimal(1).scaleb(-18)


@dataclass
class Content:
    """The last word on every field of one run."""

    run_id: str
    told: dict[str, Any] = field(default_factory=dict)
    extra: Any = None
    attachments: dict[str, tuple[str, int]] = field(default_factory=dict)

    def apply(self, patch: RunPatch) -> None:
        for name in _REPLACED:
            if (value := getattr(patch, name)) is not None:
                self.told[name] = value
        if patch.extra is not None:
            self.extra = _merged(self.extra, json.loads(patch.extra))
        for name, file in (patch.attachments or {}).items():
            self.attachments[name] = (file.mime_type, len(file.content))

    @property
    def start_time_us(self) -> int | None:
        if "start_time_us" in self.told:
            return int(self.told["start_time_us"])
        if "dotted_order" in self.told:
            return dotted_order.parse(self.told["dotted_order"]).start_time_us
        return None


def expected_runs(operations: Iterable[RunPatch]) -> dict[str, dict[RunField, Any]]:
    """The runs that one tenant's operations make, by id, with every field that has a value."""
    contents: dict[str, Content] = {}
    tenant_id = ""
    for patch in sorted(operations, key=lambda each: each.sequence):
        tenant_id = patch.tenant_id
        contents.setdefault(patch.run_id, Content(patch.run_id)).apply(patch)
    return {
        run_id: _fields(tenant_id, content, contents)
        for run_id, content in contents.items()
        if _is_listed(content)
    }


def _is_listed(content: Content) -> bool:
    """A run is listed once its name and type are known, and with them where it belongs."""
    told = content.told
    return (
        "name" in told and "run_type" in told and "project_id" in told and content.start_time_us is not None
    )


def _merged(old: Any, new: Any) -> Any:
    """`extra`, and `metadata` inside it, merge by key; a null never erases."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old if new is None or isinstance(old, dict) else new
    result = dict(old)
    for key, value in new.items():
        if key == "metadata":
            result[key] = _overlay(result[key], value) if key in result else value
        elif value is not None or key not in result:
            result[key] = value
    return result


def _overlay(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old if new is None or isinstance(old, dict) else new
    return {**old, **{key: value for key, value in new.items() if value is not None or key not in old}}


@dataclass(frozen=True)
class Place:
    """Where a run is in its trace."""

    trace_id: str
    order: str
    parents: tuple[str, ...]


def place(run_id: str, contents: Mapping[str, Content]) -> Place:
    """As told by the dotted order, else below the parent, else a root; a guess without the parent."""
    content = contents[run_id]
    if "dotted_order" in content.told:
        told = dotted_order.parse(content.told["dotted_order"])
        return Place(told.trace_id, content.told["dotted_order"], told.parent_run_ids)
    start_us = content.start_time_us
    assert start_us is not None
    parent_id = content.told.get("parent_run_id")
    if parent_id is None:
        return Place(run_id, dotted_order.root(start_us, run_id), ())
    if parent_id not in contents or contents[parent_id].start_time_us is None:
        return Place(
            content.told.get("trace_id") or parent_id, dotted_order.root(start_us, run_id), (parent_id,)
        )
    parent = place(parent_id, contents)
    return Place(
        parent.trace_id,
        dotted_order.child(parent.order, start_us, run_id),
        (*parent.parents, parent_id),
    )


def _fields(tenant_id: str, content: Content, contents: Mapping[str, Content]) -> dict[RunField, Any]:
    told, run_id, start_us = content.told, content.run_id, content.start_time_us
    assert start_us is not None
    position = place(run_id, contents)
    end_us = told.get("end_time_us")
    status = "error" if "error" in told else "pending" if end_us is None else "success"
    trace, started = position.trace_id, format_naive(start_us)
    fields: dict[RunField, Any] = {
        RunField.ID: run_id,
        RunField.NAME: told["name"],
        RunField.RUN_TYPE: told["run_type"],
        RunField.STATUS: status,
        RunField.START_TIME: start_us,
        RunField.END_TIME: end_us,
        RunField.LATENCY_SECONDS: None if end_us is None else (end_us - start_us) / 1e6,
        RunField.ERROR: told.get("error"),
        RunField.INPUTS: told.get("inputs"),
        RunField.OUTPUTS: told.get("outputs"),
        RunField.EVENTS: told.get("events"),
        RunField.MANIFEST: told.get("manifest"),
        RunField.EXTRA: content.extra,
        RunField.METADATA: content.extra.get("metadata") if isinstance(content.extra, dict) else None,
        RunField.PARENT_RUN_IDS: list(position.parents),
        RunField.PROJECT_ID: told["project_id"],
        RunField.TRACE_ID: trace,
        RunField.DOTTED_ORDER: position.order,
        RunField.IS_ROOT: not position.parents,
        RunField.REFERENCE_EXAMPLE_ID: told.get("reference_example_id"),
        RunField.TAGS: list(told.get("tags", ())),
        RunField.APP_PATH: (
            f"/o/{tenant_id}/projects/p/{told['project_id']}/r/{run_id}?trace_id={trace}&start_time={started}"
        ),
        RunField.ATTACHMENTS: content.attachments or None,
        **_payload_facts(content),
        **_usage_facts(content, start_us),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _payload_facts(content: Content) -> dict[RunField, Any]:
    told = content.told
    facts = read_extra(json.dumps(content.extra).encode())
    return {
        RunField.INPUTS_PREVIEW: preview(told["inputs"]) if "inputs" in told else None,
        RunField.OUTPUTS_PREVIEW: preview(told["outputs"]) if "outputs" in told else None,
        RunField.ERROR_PREVIEW: error_preview(told["error"]) if "error" in told else None,
        RunField.FIRST_TOKEN_TIME: first_token_time(told["events"]) if "events" in told else None,
        RunField.THREAD_ID: facts.thread_id or None,
        RunField.LS_USER_ID: facts.ls_user_id or None,
    }


def _usage_facts(content: Content, start_us: int) -> dict[RunField, Any]:
    usage = _usage(content)
    facts = read_extra(json.dumps(content.extra).encode())
    tokens = usage.prompt_tokens if usage is not None else 0
    price = PRICES.find(facts.model, facts.provider, start_us, prompt_tokens=tokens)
    fields: dict[RunField, Any] = {RunField.PRICE_MODEL_ID: price.price_model_id if price else None}
    if usage is not None:
        spent = cost(usage, price)
        for name in (
            "total_tokens", "prompt_tokens", "completion_tokens", "prompt_token_details",
            "completion_token_details",
        ):  # fmt: skip
            fields[RunField(name)] = getattr(usage, name)
        for name in ("total_cost", "prompt_cost", "completion_cost"):
            fields[RunField(name)] = _money(getattr(spent, name))
        for name in ("prompt_cost_details", "completion_cost_details"):
            details = getattr(spent, name)
            fields[RunField(name)] = {category: _money(amount) for category, amount in details.items()}
    return fields


def _usage(content: Content) -> Usage | None:
    """The first place of section 10 that has any."""
    metadata = content.extra.get("metadata") if isinstance(content.extra, dict) else None
    told = metadata.get("usage_metadata") if isinstance(metadata, dict) else None
    found = [
        usage_from_outputs(content.told["outputs"]) if "outputs" in content.told else None,
        usage_from_metadata(json.dumps(told).encode()) if told is not None else None,
    ]
    return max((each for each in found if each is not None), key=lambda each: each.rank, default=None)


def _money(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else amount.quantize(_SMALLEST, context=EXACT)


# -- comparing ---------------------------------------------------------------------------------------

_JSON = frozenset({RunField.EXTRA, RunField.METADATA})


def readable(values: Mapping[RunField, Any]) -> dict[RunField, Any]:
    """A stored run in the oracle's types: JSON that merging may have reprinted becomes objects."""
    found = dict(values)
    for name in _JSON & found.keys():
        found[name] = json.loads(found[name])
    if RunField.ATTACHMENTS in found:
        _, files = found[RunField.ATTACHMENTS]
        found[RunField.ATTACHMENTS] = files
    for name, value in found.items():
        if isinstance(value, Decimal):
            found[name] = _money(value)
        elif isinstance(value, dict) and name in _MONEYS:
            found[name] = {category: _money(amount) for category, amount in value.items()}
        elif name in (RunField.TAGS, RunField.PARENT_RUN_IDS):
            found[name] = list(value)
    return {name: value for name, value in found.items() if value != {} or name not in _MONEYS}


_MONEYS = frozenset({RunField.PROMPT_COST_DETAILS, RunField.COMPLETION_COST_DETAILS})


def assert_same(found: Mapping[str, Mapping[RunField, Any]], operations: Iterable[RunPatch]) -> None:
    """The stored runs are those that the operations make, field by field."""
    wanted = {
        run_id: {name: value for name, value in fields.items() if value != {} or name not in _MONEYS}
        for run_id, fields in expected_runs(operations).items()
    }
    stored = {run_id: readable(values) for run_id, values in found.items()}
    assert stored.keys() == wanted.keys(), (
        f"missing {wanted.keys() - stored}, too many {stored.keys() - wanted}"
    )
    for run_id, fields in wanted.items():
        differing = {
            str(name): (stored[run_id].get(name), fields.get(name))
            for name in stored[run_id].keys() | fields.keys()
            if stored[run_id].get(name) != fields.get(name)
        }
        assert not differing, f"(stored, expected) of {run_id}: {differing}"
