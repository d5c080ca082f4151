"""Disks that are full or read-only while something is written: a clear error, and no data lost.

The disks are real ones, small file systems in memory, because root writes where it must not.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("pymilvus", reason="Milvus is not installed")
pytest.importorskip("langchain_text_splitters", reason="the extra 'ingest' is not installed")

from qwen3_retrieval.ingest.__main__ import LOUD, main
from qwen3_retrieval.ingest.journal import Journal, Note
from tests.conftest import ROOT
from tests.ingest.conftest import read_rows, release, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
FILES = 40


class Disk:
    """A file system of its own."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size},nr_inodes=100000", "none")

    def remount(self, options: str) -> None:
        """Give it another size, or make it read-only."""
        self._mount("-o", f"remount,{options}")

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(self.path)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """Makes a disk of a size, such as "2m"."""
    made: list[Disk] = []

    def make(size: str) -> Disk:
        try:
            made.append(Disk(tmp_path / f"disk{len(made)}", size))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        return made[-1]

    yield make
    for each in made:
        subprocess.run(["umount", "--lazy", str(each.path)], check=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Files of five chunks each."""
    for number in range(FILES):
        parts = [f"# Part {i}\n\nFile {number} says {i}: {'words ' * 60}" for i in range(5)]
        write(tmp_path / "notes" / f"file-{number}.md", "\n\n".join(parts) + "\n")
    return tmp_path / "notes"


def arguments(corpus: Path, uri: Path, *more: str) -> list[str]:
    return [
        *("--corpus", str(corpus), "--uri", str(uri), "--collection", "notes", "--model", "tiny"),
        *("--framework", "langchain", "--batch-size", "20", *more),
    ]


@pytest.fixture(autouse=True)
def levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets these loggers' levels."""
    for name in LOUD:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.getLogger(name).level)


def assert_complete(uri: Path) -> None:
    try:
        found = read_rows(str(uri), "notes", "langchain")
    finally:
        release(str(uri))
    assert len(found) == FILES * 5
    assert len({row["text"] for row in found.values()}) == FILES * 5


def assert_stopped(output: str, reason: str) -> None:
    """One line that says why, and how much is there."""
    # Milvus Lite's server may close a connection that asked too often whether it is alive
    lines = [line for line in output.splitlines() if "chttp2_transport.cc" not in line]
    assert len(lines) == 1, output
    assert lines[0].startswith("ingest: ")
    assert reason in lines[0], output


@pytest.mark.parametrize("size", ["4k", "100k", "400k"])
def test_a_database_on_a_full_disk(disk, corpus: Path, size: str, capfd):
    place = disk(size)
    uri = place.path / "milvus.db"
    assert main(arguments(corpus, uri)) == 1
    assert_stopped(capfd.readouterr().err, "No space left on device")
    release(str(uri))
    place.remount("size=200m")
    assert main(arguments(corpus, uri)) == 0
    assert_complete(uri)


def test_a_database_on_a_read_only_disk(disk, corpus: Path, capfd):
    place = disk("200m")
    uri = place.path / "milvus.db"
    assert main(arguments(corpus, uri)) == 0
    release(str(uri))
    write(corpus / "file-0.md", "# Another\n\nText, in place of what was here.\n")
    capfd.readouterr()
    place.remount("ro")
    assert main(arguments(corpus, uri)) == 1
    assert_stopped(capfd.readouterr().err, "read-only file system")
    release(str(uri))
    place.remount("rw")
    write(corpus / "file-0.md", (corpus / "file-1.md").read_text().replace("File 1", "File 0"))
    assert main(arguments(corpus, uri)) == 0
    assert_complete(uri)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_journal_that_cannot_be_written(disk, corpus: Path, tmp_path: Path, fault: str, capfd):
    place = disk("8k")
    journal, uri = place.path / "notes.jsonl", tmp_path / "milvus.db"
    if fault == "full":
        reason = "No space left on device"  # after some notes
    else:
        place.remount("ro")
        reason = "Read-only file system"
    command = arguments(corpus, uri, "--journal", str(journal))
    assert main(command) == 1
    assert_stopped(capfd.readouterr().err, f"the journal {journal} could not be written: {reason}")
    release(str(uri))
    place.remount("rw,size=10m")
    assert main(command) == 0
    assert_complete(uri)


def test_a_note_that_fits_by_half_is_an_error_and_spoils_no_other(disk):
    """The system writes what it can and reports no error for that."""
    place = disk("8k")
    journal = Journal(place.path / "notes.jsonl", "corpus")
    note = Note("a" * 64, "splitter", "b" * 64)
    written = []

    def write_on() -> None:
        for number in range(1000):
            journal.note(f"file-{number}", note)
            written.append(f"file-{number}")

    with pytest.raises(OSError, match=r"notes\.jsonl could not be written: No space left"):
        write_on()
    assert len(written) > 10
    assert not (place.path / "notes.jsonl").read_bytes().endswith(b"\n"), "half a line is there"
    place.remount("size=64k")
    journal.note("the next", note)
    assert list(journal.read()) == [*written, "the next"]


def test_a_parquet_shard_on_a_full_disk(disk, monkeypatch: pytest.MonkeyPatch):
    pa = pytest.importorskip("pyarrow")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from _shards import LANGCHAIN, milvus_row, read_shard, write_shard

    place = disk("64k")
    texts = [os.urandom(64).hex() for _ in range(500)]
    rows = [milvus_row(LANGCHAIN, f"key-{i}", text, {}) for i, text in enumerate(texts)]
    vectors = pa.array([[float(i), 1.0] for i in range(len(rows))], type=pa.list_(pa.float32()))
    shard = place.path / "shard.parquet"
    write_shard(shard, LANGCHAIN, rows[:5], vectors[:5])
    before = shard.read_bytes()
    with pytest.raises(OSError, match="No space left on device"):
        write_shard(shard, LANGCHAIN, rows, vectors)
    assert [path.name for path in place.path.iterdir()] == ["shard.parquet"]
    assert shard.read_bytes() == before
    place.remount("size=10m")
    write_shard(shard, LANGCHAIN, rows, vectors)
    assert [row["text"] for page in read_shard(shard) for row in page] == texts
