"""Finds where each patch belongs: its run's project, start time and position in the trace.

SDK batches say all of it. A bare update says none of it, a child may arrive before its parent, and
an update may change a run's start time or project. Places of recent runs are remembered; older
ones are asked of the store.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from runstore.domain import dotted_order
from runstore.domain.errors import RunstoreError
from runstore.domain.runs import RunKey, RunMove, RunPatch, RunPlace
from runstore.ingest.sequence import accepted_time_us
from runstore.storage.run_store import RunWriter

logger = structlog.get_logger()

# About 100 MB.
_REMEMBERED_RUNS = 100_000

RunRef = tuple[str, str]
"""(tenant id, run id)"""


@dataclass(slots=True)
class Placement:
    """What became of the patches of one flush."""

    placed: list[tuple[RunPatch, RunPlace]] = field(default_factory=list)
    moves: list[RunMove] = field(default_factory=list)
    parked: list[tuple[str, RunPatch]] = field(default_factory=list)
    """Patches that must wait, each with the id of the run it awaits."""
    refused: list[tuple[RunPatch, str]] = field(default_factory=list)
    """Patches that have no place anywhere, each with the reason."""
    settled: set[RunRef] = field(default_factory=set)
    """Placed runs whose whole ancestry is known."""


class Placer:
    """Places patches, one per run and flush. Owned by the flusher, which calls it in sequence.

    A place counts from the moment it is given: the flusher stores what was placed, or keeps trying.
    """

    def __init__(self, store: RunWriter, moved: Iterable[RunRef] = ()) -> None:
        """`moved`: every run that ever changed its key, whose own account is out of date."""
        self._store = store
        self._moved = set(moved)
        # Ordered, because finding the first key of a plain dict walks over all that were deleted there.
        self._recent: OrderedDict[RunRef, RunPlace] = OrderedDict()

    async def place(self, patches: Sequence[RunPatch]) -> Placement:
        """Place patches of distinct runs. Raises StoreUnavailable; call again then."""
        known = await self._known(patches)
        outcome = Placement()
        for patch in _parents_first(patches):
            try:
                self._place(patch, known, outcome)
            except RunstoreError as error:
                outcome.refused.append((patch, error.message))
            except Exception as error:
                # A defect, which must not hold up everybody else.
                logger.exception("placing_failed", run_id=patch.run_id)
                outcome.refused.append((patch, f"{type(error).__name__}: {error}"))
        self._remember(outcome)
        return outcome

    def forget(self, tenant_id: str, run_ids: Iterable[str]) -> None:
        """The runs are no longer where they were: they are deleted."""
        for run_id in run_ids:
            self._recent.pop((tenant_id, run_id), None)

    def _place(self, patch: RunPatch, known: dict[RunRef, RunPlace], outcome: Placement) -> None:
        ref = (patch.tenant_id, patch.run_id)
        known_place = known.get(ref)
        place = self._placed(patch, known_place, known)
        if place is None:
            outcome.parked.append((patch.run_id, patch))
            return
        if not place.is_settled and patch.parent_run_id is not None and patch.dotted_order is None:
            # Stored under a guess; the parent's arrival brings this link back and settles it.
            outcome.parked.append((patch.parent_run_id, _link(patch)))
        if known_place is not None and known_place.key != place.key:
            outcome.moves.append(
                RunMove(patch.tenant_id, patch.run_id, known_place.key, place.key, patch.sequence)
            )
        outcome.placed.append((patch, place))
        if place.is_settled:
            outcome.settled.add(ref)
        known[ref] = place

    def _remember(self, outcome: Placement) -> None:
        for move in outcome.moves:
            self._moved.add((move.tenant_id, move.run_id))
        recent = self._recent
        for patch, place in outcome.placed:
            ref = (patch.tenant_id, patch.run_id)
            recent[ref] = place
            recent.move_to_end(ref)
        while len(recent) > _REMEMBERED_RUNS:
            recent.popitem(last=False)

    async def _known(self, patches: Iterable[RunPatch]) -> dict[RunRef, RunPlace]:
        """Places of the patched runs, and of their parents where a child needs them."""
        known: dict[RunRef, RunPlace] = {}
        asked: dict[str, set[str]] = {}
        for patch in patches:
            wanted = [patch.run_id]
            if patch.parent_run_id is not None and patch.dotted_order is None:
                wanted.append(patch.parent_run_id)
            for run_id in wanted:
                ref = (patch.tenant_id, run_id)
                if (recent := self._recent.get(ref)) is not None:
                    known[ref] = recent
                elif run_id != patch.run_id or not self._says_all(patch):
                    asked.setdefault(patch.tenant_id, set()).add(run_id)
        for tenant_id, run_ids in asked.items():
            for run_id, place in (await self._store.places(tenant_id, run_ids)).items():
                known[(tenant_id, run_id)] = place
        return known

    def _says_all(self, patch: RunPatch) -> bool:
        """Whether the patch can be trusted to name its run's key: what creates the run can.

        An update may be from another project, and its dotted order may differ from the start time
        (JavaScript tracers count siblings there).
        """
        return (
            patch.is_create
            and patch.project_id is not None
            and (patch.start_time_us is not None or patch.dotted_order is not None)
            and (patch.tenant_id, patch.run_id) not in self._moved
        )

    def _placed(
        self, patch: RunPatch, known: RunPlace | None, places: Mapping[RunRef, RunPlace]
    ) -> RunPlace | None:
        """The run's place, or None when it must wait for the run's creation."""
        if known is None:
            own_time_us = _own_time_us(patch)
            if patch.project_id is None or (own_time_us is None and not patch.is_create):
                return None
            start_time_us = own_time_us if own_time_us is not None else accepted_time_us(patch.sequence)
            key = RunKey(patch.project_id, start_time_us, patch.run_id)
            return self._position(patch, key, places)
        key = RunKey(
            patch.project_id if patch.project_id is not None else known.key.project_id,
            patch.start_time_us if patch.start_time_us is not None else known.key.start_time_us,
            patch.run_id,
        )
        if patch.dotted_order is not None or (patch.parent_run_id is not None and not known.is_settled):
            return self._position(patch, key, places)
        return RunPlace(key, known.trace_id, known.dotted_order, known.parent_run_ids, known.is_settled)

    def _position(self, patch: RunPatch, key: RunKey, places: Mapping[RunRef, RunPlace]) -> RunPlace:
        """Position in the trace: as told, else below the parent, else a root."""
        if patch.dotted_order is not None:
            ancestors = dotted_order.ancestors(patch.dotted_order)
            return RunPlace(key, ancestors[0] if ancestors else key.run_id, patch.dotted_order, ancestors)
        if patch.parent_run_id is None:
            order = dotted_order.root(key.start_time_us, key.run_id)
            return RunPlace(key, patch.run_id, order, ())
        parent = places.get((patch.tenant_id, patch.parent_run_id))
        if parent is None:
            order = dotted_order.root(key.start_time_us, key.run_id)
            trace_id = patch.trace_id or patch.parent_run_id
            return RunPlace(key, trace_id, order, (patch.parent_run_id,), is_settled=False)
        return RunPlace(
            key,
            parent.trace_id,
            dotted_order.child(parent.dotted_order, key.start_time_us, key.run_id),
            (*parent.parent_run_ids, patch.parent_run_id),
            is_settled=parent.is_settled,
        )


def _own_time_us(patch: RunPatch) -> int | None:
    if patch.start_time_us is not None:
        return patch.start_time_us
    if patch.dotted_order is not None:
        return dotted_order.parse(patch.dotted_order).start_time_us
    return None


def _link(patch: RunPatch) -> RunPatch:
    """The part of a child's patch that says whose child it is."""
    return RunPatch(
        tenant_id=patch.tenant_id,
        run_id=patch.run_id,
        sequence=patch.sequence,
        parent_run_id=patch.parent_run_id,
    )


def _parents_first(patches: Sequence[RunPatch]) -> Iterator[RunPatch]:
    """Children without a dotted order come last: they are placed below their parents."""
    yield from (patch for patch in patches if patch.dotted_order is not None or patch.parent_run_id is None)
    yield from (patch for patch in patches if patch.dotted_order is None and patch.parent_run_id is not None)
