"""The speed benchmark runs and compares like with like; how fast anything is, it alone says."""

import json
import sys
from typing import Any

import pytest

from benchmarks import speed
from benchmarks.systems import Pair


@pytest.fixture
def report(pair: Pair, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `benchmarks/speed.py --json` writes for the bundled pair."""
    file = tmp_path / "report.json"
    command = ["speed.py", "--embedding", pair.embedding, "--reranker", pair.reranker]
    command += ["--dtype", "float32", "--rounds", "1", "--json", str(file)]
    command += ["--tasks", "rerank-10", "query"]
    command += ["--systems", "qwen3-retrieval", "published code", "floor"]
    monkeypatch.setattr(sys, "argv", command)
    speed.main()
    return json.loads(file.read_text("utf-8"))


def test_every_system_is_measured_and_gives_our_answers(report: Any) -> None:
    assert report["dtype"] == "float32"
    assert int(report["machine"]["cores"]) >= 1
    for figures in report["tasks"].values():
        assert set(figures) == {"qwen3-retrieval", "published code", "floor"}
        assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in figures.values())
        assert figures["qwen3-retrieval"]["ratio"] == 1
        assert figures["published code"]["difference"] < 1e-4
        assert "difference" not in figures["floor"]  # which answers nothing


def test_rounds_differ_so_that_servers_cannot_remember() -> None:
    first, second = (speed.in_turn(turn, ("a question", ["one", "two"])) for turn in (1, 2))
    assert first == ("1 a question", ["one", "two"])
    assert first[0] != second[0]
    assert speed.in_turn(1, (["one", "two"],)) == (["1 one", "1 two"],)


def test_the_round_that_warms_up_takes_few_texts() -> None:
    question, documents = speed.in_turn(0, ("a question", ["text"] * 100))
    assert question == "0 a question"
    assert len(documents) == 16
    assert len(speed.in_turn(0, (["text"] * 100,))[0]) == 16
