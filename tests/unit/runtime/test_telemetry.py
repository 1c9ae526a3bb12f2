"""Nothing is recorded, or even imported, unless somebody asks for it."""

import subprocess
import sys

from runstore.runtime import spans
from runstore.runtime.settings import load_settings
from runstore.runtime.telemetry import telemetry


def test_off_is_one_object_for_all() -> None:
    """Without a receiver no span is made, whoever asks for one."""
    with telemetry(load_settings(), "store"):
        made = (spans.request("a", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"), spans.inner("b"))
        assert all(span is spans.NO_SPAN for span in (*made, spans.below("c", ["d"])))
        assert (spans.traceparent(), spans.are_recorded(), made[0].is_recorded) == ("", False, False)


def test_the_sdk_is_not_imported_unless_needed() -> None:
    """Those who do not trace the server pay no memory for it."""
    parts = "runstore.runtime.store, runstore.runtime.gateway, runstore.runtime.telemetry"
    code = f"import sys, {parts}; print('opentelemetry.sdk' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
