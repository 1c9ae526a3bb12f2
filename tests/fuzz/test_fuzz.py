"""Some of the broken requests that `make fuzz` sends by the million."""

from tests.fuzz.fuzzing import fuzz

SEED = 20261121
BODIES = 1_500


async def test_broken_requests_are_refused_decently() -> None:
    """No answer is a 5xx or of another shape than the contract's, good runs beside bad ones are stored, what
    is accepted can be stored, nothing is logged as an error, and the next good request works."""
    findings = await fuzz(SEED, range(BODIES))
    assert findings.failures == [], f"repeat with: python tests/fuzz --seed {SEED} --index …"
    assert findings.bodies == BODIES
    kinds = {answer.rsplit(" ", 1)[0] for answer in findings.answers}
    assert kinds == {
        *("multipart", "batch", "single", "feedback", "protobuf", "stream", "otlp", "otlp grpc", "whole"),
    }
    assert findings.answers["whole 202"] == sum(
        count for answer, count in findings.answers.items() if answer.startswith("whole")
    )
