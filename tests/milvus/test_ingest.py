"""The ingest command leaves on a standalone server the rows that it leaves in a file."""

import random
import time

import pytest
from pymilvus import MilvusClient

from qwen3_retrieval.ingest.__main__ import main
from tests.ingest.conftest import VECTOR_FIELDS, read_rows, release, write
from tests.ingest.test_kill import (
    assert_same,
    edit_corpus,
    make_corpus,
    noted,
    processes,  # noqa: F401 - a fixture
    wait_until,
)

KILLS = 2


@pytest.fixture(params=list(VECTOR_FIELDS))
def framework(request):
    return request.param


@pytest.fixture
def ingest(server, framework, tmp_path, monkeypatch):
    """The command's arguments for a corpus and a collection, which is dropped in the end."""
    monkeypatch.chdir(tmp_path)  # the journal of a server's collection lies in the current folder
    used = set()

    def arguments(corpus, collection, *more):
        collection = f"{collection}_{framework.replace('-', '_')}"
        used.add(collection)
        return [
            *("--corpus", str(corpus), "--uri", server.uri, "--collection", collection),
            *("--framework", framework, "--model", "tiny", "--dtype", "float32", *more),
        ]

    yield arguments
    client = MilvusClient(server.uri)
    for name in used:
        client.drop_collection(name)


@pytest.mark.timeout(300)
def test_killed_in_the_middle_and_brought_up_to_date(
    ingest,
    framework,
    processes,  # noqa: F811
    tmp_path,
    capsys,
):
    dice = random.Random(framework)
    folder, journal = tmp_path / "notes", tmp_path / "journal.jsonl"
    make_corpus(folder)
    more = ("--batch-size", "8", "--delete-missing")
    command = ingest(folder, "notes", *more, "--journal", str(journal))
    for _ in range(KILLS):
        before = noted(journal)
        process = processes.Process(target=main, args=(command,))
        process.start()
        wait_until(lambda: noted(journal) > before, process)  # noqa: B023
        time.sleep(dice.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -9  # in the midst of its files
    edit_corpus(folder, dice)  # some files change, some go, some are new
    write(folder / "bad.txt", b"\xff")
    assert main(command) == 3
    assert "bad.txt: not UTF-8 text" in capsys.readouterr().err
    (folder / "bad.txt").unlink()
    assert main(command) == 0
    assert " 0 read, " in capsys.readouterr().out

    collection, path = command[5], str(tmp_path / "calm.db")
    calm = ["--uri", path, "--journal", str(tmp_path / "calm.jsonl")]
    assert main([*command, *calm]) == 0
    assert_same(
        read_rows(command[3], collection, framework),
        read_rows(path, collection, framework),
        VECTOR_FIELDS[framework],
    )
    release(path)
