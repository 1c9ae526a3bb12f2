"""Generated code is what the protos say."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_code_is_current(tmp_path: Path) -> None:
    """Generating again changes nothing; run `make gen` after changing a proto."""
    subprocess.run(["make", "--silent", "generate", f"OUT={tmp_path}"], cwd=ROOT, check=True)
    assert sources(ROOT / "gen" / "runstore" / "v1") == sources(tmp_path / "runstore" / "v1")


def sources(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if "_pb2" in path.name}
