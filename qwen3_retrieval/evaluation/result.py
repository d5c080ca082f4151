"""The results of an evaluation: plain data, shown as table, JSON and HTML."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qwen3_retrieval.comparison import Move
from qwen3_retrieval.evaluation.dataset import Passage
from qwen3_retrieval.evaluation.significance import Comparison, Estimate


@dataclass(frozen=True)
class Latency:
    """Milliseconds per question, one question at a time."""

    p50: float
    p95: float
    questions: int
    """Number of timed questions."""


@dataclass(frozen=True)
class Setting:
    """The settings of a system."""

    first: str
    """First stage: "bm25", "dense" or "hybrid" (reciprocal rank fusion of both)."""
    rerank: bool
    k: int
    """Number of candidates from the first stage."""
    dimensions: int | None = None
    """None: the model's own."""
    instruction: str | None = None
    """Sentence before queries; None: none (the reranker then uses its default)."""
    max_length: int | None = None
    """None: 8192 tokens, or the model's own limit."""


@dataclass(frozen=True)
class System:
    """One retrieval system with its measurements.

    Attributes:
        name: Its name in the report.
        pair: Label of the models; "" for a system without our models.
        setting: Its settings; None: a retriever that was passed in.
        metrics: Name, such as "nDCG@10", -> `mean`, with the interval from `low` to `high`.
        latency: Stage ("bm25", "embed", "search", "rerank") -> time; "total" is the sum of all.
        tokens: Mean tokens of query and passages that models read per question, without prompts.
        index_bytes: Bytes of vectors as float32 and of the BM25 index, if the system needs them.
        per_question: Metrics of each question, in the order of the report's questions.
        unmatched: For a user's retriever: share of results that match no passage of the dataset.
    """

    name: str
    pair: str
    setting: Setting | None
    metrics: dict[str, Estimate]
    latency: dict[str, Latency]
    tokens: float | None
    index_bytes: int | None
    per_question: dict[str, list[float]]
    unmatched: float = 0.0


def candidates_of(systems: Sequence[System]) -> str:
    """The number of candidates that the systems rerank, in words; "" if none reranks."""
    ks = {s.setting.k for s in systems if s.setting is not None and s.setting.rerank}
    counts = " or ".join(map(str, sorted(ks)))
    return f"Reranked are the first {counts} candidates of each question." if ks else ""


@dataclass(frozen=True)
class Point:
    """One setting of the sweep."""

    axis: str
    """The varied setting: "k", "dimensions", "instruction", "max_length" or "recommended"."""
    value: str
    """Its value."""
    name: str
    setting: Setting
    ndcg: Estimate
    recall: float
    """Share of the relevant units among the k candidates (after all stages)."""
    latency: Latency
    index_bytes: int
    frontier: bool = False
    """Whether no other point is both faster and better."""


@dataclass(frozen=True)
class TopN:
    """The effect of a number of passages in the LLM's prompt."""

    top_n: int
    success: float
    """Share of the questions with at least one relevant passage among them."""
    recall: float
    tokens: float | None
    """Mean tokens of those passages."""


@dataclass(frozen=True)
class Recommendation:
    """The recommended setting."""

    setting: Setting
    pair: str
    top_n: int
    score_threshold: float | None
    """Threshold of the reranker's score; None without reranking, or if the questions are too few
    to show that one loses little."""
    ndcg: float
    p50: float
    """Milliseconds."""


@dataclass(frozen=True)
class Sweep:
    """EvaluationSettings around the one at which systems were compared."""

    questions: int
    points: list[Point]
    top_n: list[TopN]
    reason: str
    """Why a setting is recommended, or why none is, in one or two sentences."""


@dataclass(frozen=True)
class Threshold:
    """The effect of a score_threshold."""

    score: float
    relevant: float
    """Share of the relevant candidates that are kept."""
    other: float
    """Share of the other candidates that are kept."""


@dataclass(frozen=True)
class Distribution:
    """Score distributions of relevant candidates and of the others."""

    system: str
    score: str
    """ "log-odds" of the reranker, or "cosine"."""
    edges: list[float]
    """Borders of the bins, one more than there are bins."""
    relevant: list[int]
    other: list[int]
    thresholds: list[Threshold] = field(default_factory=list)
    suggested: float | None = None
    """The highest score_threshold that is shown to lose less recall than the margin; None: none."""


@dataclass(frozen=True)
class View:
    """One question, before and after reranking."""

    id: str
    question: str
    before: float
    """nDCG@10."""
    after: float
    moves: list[Move[Passage]]
    """The first ten after and before reranking, then relevant passages that are not among them."""

    @property
    def change(self) -> float:
        """The change of nDCG@10 by reranking."""
        return self.after - self.before


@dataclass(frozen=True)
class Data:
    """The dataset of the measurements."""

    name: str
    kind: str
    passages: int
    units: int
    questions: list[str]
    """Their ids, in the order of all results."""
    synthetic: str
    tokens: int | None
    """Tokens of all passages."""
    longest: int | None
    """Tokens of the longest passage."""
    notes: list[str]


@dataclass(frozen=True)
class Report:
    """All results of an evaluation.

    Attributes:
        version: This package's version.
        created: Date and time, ISO 8601.
        command: The settings.
        machine: Where it ran.
        data: The dataset, with notes on what was left out.
        systems: The systems side by side; your own come last.
        comparisons: The differences between pairs of systems.
        sweep: Other settings, and `reason`: why one is recommended, or none.
        recommendation: The recommended setting.
        distributions: Scores of relevant candidates and of the rest.
        compared: The systems that `views` compare: before and after reranking.
        views: Questions, the worst regressions first.
        seconds: Duration of the evaluation.
    """

    version: str
    created: str
    command: dict[str, Any]
    machine: str
    data: Data
    systems: list[System]
    comparisons: list[Comparison]
    sweep: Sweep | None
    recommendation: Recommendation | None
    distributions: list[Distribution]
    compared: tuple[str, str]
    views: list[View]
    seconds: float

    def to_json(self) -> str:
        """The report as JSON, with these field names."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)

    def write_json(self, path: str | Path) -> None:
        """Write the JSON to a file."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")
