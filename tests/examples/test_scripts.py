"""The examples as their users run them: as scripts, offline, with the bundled models."""

import re
import runpy
import shlex

import pytest

from qwen3_retrieval.demo.passages import read_corpus
from qwen3_retrieval.documents.cutting import Cutter, tokenizer_of
from tests.conftest import ROOT
from tests.openai_server import OpenAIServer, passages

pytestmark = pytest.mark.timeout(900)  # each test starts Python, torch and a framework, some often

KEYS = "Where do the spare keys hang?"
LINE = "The spare keys hang behind the door of the archive."


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


def test_every_question_of_the_demo_has_its_passage():
    questions = runpy.run_path(str(ROOT / "examples" / "_questions.py"))["QUESTIONS"]
    found = read_corpus(ROOT / "examples" / "corpus", Cutter(tokenizer_of("tiny"))).passages
    titles = {passage.title for passage in found}
    assert len(titles) >= 60
    assert set(questions.values()) <= titles
    assert not set(questions) & titles


def test_demo_shows_both_stages_and_the_sources_of_both_frameworks(run, uri):
    out = run("demo.py", "--uri", uri).stdout
    assert re.search(
        r"python\S* \S*demo\.py --uri \S+ \\\n +--model Qwen/\S+0\.6B --reranker Qwen/\S+0\.6B\n",
        out,
    )
    rows = re.findall(r"^ +(dense search|then reranked) +(\d+) +(\d+) +(\d+)", out, re.MULTILINE)
    totals = {stage: [int(count) for count in counts] for stage, *counts in rows}
    # The pool is the same; reranking moves passages within it. The tiny pair gains by it.
    assert totals["dense search"][2] == totals["then reranked"][2] >= 15
    assert totals["then reranked"][0] > totals["dense search"][0]
    # The frameworks agree on both questions that are shown, and on what the LLM would read.
    assert out.count("LangChain and LlamaIndex return the same order.") == 2
    assert out.count("reranked, top 3") == 2
    sources = re.findall(r"^  \[\d\] .+ \(\S+\.md\)$", out, re.MULTILINE)
    assert len(sources) == 6
    assert sources[:3] == sources[3:]
    # The command is not wrapped, however long its paths: it is there to be copied.
    assert all(len(line) <= 80 for line in out.splitlines() if "demo.py" not in line)
    assert "\x1b" not in out


def test_demo_embeds_only_what_changed(run, uri, notes):
    arguments = ("--uri", uri, "--corpus", str(notes), "--question", KEYS, "--top-n", "1")
    out = run("demo.py", *arguments).stdout
    assert out.count("files     2: 2 read, 0 unchanged\nchunks    4: 4 written, 0 deleted\n") == 2
    assert out.count("[1] Where are the spare keys? (office.md)") == 2
    before = row_counts(uri)
    assert sorted(before.values()) == [4, 4]

    office = notes / "office.md"
    office.write_text(office.read_text("utf-8").replace("behind the door", "under the stairs"))
    (notes / "team" / "coffee.md").unlink()
    out = run("demo.py", *arguments).stdout
    assert out.count("chunks    2: 1 written, 3 deleted\n") == 2
    after = row_counts(uri)
    assert after == dict.fromkeys(before, 2)


def test_demo_shows_what_moved(run, uri, notes):
    out = run("demo.py", "--uri", uri, "--corpus", str(notes), "--question", KEYS).stdout
    table = out.partition("reranked, top 3")[2]
    scored = re.findall(r"^ *(0\.\d{3}) .* (0\.\d{3}) +(?:(\d) → (\d)|-) ", table, re.MULTILINE)
    dense, reranked, was, now = zip(*scored[:3], strict=True)
    assert list(dense) == sorted(dense, reverse=True)
    assert list(reranked) == sorted(reranked, reverse=True)
    assert all(a != b for a, b in zip(was, now, strict=True) if a)
    command = re.search(r"demo\.py (.+) \\\n", out)
    assert command
    assert shlex.split(command[1])[-2:] == ["--question", KEYS]


def test_demo_lets_an_llm_answer(run, uri, notes):
    arguments = ("--uri", uri, "--corpus", str(notes), "--question", KEYS, "--top-n", "2")
    with OpenAIServer() as server:
        variables = {"OPENAI_API_KEY": "test", "OPENAI_BASE_URL": server.url}
        out = run("demo.py", *arguments, OPENAI_MODEL="small", **variables).stdout
        assert [request["model"] for request in server.requests] == ["small", "small"]
        assert all(len(passages(request)) == 2 for request in server.requests)
        assert LINE in server.prompt
        assert out.count("[1] Where are the spare keys? (office.md) cited") == 2
        assert len(re.findall(r"^  \[2\] .* not cited$", out, re.MULTILINE)) == 2

        server.status = 401
        error = run("demo.py", *arguments, code=1, **variables).stderr
        assert error.startswith("demo.py: ")
        assert "401" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--uri", "http://127.0.0.1:9"), 1, "ingest: "),
        (("--corpus", "nowhere", "--question", KEYS), 1, "ingest: "),
        (("--corpus", "nowhere"), 2, "demo.py: error: --corpus is your own: give a --question"),
        (("--top-k", "2", "--top-n", "3"), 2, "demo.py: error: --top-n 3 is not from 1 to --top-k"),
    ],
)
def test_a_mistake_in_the_demos_arguments_is_named_in_the_last_line(run, arguments, code, message):
    error = run("demo.py", *arguments, code=code).stderr
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(message)


@pytest.mark.parametrize("example", ["langchain_rag.py", "llama_index_rag.py"])
def test_an_llm_answers_from_the_reranked_passages(run, notes, example):
    out = run(example, str(notes), KEYS).stdout
    assert "chunks    4: 4 written" in out
    assert "\n[1] office.md, score 0." in out
    assert LINE in out
    with OpenAIServer() as server:
        variables = {"OPENAI_API_KEY": "test", "OPENAI_BASE_URL": server.url}
        out = run(example, str(notes), KEYS, OPENAI_MODEL="small", **variables).stdout
        assert [request["model"] for request in server.requests] == ["small"]
        assert KEYS in server.prompt
        assert LINE in server.prompt
        assert len(passages(server.requests[-1])) == 3
    assert "chunks    4: 0 written" in out
    assert out.endswith("[1] office.md\n")


def test_hybrid_shows_all_stages(run, notes):
    out = run("hybrid.py", str(notes), KEYS).stdout
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        *(KEYS, "", "vectors", "", "vectors and full text, fused", "", "then reranked")
    ]
    assert out.partition("then reranked\n")[2].startswith("  [1] # Where are the spare keys?\n")


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_quick_start_puts_the_answer_first(run, framework):
    first, second = run(f"{framework}_quickstart.py").stdout.splitlines()
    assert first.endswith("  Milvus keeps inserted data in object storage.")
    assert 1 > float(first.split()[0]) > float(second.split()[0]) > 0


def test_the_picture_is_of_a_run(run, tmp_path):
    question = "Is a row lost if the server crashes right after I inserted it?"
    drawn = tmp_path / "drawn.svg"
    run("../tools/draw_comparison.py", "--out", str(drawn), "--question", question)
    shown = ROOT / "docs" / "images" / "comparison.svg"
    pictures = [picture.read_text("utf-8") for picture in (drawn, shown)]
    titles = [re.findall(r"class=\"(?:answer)?\">(.*)</text>", picture) for picture in pictures]
    assert len(titles[0]) == 20
    assert titles[0] == titles[1]
    scores = [re.findall(r"class=\"score\">(.*)</text>", picture) for picture in pictures]
    assert list(map(float, scores[0])) == pytest.approx(list(map(float, scores[1])), abs=0.0011)
