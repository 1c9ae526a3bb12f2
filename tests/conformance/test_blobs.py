"""What the engine knows of blobs: which payloads are apart, which keys a project has, which are in use."""

import uuid

from runstore.domain.blob_refs import BlobRef
from runstore.domain.runs import Attachment, AttachmentRef, RunField, RunKey, RunPatch

from .pipeline import LARGEST_ATTACHMENT, LARGEST_PAYLOAD, Pipeline

START_US = 1_760_000_000_000_000


def create(tenant_id: str, project_id: str, **fields: object) -> RunPatch:
    patch = RunPatch(
        tenant_id, str(uuid.uuid4()), is_create=True, name="n", run_type="llm", project_id=project_id,
        start_time_us=START_US,
    )  # fmt: skip
    for name, value in fields.items():
        setattr(patch, name, value)
    return patch


def large(letter: bytes) -> bytes:
    return b'{"text": "%s"}' % (letter * LARGEST_PAYLOAD)


async def content(pipeline: Pipeline, ref: BlobRef) -> bytes:
    return b"".join([chunk async for chunk in pipeline.blobs.read(ref.key)])


async def test_large_payloads_and_files_are_references(pipeline: Pipeline, tenant_id: str) -> None:
    """Previews, sizes and types come from the rows; contents from the blobs; small things stay inline."""
    project = str(uuid.uuid4())
    small, big = b"s" * LARGEST_ATTACHMENT, b"b" * (LARGEST_ATTACHMENT + 1)
    patch = create(
        tenant_id, project, inputs=large(b"i"), outputs=b'{"a": 1}',
        attachments={"small": Attachment("a/b", small), "big": Attachment("c/d", big)},
    )  # fmt: skip
    await pipeline.flush([patch])
    await pipeline.merge_parts()
    run = await pipeline.run(tenant_id, patch.run_id)
    assert run[RunField.OUTPUTS] == b'{"a": 1}'
    inputs = run[RunField.INPUTS]
    assert isinstance(inputs, BlobRef)
    assert inputs.size_bytes == len(large(b"i"))
    assert await content(pipeline, inputs) == large(b"i")
    assert run[RunField.INPUTS_PREVIEW].startswith('{"text":"iii')
    _, files = run[RunField.ATTACHMENTS]
    assert files == {"small": ("a/b", len(small)), "big": ("c/d", len(big))}
    key = RunKey(project, START_US, patch.run_id)
    assert await pipeline.store.attachment(AttachmentRef(tenant_id, key, "small")) == Attachment("a/b", small)
    found = await pipeline.store.attachment(AttachmentRef(tenant_id, key, "big"))
    assert found is not None
    assert found.blob is not None
    assert (found.mime_type, found.content) == ("c/d", b"")
    assert await content(pipeline, found.blob) == big
    assert await pipeline.store.attachment(AttachmentRef(tenant_id, key, "none")) is None


async def test_project_has_the_blobs_of_its_rows_alone(pipeline: Pipeline, tenant_id: str) -> None:
    """Those of replaced payloads too, but not those of a run that has moved to another project."""
    old, new = str(uuid.uuid4()), str(uuid.uuid4())
    stays = create(tenant_id, old, inputs=large(b"1"))
    moves = create(tenant_id, old, inputs=large(b"2"))
    await pipeline.flush([stays, moves])
    replaced = RunPatch(tenant_id, stays.run_id, project_id=old, inputs=large(b"3"))
    moved = RunPatch(tenant_id, moves.run_id, project_id=new, is_create=True, name="n", run_type="llm",
                     start_time_us=START_US)  # fmt: skip
    await pipeline.flush([replaced, moved])
    everything = [key async for key, _ in pipeline.blobs.list(tenant_id)]
    assert len(everything) == 3
    of_old = set(await pipeline.store.project_blobs(tenant_id, old))
    run = await pipeline.run(tenant_id, moves.run_id)
    of_moved = run[RunField.INPUTS].key
    assert run[RunField.PROJECT_ID] == new
    assert of_old == set(everything) - {of_moved}
    await pipeline.store.delete_project(tenant_id, old)
    assert await pipeline.store.blobs_in_use(tenant_id, everything) == {of_moved}


async def test_blobs_of_waiting_operations_are_in_use(pipeline: Pipeline, tenant_id: str) -> None:
    """Of parked operations and of dead letters; not of another tenant."""
    keys = [f"{tenant_id}/aa/{name}" for name in ("parked", "buried", "unused")]
    waiting = [
        RunPatch(tenant_id, str(uuid.uuid4()), attachments={"f": Attachment("a/b", b"", BlobRef(key, 1))})
        for key in keys[:2]
    ]
    await pipeline.store.park([(str(uuid.uuid4()), waiting[0])])
    await pipeline.store.bury([waiting[1]], "poison")
    assert await pipeline.store.blobs_in_use(tenant_id, keys) == set(keys[:2])
    assert await pipeline.store.blobs_in_use(str(uuid.uuid4()), keys) == set()
