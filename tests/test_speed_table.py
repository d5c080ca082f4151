"""benchmarks/table.py, and that README.md and docs/explanation/speed.md hold what it makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import table, tasks
from benchmarks.speed import OURS

MACHINE = {
    "processor": "a processor",
    "cores": "2",
    "instructions": "avx512_bf16",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "python": "3.11.7",
}


def write(file: Path, systems: dict[str, list[float]], **others: Any) -> Path:
    """A file as `speed.py --json` writes it, with one task."""
    rows = {
        name: {"seconds": seconds, "memory": seconds[0], "difference": seconds[0] / 100}
        for name, seconds in systems.items()
    }
    task = {"date": "2026-01-02", "load average": ["0.1, 0, 0"] * 2, "left out": {}}
    report = {
        "machine": MACHINE,
        "commit": "abc",
        "dtype": "bfloat16",
        "rounds": 1,
        "versions": dict.fromkeys(systems, "1.0"),
        "tasks": {"rerank-tutorial": task | {"systems": rows}},
    }
    file.write_text(json.dumps(report | others), encoding="utf-8")
    return file


def test_the_pages_hold_the_tables() -> None:
    for path, text in table.pages(sorted(table.RESULTS.glob("*.json"))).items():
        assert path.read_text("utf-8") == text, f"run `make bench-table`: {path.name} differs"


def test_files_of_one_machine_are_merged_with_our_times_beside_each(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.json", {OURS: [1.0, 2.0], "published code": [3.0, 4.0]}),
        write(tmp_path / "b.json", {OURS: [4.0], "vLLM": [2.0], "published code": [16.0]}),
        write(tmp_path / "c.json", {OURS: [9.0]}, dtype="float32"),
    ]
    first, second = table.read(files)
    assert (first.dtype, second.dtype) == ("bfloat16", "float32")
    cells = first.cells["rerank-tutorial"]
    assert cells[OURS].seconds == [1.0, 2.0, 4.0]
    assert cells["published code"].ratios == [3.0, 2.0, 4.0]
    assert cells["published code"].memory == 16.0
    assert cells["vLLM"].ratio == 0.5


def test_a_file_without_our_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=OURS):
        table.read([write(tmp_path / "a.json", {"vLLM": [1.0]})])


def test_the_readme_says_where_we_do_not_win(tmp_path: Path) -> None:
    systems = {OURS: [2.0], "vLLM": [1.0], "published code": [5.0], "floor": [1.5]}
    (series,) = table.read([write(tmp_path / "a.json", systems)])
    text = table.readme(series)
    assert "| here | 1 = 2.0 s |" in text
    assert "| the models' published code | 2.5 |" in text
    title = tasks.TASKS["rerank-tutorial"].title
    assert f"**Where we do not win**: vLLM takes 0.50 of our time to {title}." in text
    assert f"our peak in GiB to {title} 2.0, others 1.0 to 5.0." in text
    assert "without a GPU" in text
    assert "commit abc" in text


def test_figures_have_two_digits() -> None:
    values = {0.0123: "0.012", 0.7149: "0.71", 0.999: "1.0", 1.05: "1.1", 9.96: "10", 123.0: "120"}
    assert {value: table.digits(value) for value in values} == values
    assert [table.seconds(value) for value in (0.0953, 4.33)] == ["95 ms", "4.3 s"]


def test_text_outside_the_marks_stays() -> None:
    text = f"before\n{table.BEGIN}old\n{table.END}after\n"
    assert table.between(text, "new") == f"before\n{table.BEGIN}\nnew\n{table.END}after\n"
    with pytest.raises(ValueError, match="0 places"):
        table.between("no marks", "new")


def test_tasks_are_what_their_titles_say() -> None:
    lengths = [len(chunk) for chunk in tasks.chunks(50)]
    assert (min(lengths), max(lengths)) == (80, 2000)
    requests = tasks.requests()
    assert [sum(bool(d) == reranks for _, d in requests) for reranks in (False, True)] == [25, 15]
    assert [name for group in tasks.by_model(list(tasks.TASKS)) for name in group] == list(
        tasks.TASKS
    )


def test_rounds_differ_so_that_servers_cannot_remember() -> None:
    first, second = (tasks.in_turn(turn, ("a question", ["one", "two"])) for turn in (1, 2))
    assert first == ("1 a question", ["one", "two"])
    assert first[0] != second[0]
    assert tasks.in_turn(1, (["one", "two"],)) == (["1 one", "1 two"],)
    assert tasks.in_turn(1, ([("query", ["one"])],)) == ([("1 query", ["one"])],)


def test_the_round_that_warms_up_takes_few_texts() -> None:
    question, documents = tasks.in_turn(0, ("a question", ["text"] * 100))
    assert question == "0 a question"
    assert len(documents) == 16
    assert len(tasks.in_turn(0, (["text"] * 100,))[0]) == 16


def test_a_task_without_its_data_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "DATA", tmp_path)
    with pytest.raises(tasks.MissingDataError, match="QWEN3_TEST_DATA"):
        tasks.tutorial()
