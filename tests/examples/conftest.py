"""The examples as commands in an empty folder, and as modules."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an example as its users do, in an empty folder, without network or key."""

    def run(
        example: str, *arguments: str, code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "MILVUS_"))}
        env = {**kept, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **variables}
        result = subprocess.run(
            [sys.executable, str(EXAMPLES / example), *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=400,
            check=False,
        )
        assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
        if code == 0:
            assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A Milvus Lite file of the test's own."""
    return str(tmp_path / "milvus.db")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A corpus of four passages in two files."""
    folder = tmp_path / "notes"
    (folder / "team").mkdir(parents=True)
    (folder / "team" / "coffee.md").write_text(
        "# How do I descale the coffee machine?\n\nPour in vinegar and water, then rinse twice.\n\n"
        "# Who buys the coffee beans?\n\nThe newest colleague buys beans on Mondays.\n",
        encoding="utf-8",
    )
    (folder / "office.md").write_text(
        "# Where are the spare keys?\n\nThe spare keys hang behind the door of the archive.\n\n"
        "# When is the office closed?\n\nThe office is closed in the last week of December.\n",
        encoding="utf-8",
    )
    return folder
