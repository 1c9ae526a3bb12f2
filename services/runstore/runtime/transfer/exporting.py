"""Reads the runs of projects from a store into a file, the oldest first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from runstore.gateway.time_fields import to_time_us
from runstore.runtime.transfer.client import StoreAccess
from runstore.runtime.transfer.columns import FIELDS
from runstore.runtime.transfer.writers import RunFileWriter
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import run_pb2 as pb
from runstore.v1 import run_query_service_pb2 as queries

LARGEST_FILE_BYTES: Final = 64 * 1024 * 1024
"""Larger attachments are left out: a row of the file must fit into the memory of whoever reads it."""

_PAGE_SIZE: Final = 1_000

OnProgress = Callable[[int, int, int], None]
"""Microseconds of start times passed, of how many, and runs so far."""


@dataclass(slots=True)
class Exported:
    """What came out."""

    runs: int = 0
    feedback: int = 0
    """Records on those runs."""
    files: int = 0
    files_left_out: int = 0


def export_runs(
    store: StoreAccess,
    chosen: Sequence[projects.Project],
    query: queries.ListRunsRequest,
    writer: RunFileWriter,
    on_progress: OnProgress,
    *,
    has_attachments: bool,
) -> Exported:
    """Write every run of the projects that meets the query's conditions, one project after the other."""
    done = Exported()
    for number, project in enumerate(chosen):
        asked = queries.ListRunsRequest()
        asked.CopyFrom(query)
        asked.project_ids[:] = [project.id]
        asked.sort_order = pb.SORT_ORDER_ASC
        asked.page_size = _PAGE_SIZE
        asked.fields[:] = [*FIELDS, pb.RUN_FIELD_ATTACHMENTS]
        first, last = _bounds(store, asked)
        for runs in store.export(asked):
            feedback = store.feedback_of([run.id for run in runs])
            for run in runs:
                files = _files_of(run) if has_attachments else []
                records = feedback.get(run.id, [])
                writer.write(run, project.name, files, records)
                done.feedback += len(records)
                done.files += len(files)
                done.files_left_out += len(run.attachments) - len(files)
            done.runs += len(runs)
            passed = min(to_time_us(runs[-1].start_time), last) - first
            span = max(1, last - first)
            on_progress(number * span + passed, len(chosen) * span, done.runs)
    return done


def _bounds(store: StoreAccess, query: queries.ListRunsRequest) -> tuple[int, int]:
    """Start times of the first and the last run, for a notion of progress."""
    ends = []
    for order in (pb.SORT_ORDER_ASC, pb.SORT_ORDER_DESC):
        query_of_one = queries.ListRunsRequest()
        query_of_one.CopyFrom(query)
        query_of_one.sort_order = order
        query_of_one.fields[:] = [pb.RUN_FIELD_START_TIME]
        run = store.first_run(query_of_one)
        ends.append(0 if run is None else to_time_us(run.start_time))
    return ends[0], ends[1]


def _files_of(run: pb.Run) -> list[str]:
    return [name for name, file in run.attachments.items() if file.size_bytes <= LARGEST_FILE_BYTES]
