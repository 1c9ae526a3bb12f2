"""Derives what a run's payloads say: tokens, costs, thread, metadata.

Each fact is a function of one patch. Where facts of several patches of a run meet, they merge
like any field: see `storage.clickhouse.columns`.
"""

from functools import lru_cache
from typing import Final

from runstore.domain.blob_refs import is_reference
from runstore.domain.events import first_token_time
from runstore.domain.extra import ExtraFacts, read_extra
from runstore.domain.prices import Price, PriceBook, cost
from runstore.domain.runs import RunFacts, RunPatch
from runstore.domain.usage import usage_from_outputs

# At most 16 MiB of `extra` and about as much of facts.
_REMEMBERED_EXTRAS: Final = 4_096
_REMEMBERED_BYTES: Final = 4_096

NO_FACTS = RunFacts(None, None, None, None, None)


def derive(patch: RunPatch, start_time_us: int, prices: PriceBook) -> RunFacts:
    """Facts of a patch whose payloads have been validated; `start_time_us` dates its price.

    A payload that is a reference says nothing: see `Offload.in_full`.
    """
    extra = _facts_of(patch.extra) if patch.extra is not None else None
    outputs, events = _inline(patch.outputs), _inline(patch.events)
    usage = usage_from_outputs(outputs) if outputs is not None else None
    if extra is not None and extra.usage is not None and (usage is None or extra.usage.rank > usage.rank):
        usage = extra.usage
    price: Price | None = None
    if extra is not None and extra.model:
        prompt_tokens = usage.prompt_tokens if usage is not None else 0
        price = prices.find(extra.model, extra.provider, start_time_us, prompt_tokens=prompt_tokens)
    return RunFacts(
        first_token_time_us=first_token_time(events) if events is not None else None,
        extra=extra,
        usage=usage,
        price=price,
        cost=cost(usage, price) if usage is not None else None,
    )


def _inline(payload: bytes | None) -> bytes | None:
    return None if payload is None or is_reference(payload) else payload


def _facts_of(extra: bytes) -> ExtraFacts:
    """As `read_extra`: the runs of a trace, and all runs of a script, share their `extra` to the byte."""
    return _remembered_facts(extra) if len(extra) <= _REMEMBERED_BYTES else read_extra(extra)


@lru_cache(_REMEMBERED_EXTRAS)
def _remembered_facts(extra: bytes) -> ExtraFacts:
    return read_extra(extra)
