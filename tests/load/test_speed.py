"""The speed benchmark runs and compares like with like; how fast anything is, it alone says."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import peers, servers, speed, tasks
from benchmarks.process import Checkpoints
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


@pytest.mark.parametrize("kind", [servers.OpenVino, servers.OnnxInt8])
def test_exported_models_give_our_answers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, kind: type[servers.Exported]
) -> None:
    for name in (pair.embedding, pair.reranker):
        source = Path(name).resolve()
        Path(name).unlink()
        shutil.copytree(source, name)
        config = json.loads(Path(name, "config.json").read_text("utf-8"))
        config["rope_theta"] = config["rope_parameters"]["rope_theta"]  # as published
        Path(name, "config.json").write_text(json.dumps(config), encoding="utf-8")
    given = Checkpoints(pair.embedding, pair.reranker, "float32")
    try:
        exact, int8 = kind(given), kind(given)
    except RuntimeError as error:  # it names the make target
        pytest.skip(str(error))
    exact.int8, int8.int8 = False, True
    ours, texts = peers.Ours(given), tasks.chunks(5)
    try:
        expected = ours.embed(texts)
        np.testing.assert_allclose(exact.embed(texts), expected, atol=1e-4)
        np.testing.assert_allclose(
            exact.query(tasks.QUESTION), ours.query(tasks.QUESTION), atol=1e-4
        )
        np.testing.assert_allclose(
            exact.rerank(tasks.QUESTION, texts), ours.rerank(tasks.QUESTION, texts), atol=1e-3
        )
        coarse = int8.embed(texts)
        assert (coarse * expected).sum(axis=1).min() > 0.5
        assert np.abs(coarse - expected).max() > 1e-3  # it is quantised indeed
    finally:
        exact.close()
        int8.close()


def test_the_tutorials_candidates_are_ten_chunks_of_the_faq(milvus_faq_folder: Path) -> None:
    text = "".join(file.read_text("utf-8") for file in milvus_faq_folder.glob("*.md"))
    found = tasks.tutorial()
    assert len(set(found)) == 10
    assert all(chunk in text for chunk in found)
    assert any(chunk.lstrip().startswith("Where does Milvus store data?") for chunk in found)
