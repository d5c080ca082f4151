"""A small corpus, the command in this process, and the rows that it leaves."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymilvus", reason="Milvus is not installed")

from pymilvus import MilvusClient

from qwen3_core import Embedder
from qwen3_retrieval.ingest.__main__ import LOUD, main
from qwen3_retrieval.ingest.framework import FRAMEWORKS

ID_FIELDS = {"langchain": "pk", "llama-index": "id"}
VECTOR_FIELDS = {"langchain": "vector", "llama-index": "embedding"}

Ingest = Callable[..., int]
Rows = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="module", autouse=True)
def loaded() -> Iterator[None]:
    """The bundled model stays loaded, so that each run of the command need not do it again."""
    engine = Embedder("tiny").engine
    yield
    del engine


@pytest.fixture(params=ID_FIELDS)
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework in turn."""
    name: str = request.param
    pytest.importorskip(
        FRAMEWORKS[name][0],
        reason=f"the extra {name!r} is not installed",
    )
    return name


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Markdown, text and JSON lines: six chunks in three files, one of them in two records."""
    folder = tmp_path / "handbook"
    write(folder / "office" / "keys.md", "# Keys\n\nThe spare keys hang in the archive.\n\n"
          "# Opening hours\n\nThe office opens at eight.\n")  # fmt: skip
    write(folder / "coffee.txt", "Pour in vinegar and water, then rinse twice.\n")
    write(folder / "faq.jsonl", '{"text": "Beans are bought on Mondays.", "id": 7, "author": '
          '"Ada"}\n'
          '{"text": "Leave is asked for in writing.", "tags": ["hr", "\\"quoted\\""]}\n'
          '{"text": "Say it twice."}\n{"text": "Say it twice."}\n')  # fmt: skip
    return folder


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    """A Milvus Lite database of the test's own."""
    path = str(tmp_path / "milvus.db")
    yield path
    release(path)


@pytest.fixture
def ingest(corpus: Path, uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ingest:
    """Runs the command on the corpus with the bundled model; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    for name in LOUD:  # the command sets their levels
        level = logging.getLogger(name).level
        monkeypatch.setattr(logging.getLogger(name), "level", level)

    def ingest(framework: str, *more: str) -> int:
        given = ("--corpus", str(corpus), "--uri", uri, "--collection", "handbook")
        return main([*given, "--model", "tiny", "--framework", framework, *more])

    return ingest


@pytest.fixture
def rows(uri: str) -> Rows:
    """All rows of the collection by their id."""

    def rows(framework: str) -> dict[str, dict[str, Any]]:
        return read_rows(uri, "handbook", framework)

    return rows


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read_rows(uri: str, collection: str, framework: str) -> dict[str, dict[str, Any]]:
    key = ID_FIELDS[framework]
    client = MilvusClient(uri)
    client.load_collection(collection)
    pages = client.query_iterator(collection, filter=f'{key} != ""', output_fields=["*"])
    found: dict[str, dict[str, Any]] = {}
    while page := pages.next():
        for row in page:
            assert row[key] not in found, f"{row[key]} is there twice"
            found[row[key]] = dict(row)
    pages.close()
    return found


def texts(found: dict[str, dict[str, Any]]) -> list[str]:
    return sorted(row["text"] for row in found.values())


def release(uri: str) -> None:
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)
