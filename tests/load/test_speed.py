"""The speed benchmark runs and compares like with like; how fast anything is, it alone says."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import speed, tasks
from benchmarks.checkpoints import ROOT
from benchmarks.systems import Pair

Run = Callable[..., Any]

pytestmark = pytest.mark.timeout(600)  # many processes start, each with libraries of its own


@pytest.fixture
def run(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `benchmarks/speed.py --json` for the bundled pair, and returns what it wrote."""
    file = tmp_path / "report.json"

    def run(names: list[str], systems: list[str], rounds: int = 1) -> Any:
        command = ["speed.py", "--embedding", pair.embedding, "--reranker", pair.reranker]
        command += ["--dtype", "float32", "--rounds", str(rounds), "--json", str(file)]
        monkeypatch.setattr(sys, "argv", [*command, "--tasks", *names, "--systems", *systems])
        speed.main()
        return json.loads(file.read_text("utf-8"))

    return run


def test_every_system_is_measured_and_gives_our_answers(run: Run) -> None:
    peers = ["published code", "sentence-transformers", "sentence-transformers, one by one"]
    names = ["rerank-ragged-10", "query", "embed-ragged-10", "callers"]
    report = run(names, [speed.OURS, *peers, "floor"], rounds=2)
    assert report["dtype"] == "float32"
    assert int(report["machine"]["cores"]) >= 1
    assert set(report["tasks"]) == set(names)
    for name, task in report["tasks"].items():
        figures = task["systems"]
        assert task["left out"] == {}
        others = set() if name == "callers" else {"floor"}
        assert set(figures) == {speed.OURS, *peers, *others}
        assert all(len(row["seconds"]) == 2 and row["memory"] > 0 for row in figures.values())
        assert all(figures[peer]["difference"] < 1e-4 for peer in peers)
        assert "difference" not in figures[speed.OURS]


def test_a_file_is_continued(run: Run) -> None:
    first = run(["query"], [speed.OURS, "floor"])
    second = run(["query", "embed-ragged-10"], [speed.OURS, "floor"])
    assert list(first["tasks"]) == ["query"]
    assert list(second["tasks"]) == ["query", "embed-ragged-10"]
    assert second["tasks"]["query"] == first["tasks"]["query"]
    with pytest.raises(SystemExit, match="rounds"):
        run(["rerank-10"], [speed.OURS], rounds=3)


def test_openvino_gives_our_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from setup_openvino import FOLDER

    if not (FOLDER / "openvino-ready").exists():
        pytest.skip("no OpenVINO here; `make openvino` installs it")
    systems = ["OpenVINO", "OpenVINO, one by one", "OpenVINO int8"]
    report = run(["rerank-ragged-10", "query", "embed-ragged-10"], [speed.OURS, *systems])
    for task in report["tasks"].values():
        figures = task["systems"]
        assert set(figures) == {speed.OURS, *systems}
        assert all(figures[name]["difference"] < 1e-3 for name in systems[:2])
        assert figures["OpenVINO int8"]["difference"] > 1e-3


def test_the_tutorials_candidates_are_ten_chunks_of_the_faq(milvus_faq_folder: Path) -> None:
    text = "".join(file.read_text("utf-8") for file in milvus_faq_folder.glob("*.md"))
    found = tasks.tutorial()
    assert len(set(found)) == 10
    assert all(chunk in text for chunk in found)
    assert any(chunk.lstrip().startswith("Where does Milvus store data?") for chunk in found)
