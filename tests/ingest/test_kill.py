"""Killed with SIGKILL at any moment and run again, it ends with an undisturbed run's collection."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_retrieval.ingest.__main__ import main
from tests.conftest import ROOT
from tests.ingest.conftest import VECTOR_FIELDS, read_rows, release, write

KILLS = 20
FILES = 80
PRELOAD = [
    *("torch", "transformers.models.qwen3.modeling_qwen3", "pymilvus", "faiss", "pyarrow.parquet"),
    *("milvus_lite.adapter.grpc.server", "qwen3_retrieval.ingest.run", "qwen3_core.engine.engine"),
    *("qwen3_retrieval.ingest._langchain", "qwen3_retrieval.ingest._llama_index"),
]

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are of POSIX"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with the libraries loaded, so that a run takes two seconds, not ten."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        context.Process(target=int).start()
    return context


def test_killed_twenty_times(framework, processes, tmp_path):
    dice = random.Random(framework)
    folder = tmp_path / "notes"
    make_corpus(folder)
    uri, journal = tmp_path / "killed.db", tmp_path / "killed.notes.ingest.jsonl"
    command = arguments(folder, uri, framework)
    kills, in_the_midst, edits = 0, 0, 0
    while kills < KILLS:
        before = noted(journal)
        process = processes.Process(target=main, args=(command,))
        process.start()
        # After so many more files, or somewhere on the way to the first.
        files = dice.choice([0, 1, 1, 2, 2, 3])
        pause = dice.uniform(0, 0.2) if files else dice.uniform(0, 3)
        wait_until(lambda: noted(journal) - before >= files, process)  # noqa: B023
        process.join(pause)
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was done: let there be more to do
            edits += 1
            edit_corpus(folder, dice)
        else:
            assert process.exitcode == -9
            kills += 1
            in_the_midst += noted(journal) > before
    edit_corpus(folder, dice)
    assert main(command) == 0
    print(f"{kills} kills, {in_the_midst} of them behind the first file; {edits} finished runs")
    assert in_the_midst >= KILLS // 4

    calm = tmp_path / "calm.db"
    assert main(arguments(folder, calm, framework)) == 0
    try:
        assert_same(
            read_rows(str(uri), "notes", framework),
            read_rows(str(calm), "notes", framework),
            VECTOR_FIELDS[framework],
        )
    finally:
        release(str(uri))
        release(str(calm))


def test_ended_by_sigterm_in_the_midst(framework, processes, tmp_path):
    """As a service manager ends it: at once, with what is noted there, and a rerun goes on."""
    folder, journal = tmp_path / "notes", tmp_path / "ended.notes.ingest.jsonl"
    make_corpus(folder)
    uri, calm = tmp_path / "ended.db", tmp_path / "calm.db"
    for files in (1, 20):
        before = noted(journal)
        process = processes.Process(target=main, args=(arguments(folder, uri, framework),))
        process.start()
        wait_until(lambda: noted(journal) - before >= files, process)  # noqa: B023
        process.terminate()
        process.join(30)
        assert process.exitcode == -signal.SIGTERM
        lines = journal.read_text("utf-8").splitlines()
        assert all(isinstance(json.loads(line), dict) for line in lines)
        assert before < noted(journal) < FILES
    assert main(arguments(folder, uri, framework)) == 0
    assert main(arguments(folder, calm, framework)) == 0
    try:
        assert_same(
            read_rows(str(uri), "notes", framework),
            read_rows(str(calm), "notes", framework),
            VECTOR_FIELDS[framework],
        )
    finally:
        release(str(uri))
        release(str(calm))


def arguments(folder: Path, uri: Path, framework: str) -> list[str]:
    return [
        *("--corpus", str(folder), "--uri", str(uri), "--collection", "notes", "--model", "tiny"),
        *("--framework", framework, "--batch-size", "3", "--delete-missing", "--dtype", "float32"),
    ]


def make_corpus(folder: Path) -> None:
    for number in range(FILES):
        write_file(folder, number, 0)


def write_file(folder: Path, number: int, edition: int) -> None:
    """Some parts stay the same from edition to edition, some change."""
    if number % 5 == 0:
        records = [f'{{"text": "Record {i} of {number}, {edition % (i + 1)}."}}' for i in range(6)]
        write(folder / f"records-{number}.jsonl", "\n".join(records) + "\n")
    else:
        parts = [f"# Part {i}\n\nFile {number} says {i}, {edition % (i + 1)}." for i in range(5)]
        write(folder / f"file-{number}.md", "\n\n".join(parts) + "\n")


def edit_corpus(folder: Path, dice: random.Random) -> None:
    """Change, remove and add files."""
    for number in dice.sample(range(FILES * 5 // 4), FILES // 3):
        for path in (folder / f"records-{number}.jsonl", folder / f"file-{number}.md"):
            if path.exists() and dice.random() < 0.3:
                path.unlink()
                break
        else:
            write_file(folder, number, dice.randrange(1, 9))


def noted(path: Path) -> int:
    """Files that were finished, in all runs together."""
    return path.read_bytes().count(b'"source"') if path.exists() else 0


def wait_until(condition: Any, process: Any) -> None:
    until = time.monotonic() + 120
    while process.is_alive() and not condition():
        assert time.monotonic() < until, "nothing happens"
        time.sleep(0.005)


def assert_same(found: dict[str, Any], expected: dict[str, Any], vector: str) -> None:
    assert len(expected) > 100
    assert found.keys() == expected.keys()
    for id_, row in expected.items():
        other = found[id_]
        assert np.allclose(row.pop(vector), other.pop(vector), rtol=0, atol=1e-5)
        assert row == other
