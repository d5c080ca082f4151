"""The examples' command line and corpus, without models."""

import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import pytest


@pytest.fixture
def shared(example_module):
    return example_module("_shared")


@pytest.fixture
def corpus(example_module, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "KEPT", tmp_path / "kept")
    return example_module("_corpus")


@pytest.fixture
def settings(shared, monkeypatch):
    """Parses a command line."""

    def settings(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["example.py", *arguments])
        return shared.read_settings("An example.")

    return settings


def no_splitter(tokenizer: object) -> NoReturn:
    raise AssertionError("not asked for")


def test_defaults_need_no_network(settings, shared):
    found = settings()
    assert (found.model, found.reranker) == ("tiny", "tiny")
    assert (found.top_k, found.top_n, found.llm, found.splitter) == (10, 3, None, "structure")
    assert found.uri.endswith(".db")
    # A real embedding model does not come with a toy reranker.
    assert settings("--model", "Qwen/Qwen3-Embedding-4B").reranker == shared.DEFAULT_RERANKER_MODEL


def test_the_llm_comes_from_flag_or_environment(settings, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    assert settings().llm == "gpt-5-mini"
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    assert settings().llm == "mine"
    assert settings("--llm", "other").llm == "other"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-n", "0"], "must be at least 1, not 0"),
        (["--top-k", "many"], "invalid"),
        (["--top-n", "11"], "--top-n 11 is more than --top-k 10"),
        (["--question", " "], "--question is blank"),
        (["--corpus", "notes"], "give a --question too"),
        (["--llm", "gpt-5"], "OPENAI_API_KEY"),
        (["--uri", "milvus.sqlite"], "has to end in .db"),
        (["--splitter", "words"], "invalid choice"),
    ],
)
def test_wrong_arguments(settings, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        settings(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_splits_to_the_letter_as_the_tutorial(corpus, settings, milvus_faq_folder: Path):
    passages = corpus.load_passages(
        settings("--corpus", str(milvus_faq_folder), "--question", "?", "--splitter", "headers"),
        no_splitter,
    )
    lines = []
    for path in milvus_faq_folder.glob("*.md"):
        lines += path.read_text(encoding="utf-8").split("# ")
    assert len(lines) == 72
    assert sorted(passage.text for passage in passages) == sorted(lines)
    assert "Where does Milvus store data?" in {passage.metadata["title"] for passage in passages}


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_the_frameworks_own_splitters(corpus, settings, notes, framework):
    module = pytest.importorskip(f"qwen3_retrieval.ingest._{framework}")
    text = "# One\n\nFirst.\n\n```sh\n# not a heading\n```\n\n## Two\n\nSecond.\n"
    (notes / "code.md").write_text(text)
    found = settings(
        "--corpus", str(notes / "code.md"), "--question", "?", "--splitter", "framework"
    )
    one, two = corpus.load_passages(found, module.splitters)
    assert "First." in one.text
    assert "# not a heading" in one.text
    assert "Second." in two.text
    assert (one.metadata["title"], two.metadata["title"]) == ("One", "Two")


def test_ids_name_corpus_and_content(corpus, settings, notes):
    def ids(*arguments: str) -> list[str]:
        found = settings("--corpus", str(notes), "--question", "?", *arguments)
        return [passage.id for passage in corpus.load_passages(found, no_splitter)]

    before = ids()
    assert len(set(before)) == len(before) == 4
    assert ids("--instruction", "fact_check", "--top-k", "5", "--reranker", "another") == before
    (notes / "office.md").rename(notes / "renamed.md")
    assert ids() == before  # the text is the same, its place another


def test_each_embedding_has_a_collection_of_its_own(corpus, settings):
    def name(*arguments: str) -> str:
        return str(corpus.collection_name(settings(*arguments), "langchain"))

    assert name() == name("--instruction", "fact_check", "--top-k", "5", "--reranker", "x")
    others = [
        ("--model", "another"),
        ("--dimensions", "64"),
        ("--splitter", "framework"),
        ("--corpus", "milvus-docs"),
    ]
    assert len({name(), *(name(*other) for other in others)}) == 5
    assert name("--collection", "mine") == "mine"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder"),
        ("*.md", None, "no file matches"),
        ("folder", {}, "there is no .*md file in this folder"),
        ("folder", {"a.md": b" \n"}, "there is no text"),
        ("folder", {"a.md": b"caf\xe9"}, r"a.md cannot be read: not UTF-8 text \(byte 0xe9 at 3"),
    ],
)
def test_a_corpus_that_cannot_be_read(corpus, shared, settings, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).mkdir()
    for file, data in (content or {}).items():
        (tmp_path / name / file).write_bytes(data)
    found = settings("--corpus", str(tmp_path / name), "--question", "?")
    with pytest.raises(shared.UserError, match=message):
        corpus.load_passages(found, no_splitter)


@pytest.fixture
def archive(corpus, tmp_path, monkeypatch):
    """Where the examples will look for the Milvus documentation, on a server of this process."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/docs.zip"
        monkeypatch.setattr(corpus, "MILVUS_DOCS_URL", url)
        yield folder / "docs.zip"
        server.shutdown()
        thread.join()


def zip_up(archive: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(archive, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)


def test_downloads_the_tutorials_archive_once(corpus, settings, archive):
    files = {f"en/faq/{name}.md": "# x" * 35 + name for name in "ab"}  # 36 passages in each
    zip_up(archive, files | {"en/about/c.md": "# no", "__MACOSX/en/faq/._a.md": "# no"})
    found = settings("--corpus", "milvus-docs", "--splitter", "headers")
    first = corpus.load_passages(found, no_splitter)
    assert {passage.metadata["source"] for passage in first} == {"a.md", "b.md"}
    archive.unlink()
    assert corpus.load_passages(found, no_splitter) == first


def test_a_wrong_archive_is_refused_and_forgotten(corpus, shared, settings, archive):
    found = settings("--corpus", "milvus-docs", "--splitter", "headers")
    with pytest.raises(shared.UserError, match=r"cannot download .*404"):
        corpus.load_passages(found, no_splitter)
    archive.write_bytes(b"not a zip file")
    with pytest.raises(shared.UserError, match=r"docs\.zip is damaged"):
        corpus.load_passages(found, no_splitter)
    zip_up(archive, {"en/faq/a.md": "# x"})
    with pytest.raises(shared.UserError, match="2 FAQ passages, not 72"):
        corpus.load_passages(found, no_splitter)
    zip_up(archive, {"en/faq/a.md": "# x" * 71})
    assert len({p.id for p in corpus.load_passages(found, no_splitter)}) == 1


def test_every_question_of_the_demo_has_its_passage(corpus, settings, example_module):
    questions = example_module("_questions").QUESTIONS
    titles = {
        passage.metadata["title"] for passage in corpus.load_passages(settings(), no_splitter)
    }
    assert len(titles) >= 60
    assert set(questions.values()) <= titles
    assert not set(questions) & titles
