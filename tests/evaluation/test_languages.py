"""tools/language_table.py: which questions go with which answers."""

import importlib

import pytest

from qwen3_retrieval.evaluation import EvaluationSettings, Pair
from qwen3_retrieval.evaluation.cache import Cache
from tests.conftest import ROOT
from tests.evaluation.conftest import write

ROWS = """
{"lang": "de", "file": "a.md", "anchor": "x", "question": "Wo?", "answer": "Im Speicher."}
{"lang": "en", "file": "a.md", "anchor": "y", "question": "How do vectors compare?", "answer": "By their cosine."}
{"lang": "en", "file": "a.md", "anchor": "x", "question": "Where is data stored?", "answer": "Data is kept in object storage."}
"""  # noqa: E501


@pytest.fixture
def languages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("language_table")


def test_questions_meet_the_answers_of_their_place(languages, tmp_path):
    faq = languages.read(write(tmp_path / "faq.jsonl", ROWS.strip()))
    across = languages.dataset(faq, "de", "en")
    assert [p.text for p in across.passages] == [
        "By their cosine.",
        "Data is kept in object storage.",
    ]
    (question,) = across.questions
    assert (question.text, dict(question.relevant)) == ("Wo?", {"a.md#x": 1})


def test_table(languages, tmp_path):
    faq = languages.read(write(tmp_path / "faq.jsonl", ROWS.strip()))
    settings = EvaluationSettings(pair=Pair(model="tiny", dtype="float32"), k=10)
    lines = languages.table(faq, settings, Cache(None)).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["en", "de"]
    assert "1.000 / 1.000" in lines[2]
    assert lines[2].count("|") == lines[3].count("|") == lines[0].count("|")
