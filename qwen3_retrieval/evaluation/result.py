"""What an evaluation found: plain data, of which table, JSON and HTML are three views."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qwen3_retrieval.evaluation.metrics import Comparison, Estimate


@dataclass(frozen=True)
class Latency:
    """Milliseconds per question, one question at a time."""

    p50: float
    p95: float
    questions: int
    """How many were timed."""


@dataclass(frozen=True)
class Setting:
    """What can be turned at a system."""

    first: str
    """First stage: "bm25", "dense" or "hybrid" (reciprocal rank fusion of both)."""
    rerank: bool
    k: int
    """Candidates that the first stage hands on."""
    dimensions: int | None = None
    """None: the model's own."""
    instruction: str | None = None
    """Sentence put before queries; None: none (the reranker then has its default)."""
    max_length: int | None = None
    """None: 8192 tokens, or what the model has."""


@dataclass(frozen=True)
class System:
    """One way to retrieve, measured."""

    name: str
    pair: str
    """Which models, or "" where there are none of ours."""
    setting: Setting | None
    """None: a retriever that was passed in."""
    metrics: dict[str, Estimate]
    latency: dict[str, Latency]
    """Stage ("bm25", "embed", "search", "rerank") -> time; "total" is of all of them."""
    tokens: float | None
    """Tokens of query and passages that models read for a question, mean, prompts not counted."""
    index_bytes: int | None
    """Vectors as float32, and the BM25 index, where the system needs them."""
    per_question: dict[str, list[float]]
    """Metrics of each question, in the order of the report's questions."""
    unmatched: float = 0.0
    """Share of the results of a retriever passed in that belong to no passage of the dataset."""


def candidates_of(systems: Sequence[System]) -> str:
    """How many candidates the systems rerank, in words; "" where none does."""
    ks = {s.setting.k for s in systems if s.setting is not None and s.setting.rerank}
    counts = " or ".join(map(str, sorted(ks)))
    return f"Reranked are the first {counts} candidates of each question." if ks else ""


@dataclass(frozen=True)
class Point:
    """One setting that the sweep tried."""

    axis: str
    """What was turned: "k", "dimensions", "instruction", "max_length" or "recommended"."""
    value: str
    """What it was turned to."""
    name: str
    setting: Setting
    ndcg: Estimate
    recall: float
    """Share of the relevant units among the k candidates (after all stages)."""
    latency: Latency
    index_bytes: int
    frontier: bool = False
    """Whether nothing that was tried is both faster and better."""


@dataclass(frozen=True)
class TopN:
    """What so many passages in the LLM's prompt bring."""

    top_n: int
    success: float
    """Share of the questions with at least one relevant passage among them."""
    recall: float
    tokens: float | None
    """Tokens of those passages, mean."""


@dataclass(frozen=True)
class Recommendation:
    """The setting to use."""

    setting: Setting
    pair: str
    top_n: int
    score_threshold: float | None
    """For the reranker's score; None where nothing is reranked, or nothing relevant was found."""
    ndcg: float
    p50: float
    """Milliseconds."""
    reason: str
    """One sentence."""


@dataclass(frozen=True)
class Sweep:
    """Settings around the one that systems were compared at."""

    questions: int
    points: list[Point]
    top_n: list[TopN]


@dataclass(frozen=True)
class Threshold:
    """What a score_threshold would do."""

    score: float
    relevant: float
    """Share of the relevant candidates that stay."""
    other: float
    """Share of the other candidates that stay."""


@dataclass(frozen=True)
class Distribution:
    """Scores of candidates, relevant ones and the rest."""

    system: str
    score: str
    """ "log-odds" of the reranker, or "cosine"."""
    edges: list[float]
    """Borders of the bins, one more than there are bins."""
    relevant: list[int]
    other: list[int]
    thresholds: list[Threshold] = field(default_factory=list)
    suggested: float | None = None
    """The score that keeps 95 % of the relevant candidates."""


@dataclass(frozen=True)
class Move:
    """A passage's place before and after reranking, from 1."""

    before: int | None
    after: int | None
    passage: str
    source: str
    text: str
    relevant: bool
    score: float | None
    """The reranker's, from 0 to 1; None where it was not among the candidates."""


@dataclass(frozen=True)
class View:
    """One question, before and after reranking."""

    id: str
    question: str
    before: float | None
    """nDCG@10; None where it is not known what answers the question."""
    after: float | None
    moves: list[Move]
    """The first ten after reranking and before it, then relevant ones that are not among them."""


@dataclass(frozen=True)
class Data:
    """What systems were measured on."""

    name: str
    kind: str
    passages: int
    units: int
    questions: list[str]
    """Their ids, in the order of all results."""
    synthetic: str
    tokens: int | None
    """Of all passages."""
    longest: int | None
    """Tokens of the longest passage."""
    notes: list[str]


@dataclass(frozen=True)
class Report:
    """All that was found."""

    version: str
    created: str
    """Date and time, ISO 8601."""
    command: dict[str, Any]
    """The settings."""
    machine: str
    data: Data
    systems: list[System]
    comparisons: list[Comparison]
    sweep: Sweep | None
    recommendation: Recommendation | None
    distributions: list[Distribution]
    compared: tuple[str, str] | None
    """The systems that `views` are of: before and after reranking."""
    views: list[View]
    """Questions, the worst regressions first."""
    seconds: float

    def to_json(self) -> str:
        """As JSON, with the fields named as here."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)

    def write_json(self, path: str | Path) -> None:
        """Write it to a file."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    def write_html(self, path: str | Path) -> None:
        """Write it as one page that needs nothing else, no network either."""
        from qwen3_retrieval.evaluation.page import render

        Path(path).write_text(render(self), encoding="utf-8")

    def frontier_svg(self) -> str:
        """The plot of quality against latency as SVG on white, for a notebook or a file.

        Raises:
            ValueError: If the sweep was left out.
        """
        from qwen3_retrieval.evaluation.plots import frontier_plot, on_white

        if self.sweep is None:
            msg = "without a sweep there is no plot: evaluate with Settings(sweep=True)"
            raise ValueError(msg)
        return on_white(frontier_plot(self.sweep.points, self.recommendation))
