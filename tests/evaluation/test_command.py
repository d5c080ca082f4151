"""The command: table, JSON, page, one question, questions by an LLM, and its errors."""

import io
import json
import subprocess
import sys
import warnings

import pytest

import qwen3_retrieval.evaluation.__main__ as command_module
from qwen3_retrieval.evaluation import Pair, extra
from qwen3_retrieval.evaluation.__main__ import main
from qwen3_retrieval.evaluation.folder import read_folder
from qwen3_retrieval.evaluation.synthetic import make_questions
from qwen3_retrieval.evaluation.terminal import show
from tests.conftest import ROOT
from tests.evaluation.conftest import CORPUS, CUTTER, write
from tests.openai_server import OpenAIServer, passages


@pytest.fixture
def command(cache, tmp_path, monkeypatch):
    """Runs the command with the bundled model, in a folder of its own; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    quick = [
        *("--questions", "6", "--k", "6", "--latency-questions", "1"),
        *("--sweep-k", "3", "6", "--sweep-questions", "3"),
    ]

    def command(*more: str) -> int:
        return main([*more, "--model", "tiny", "--dtype", "float32", "--cache", str(cache), *quick])

    return command


def test_a_folder_of_markdown_gets_a_report_and_a_recommendation(command, capsys, tmp_path):
    assert command(str(CORPUS), "--json", "report.json") == 0
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(found.out.split())
    assert "corpus: 75 passages, 6 questions" in text
    assert "Synthetic questions, made from the headings" in text
    for name in ("BM25", "dense", "hybrid", "dense + rerank", "nDCG@10", "recall@6", "p95"):
        assert name in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recommendation"] is None
    assert report["sweep"]["reason"] in text
    assert "3 questions are too few to recommend a setting" in text
    assert "dense + rerank against dense: nDCG@10" in text
    assert f"report: {tmp_path / 'evaluation.html'}" in found.err
    page = (tmp_path / "evaluation.html").read_text()
    assert page.startswith("<!doctype html>")


def test_without_a_dataset_nothing_is_read(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command()
    assert "required: DATASET" in capsys.readouterr().err


def test_json_alone_on_stdout(command, capsys):
    assert command(str(CORPUS), "--json", "-", "--no-sweep") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sweep"] is None
    assert report["recommendation"] is None
    assert len(report["views"]) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone"], 1, "there is no folder or file"),
        (["bad.csv"], 1, "bad.csv, line 2: 'question' is empty"),
        (["."], 1, "there is no file to read"),
        ([str(CORPUS), "--margin", "0"], 2, "margin must be above 0"),
        ([str(CORPUS), "--dimensions", "2"], 2, "dimensions must be an integer from 32"),
        ([str(CORPUS), "--base-url", "nonsense", "--no-sweep"], 1, "nonsense"),
    ],
)
def test_errors_are_one_line(command, capsys, tmp_path, arguments, code, message):
    if "bad.csv" in arguments:
        write(tmp_path / "bad.csv", "question,passage\n,x\n")
    if code == 2:  # argparse ends the program itself
        with pytest.raises(SystemExit, match="2"):
            command(*arguments)
    else:
        assert command(*arguments) == code
    text = capsys.readouterr().err
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "second"),
    [
        ([], None),
        (
            ["--second-base-url", "http://other:8000/v1"],
            Pair("first", reranker="its", base_url="http://other:8000/v1"),
        ),
        (["--second-model", "other"], Pair("other")),
    ],
)
def test_the_second_pair_is_what_differs_from_the_first(monkeypatch, arguments, second):
    seen = []
    monkeypatch.setattr(command_module, "_evaluate", lambda _, settings: seen.append(settings))
    assert main(["docs", "--model", "first", "--reranker", "its", *arguments]) == 0
    assert seen[0].pair == Pair("first", reranker="its")
    assert seen[0].second == second


def test_a_missing_extra_is_named(command, capsys, monkeypatch):
    monkeypatch.setitem(extra.PACKAGES, "no_such_package_here", "no-such-package")
    assert command(str(CORPUS)) == 1
    text = capsys.readouterr().err
    assert 'needs no-such-package: run `pip install "qwen3-retrieval[evaluation]"`' in text


@pytest.mark.integration
def test_importing_it_needs_no_extra():
    code = (
        "import sys\n"
        "for name in ('bm25s', 'jinja2', 'matplotlib', 'pytrec_eval', 'rich', 'scipy', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "import qwen3_retrieval.evaluation as e\n"
        "[getattr(e, name) for name in e.__all__]\n"
        "print(e.evaluate.__name__)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert found.stdout == "evaluate\n"


def test_an_llm_makes_questions(tmp_path, monkeypatch):
    number = iter(range(100))
    with OpenAIServer(lambda request: f" What does passage {next(number)} say? ") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        dataset = make_questions(CORPUS, "some-llm", 3, tmp_path / "cache", cutter=CUTTER)
        assert dataset.synthetic == "LLM some-llm"
        assert [q.text for q in dataset.questions] == [
            f"What does passage {i} say?" for i in range(3)
        ]
        texts = {p.unit: p.text for p in read_folder(CORPUS, CUTTER).passages}
        for request, question in zip(server.requests, dataset.questions, strict=True):
            (unit,) = question.relevant
            # Short sections are one passage, so that its text is the unit's.
            assert list(passages(request).values()) == [texts[unit].strip()]
        again = make_questions(CORPUS, "some-llm", 3, tmp_path / "cache", cutter=CUTTER)
        assert again == dataset
        assert len(server.requests) == 3  # kept


def test_an_llm_that_answers_nonsense_is_told_of(tmp_path, monkeypatch):
    with OpenAIServer(lambda request: "The same question?") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        dataset = make_questions(CORPUS, "parrot", 4, tmp_path / "cache", cutter=CUTTER)
    assert len(dataset.questions) == 1
    assert "3 of 4 answers of parrot were no question, or came twice" in dataset.notes


def test_a_missing_key_is_one_line(command, capsys):
    assert command(str(CORPUS), "--llm", "some-llm") == 1
    text = capsys.readouterr().err
    assert "OPENAI_API_KEY" in text
    assert "Traceback" not in text


def test_table_fits_where_the_terminal_is_wide_or_narrow(report):
    from rich.console import Console

    for width in (60, 80, 160):
        out = io.StringIO()
        show(report, Console(file=out, width=width))
        assert max(map(len, out.getvalue().splitlines())) <= width
    ks = {s.setting.k for s in report.systems if s.setting and s.setting.rerank}
    assert f"Reranked are the first {ks.pop()} candidates" in out.getvalue()
    assert not ks
