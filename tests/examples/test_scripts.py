"""The examples as their users run them: as scripts, offline, with the bundled models."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.openai_server import OpenAIServer, passages

pytestmark = pytest.mark.timeout(900)  # each test starts Python, torch and a framework, some often

KEYS = "Where do the spare keys hang?"


def row_counts(uri: str) -> dict[str, int]:
    """Collection -> number of rows of a Milvus Lite file that no other process has open."""
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(uri)
    counts = {}
    for name in client.list_collections():
        client.load_collection(name)
        counts[name] = client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"]
    client.close()
    server_manager_instance.release_server(uri)
    return counts


def test_demo_shows_both_stages_and_the_sources_of_both_frameworks(run, uri):
    out = run("demo.py", "--uri", uri).stdout
    assert "tiny is a toy" in out
    assert re.search(
        r"python\S* \S*demo\.py --uri \S+ \\\n +--model Qwen/\S+0\.6B --reranker Qwen/\S+0\.6B\n",
        out,
    )
    rows = re.findall(r"^ +(dense search|then reranked) +(\d+) +(\d+) +(\d+)", out, re.MULTILINE)
    totals = {stage: [int(count) for count in counts] for stage, *counts in rows}
    # The pool is the same; reranking moves passages within it. The tiny pair gains by it.
    assert totals["dense search"][2] == totals["then reranked"][2] >= 15
    assert totals["then reranked"][0] > totals["dense search"][0]
    # The frameworks agree on both questions that are shown.
    assert out.count("LangChain and LlamaIndex return the same order.") == 2
    assert out.count("reranked, top 3") == 2
    _, _, sources = out.partition("LangChain would send the LLM these passages")
    assert re.match(r".*\n  \[1\] .+ \(\S+\.md\)\n(      .+\n)+  \[2\] ", sources)
    assert out.count("LlamaIndex would send the LLM the same passages.") == 1
    # The command is not wrapped, however long its paths: it is there to be copied.
    assert all(len(line) <= 80 for line in out.splitlines() if "demo.py" not in line)
    assert "\x1b" not in out


def test_only_what_changed_is_embedded_again(run, uri, notes):
    corpus = ("--corpus", str(notes), "--splitter", "framework")
    arguments = ("--uri", uri, *corpus, "--question", KEYS, "--top-n", "1")
    out = run("demo.py", *arguments).stdout
    assert "LangChain   embedded all 4 passages" in out
    assert "LlamaIndex  embedded all 4 passages" in out
    assert out.count("[1] Where are the spare keys? (office.md)") == 2
    before = row_counts(uri)
    assert sorted(before.values()) == [4, 4]

    office = notes / "office.md"
    text = office.read_text(encoding="utf-8").replace("behind the door of", "under the stairs in")
    office.write_text(text, encoding="utf-8")
    out = run("demo.py", *arguments).stdout
    assert out.count("embedded 1 of 4 passages in") == 2
    assert out.count("deleted 1 that left the corpus") == 2
    assert out.count("hang under the stairs") == 2
    assert "behind the door" not in out
    assert row_counts(uri) == before


@pytest.mark.parametrize(
    ("example", "framework"),
    [("langchain_rag.py", "LangChain"), ("llama_index_rag.py", "LlamaIndex")],
)
def test_an_llm_answers_from_the_reranked_passages(run, uri, notes, example, framework):
    arguments = ("--uri", uri, "--corpus", str(notes), "--question", KEYS, "--top-n", "2")
    with OpenAIServer() as server:
        variables = {"OPENAI_API_KEY": "test", "OPENAI_BASE_URL": server.url}
        out = run(example, *arguments, "--llm", "small", **variables).stdout
        assert [request["model"] for request in server.requests] == ["small"]
        assert KEYS in server.prompt
        assert "hang behind the door of the archive" in server.prompt
        assert len(passages(server.requests[-1])) == 2
        assert "embedded all 4 passages" in out
        assert f"{framework} answers from 2 passages:" in out
        assert "[1] Where are the spare keys? (office.md) cited" in out
        assert re.search(r"^  \[2\] .* not cited$", out, re.MULTILINE)

        # A second run embeds nothing, whatever is asked; an LLM that fails is one line.
        server.status = 401
        instruction = "Given a question, find the note that answers it"
        failed = run(example, *arguments, "--instruction", instruction, code=1, **variables)
        assert "nothing to embed: the index holds all 4 passages already" in failed.stdout
        assert failed.stderr.startswith(f"{example}: the LLM 'gpt-5-mini' at {server.url} did not")
        assert failed.stderr.count("\n") == 1
    assert list(row_counts(uri).values()) == [4]


def test_compare_shows_what_moved(run, uri, notes):
    pattern = str(notes / "**" / "*.md")
    out = run("compare.py", "--uri", uri, "--corpus", pattern, "--question", KEYS).stdout
    assert "4 passages from 2 files" in out
    assert "dense search, top 3 of 4" in out
    assert "reranked, top 3" in out
    table = out.partition("reranked, top 3")[2]
    scored = re.findall(r"^ *(0\.\d{3}) .* (0\.\d{3}) +(?:(\d) → (\d)|-) ", table, re.MULTILINE)
    dense, reranked, was, now = zip(*scored, strict=True)
    assert list(dense) == sorted(dense, reverse=True)
    assert list(reranked) == sorted(reranked, reverse=True)
    assert all(a != b for a, b in zip(was, now, strict=True) if a)
    command = re.search(r"compare\.py (.+) \\\n", out)
    assert command
    assert shlex.split(command[1])[-2:] == ["--question", KEYS]
    collection, count = row_counts(uri).popitem()
    assert count == 4

    # The same collection, with vectors of another length.
    arguments = ("--uri", uri, "--corpus", pattern, "--question", KEYS, "--collection", collection)
    error = run("compare.py", *arguments, "--dimensions", "64", code=1).stderr
    assert error.startswith(f"compare.py: collection '{collection}' holds vectors of 256 dim")
    assert error.count("\n") == 1


def test_hybrid_shows_all_stages(run, uri, notes):
    arguments = ("--uri", uri, "--corpus", str(notes), "--question", KEYS, "--top-n", "2")
    out = run("hybrid.py", *arguments).stdout
    assert out.count("embedded all 4 passages") == 2
    stages = re.findall(
        r"^(dense search|fused with BM25|then reranked), top 2 of 4$", out, re.MULTILINE
    )
    assert stages == ["dense search", "fused with BM25", "then reranked"]
    assert len(re.findall(r"^  \[[12]\] .* \d\.\d{3}$", out, re.MULTILINE)) == 6
    reranked = out.partition("then reranked")[2]
    assert "[1] Where are the spare keys? (office.md)" in reranked
    assert "LangChain and LlamaIndex return the same order." in reranked
    assert sorted(row_counts(uri).values()) == [4, 4]


def test_the_tutorials_faq(run, uri, milvus_faq_folder: Path):
    question = "How is data stored in milvus?"
    out = run(
        *("compare.py", "--uri", uri, "--corpus", str(milvus_faq_folder)),
        *("--splitter", "headers", "--question", question),
    ).stdout
    assert "72 passages from 4 files" in out
    assert "dense search, top 3 of 10" in out
    assert "Where does Milvus store" in out


def test_a_server_that_is_not_there_is_one_line(run, notes):
    uri = "http://127.0.0.1:9"
    arguments = ("--uri", uri, "--corpus", str(notes), "--question", KEYS)
    error = run("llama_index_rag.py", *arguments, code=1).stderr
    assert error.startswith(f"llama_index_rag.py: Milvus at {uri}: ")
    assert error.count("\n") == 1


def test_a_missing_corpus_is_one_line(run):
    error = run("demo.py", "--corpus", "nowhere", "--question", KEYS, code=1).stderr
    assert error == "demo.py: --corpus nowhere: no such file or folder\n"


def test_wrong_arguments_exit_with_2(run):
    error = run("compare.py", "--top-k", "2", "--top-n", "3", code=2).stderr
    assert error.endswith("error: --top-n 3 is more than --top-k 2\n")


def test_the_picture_is_of_a_run(run, uri, tmp_path):
    question = "Is a row lost if the server crashes right after I inserted it?"
    drawn = tmp_path / "drawn.svg"
    arguments = ["--uri", uri, "--out", str(drawn), "--dtype", "float32", "--question", question]
    run("../tools/draw_comparison.py", *arguments)
    shown = ROOT / "docs" / "images" / "comparison.svg"
    pictures = [picture.read_text("utf-8") for picture in (drawn, shown)]
    titles = [re.findall(r"class=\"(?:answer)?\">(.*)</text>", picture) for picture in pictures]
    assert len(titles[0]) == 20
    assert titles[0] == titles[1]
    scores = [re.findall(r"class=\"score\">(.*)</text>", picture) for picture in pictures]
    assert list(map(float, scores[0])) == pytest.approx(list(map(float, scores[1])), abs=0.0011)
