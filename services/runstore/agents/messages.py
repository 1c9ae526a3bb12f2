"""The worker's part of the gRPC contract as plain values, and back."""

from datetime import datetime
from typing import Any

from runstore.agents.attempts import Attempt, Ended, Event, Outcome, Snapshot
from runstore.agents.json_values import from_json
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_worker_service_pb2 as pb

_OUTCOMES = {
    Outcome.SUCCESS: pb.WORKER_OUTCOME_SUCCESS,
    Outcome.ERROR: pb.WORKER_OUTCOME_ERROR,
    Outcome.TIMEOUT: pb.WORKER_OUTCOME_TIMEOUT,
    Outcome.INTERRUPTED: pb.WORKER_OUTCOME_INTERRUPTED,
    Outcome.ROLLED_BACK: pb.WORKER_OUTCOME_ROLLED_BACK,
    Outcome.REQUEUE: pb.WORKER_OUTCOME_REQUEUE,
}


def attempt_of(message: pb.WorkerRun) -> Attempt:
    """What the store asks for."""
    run = message.run
    return Attempt(
        run_id=run.run_id,
        thread_id=run.thread_id,
        assistant_id=run.assistant_id,
        graph_id=message.graph_id,
        number=run.attempt,
        kwargs=_object(run.kwargs),
        metadata=_object(run.metadata),
        has_checkpoints=message.has_checkpoints,
        user_id=message.user_id,
    )


def _object(text: bytes) -> dict[str, Any]:
    value = from_json(text)
    return value if isinstance(value, dict) else {}


def events_message(claim: pb.AgentRunClaim, events: list[Event]) -> pb.WorkRequest:
    """What a run says."""
    return pb.WorkRequest(
        events=pb.WorkerEvents(
            claim=claim,
            events=[
                runs.AgentRunEvent(mode=event.mode, namespace=event.namespace, data=event.data)
                for event in events
            ],
        )
    )


def finished_message(
    claim: pb.AgentRunClaim, ended: Ended, started: datetime, over: datetime
) -> pb.WorkRequest:
    """How an attempt ended."""
    finished = pb.WorkerFinished(
        claim=claim, outcome=_OUTCOMES[ended.outcome], result=ended.result, is_failure=ended.is_failure
    )
    finished.start_time.FromDatetime(started)
    finished.end_time.FromDatetime(over)
    if ended.snapshot is not None:
        finished.snapshot.CopyFrom(snapshot_message(ended.snapshot))
    if ended.failure is not None:
        finished.error.error, finished.error.message = ended.failure.error, ended.failure.message
    return pb.WorkRequest(finished=finished)


def snapshot_message(snapshot: Snapshot) -> runs.ThreadSnapshot:
    """What a thread holds."""
    return runs.ThreadSnapshot(
        values=snapshot.values, interrupts=snapshot.interrupts, has_next=snapshot.has_next
    )
