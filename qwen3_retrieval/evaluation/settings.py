"""The settings of an evaluation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qwen3_core.common.validation import ArgumentError, check_dimensions, is_count
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, Dtype, matching_reranker

CUT: Final = 10
"""Number of results that nDCG and MRR consider, as in BEIR and MTEB."""


@dataclass(frozen=True)
class Pair:
    """An embedding model and a reranker, and where they run.

    Attributes:
        model: Embedding model: hub name, folder, or "tiny".
        reranker: Reranking model; None: the default for the embedding model ("tiny" for "tiny",
            else the published 0.6B).
        base_url: Embedding server; None: the model runs in this process.
        reranker_base_url: Reranking server; None: the model runs in this process.
        revision: Revision of the embedding model on the hub.
        reranker_revision: Revision of the reranking model on the hub.
        device: Where models of this process run: "auto", "cpu", "cuda", "cuda:1" or "mps".
        dtype: What they compute in.
    """

    model: str = DEFAULT_EMBEDDING_MODEL
    reranker: str | None = None
    base_url: str | None = None
    reranker_base_url: str | None = None
    revision: str | None = None
    reranker_revision: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"

    @property
    def reranker_model(self) -> str:
        """The reranker, as given or by default."""
        return self.reranker or matching_reranker(self.model)

    @property
    def label(self) -> str:
        """A short name for tables."""
        name = self.model.rstrip("/").rpartition("/")[2]
        return f"{name} at {self.base_url}" if self.base_url else name


@dataclass(frozen=True)
class EvaluationSettings:
    """Models, the setting at which systems are compared, and the range of the sweep.

    Attributes:
        pair: The models.
        second: Another pair, measured in addition to the first.
        instruction: Task name or sentence for both models; None: the official default.
        more_instructions: Further instructions for the sweep.
        dimensions: Length of the vectors; None: the model's own.
        max_length: Tokens read of one text; None: 8192, or the model's own limit.
        k: Number of candidates that each system returns and a reranker reads.
        sweep: Whether to try other settings, and to recommend one.
        sweep_k: Numbers of candidates that the sweep tries.
        sweep_top_n: Numbers of passages for the prompt that it tries.
        sweep_questions: The most questions of the sweep, which reranks up to 200 candidates of
            each.
        latency_questions: Questions that are repeated one by one, without the cache, for timing.
        margin: nDCG@10, above 0 and below 1, that a cheaper setting may lose at most, with 95 %
            confidence, to be recommended; of top_n and score_threshold, recall.
        cache: File for vectors and scores; None: they are kept in memory only.
        progress: Show progress bars on stderr.
    """

    pair: Pair = field(default_factory=Pair)
    second: Pair | None = None
    instruction: str | None = None
    more_instructions: tuple[str, ...] = ()
    dimensions: int | None = None
    max_length: int | None = None
    k: int = 30
    sweep: bool = True
    sweep_k: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    sweep_top_n: tuple[int, ...] = (1, 2, 3, 5, 10, 20)
    sweep_questions: int = 100
    latency_questions: int = 10
    margin: float = 0.05
    cache: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If a number is out of range, or an instruction is neither task nor sentence.
        """
        check_dimensions(self.dimensions)
        for instruction in (self.instruction, *self.more_instructions):
            resolve_instruction(instruction)
        counts = {
            "k": (self.k,),
            "sweep_k": self.sweep_k,
            "sweep_top_n": self.sweep_top_n,
            "sweep_questions": (self.sweep_questions,),
            "latency_questions": (self.latency_questions,),
        }
        for name, values in counts.items():
            for value in values:
                if not is_count(value):
                    msg = f"{name} must be a whole number, at least 1, got {value!r}"
                    raise ArgumentError(msg, name)
        if not 0 < self.margin < 1:
            msg = f"margin must be above 0 and below 1, got {self.margin!r}"
            raise ArgumentError(msg, "margin")
