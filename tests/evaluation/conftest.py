"""A small folder of Markdown, settings that take seconds, and one report for all tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen3_core import Embedder
from qwen3_retrieval.documents.cutting import Cutter, tokenizer_of
from qwen3_retrieval.evaluation import EvaluationSettings, Pair, Report, evaluate, load_dataset
from tests.conftest import ROOT

for package in ("bm25s", "jinja2", "matplotlib", "pytrec_eval", "rich", "scipy"):
    pytest.importorskip(package, reason="the extra 'evaluation' is not installed")

CORPUS = ROOT / "examples" / "corpus"
QUESTIONS = 12
"""Of the report; each is reranked some dozen times."""

CUTTER = Cutter(tokenizer_of("tiny"))
SETTINGS = EvaluationSettings(
    pair=Pair(model="tiny", dtype="float32"),
    k=6,
    sweep_k=(2, 6),
    sweep_top_n=(1, 3, 6),
    sweep_questions=QUESTIONS,
    margin=0.9,  # so that there is a recommendation, whichever setting this machine finds faster
    latency_questions=2,
)
"""Everything once, with as little of it as shows that it works."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests of one session have computed already."""
    return tmp_path_factory.mktemp("evaluation") / "evaluation.cache"


@pytest.fixture(scope="session")
def report(cache: Path) -> Report:
    """A run over a folder of Markdown."""
    dataset = load_dataset(CORPUS, max_questions=QUESTIONS, model="tiny")
    return evaluate(dataset, replace(SETTINGS, cache=cache))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that models of this process embed from now on."""
    texts: list[str] = []
    embed = Embedder.embed_documents

    def record(self: Embedder, documents: list[str]) -> np.ndarray:
        texts.extend(documents)
        return embed(self, documents)

    monkeypatch.setattr(Embedder, "embed_documents", record)
    return texts


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path
