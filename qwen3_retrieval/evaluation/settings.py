"""What one evaluation is asked to do."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qwen3_core.common.validation import check_dimensions, is_count
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, Dtype, matching_reranker

CUT: Final = 10
"""Results that nDCG and MRR look at, as BEIR and MTEB do."""


@dataclass(frozen=True)
class Pair:
    """An embedding model and a reranker, and where they run."""

    model: str = DEFAULT_EMBEDDING_MODEL
    """Embedding model: hub name, folder, or "tiny"."""
    reranker: str | None = None
    """Reranking model; None: the one that goes with the model ("tiny" with "tiny", else the
    published 0.6B)."""
    base_url: str | None = None
    """Server that embeds; None: the model runs in this process."""
    reranker_base_url: str | None = None
    revision: str | None = None
    """Of the embedding model on the hub."""
    reranker_revision: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"

    @property
    def reranker_model(self) -> str:
        """The reranker in force."""
        return self.reranker or matching_reranker(self.model)

    @property
    def label(self) -> str:
        """A short name for tables."""
        name = self.model.rstrip("/").rpartition("/")[2]
        return f"{name} at {self.base_url}" if self.base_url else name


@dataclass(frozen=True)
class Settings:
    """Models, the setting that systems are compared at, and what the sweep tries."""

    pair: Pair = field(default_factory=Pair)
    second: Pair | None = None
    """Another pair, measured beside the first."""
    instruction: str | None = None
    """Task name or sentence for both models; None: the official default."""
    more_instructions: tuple[str, ...] = ()
    """Others that the sweep tries."""
    dimensions: int | None = None
    max_length: int | None = None
    k: int = 30
    """Candidates: what each system returns, and what a reranker reads."""
    sweep: bool = True
    sweep_k: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    sweep_top_n: tuple[int, ...] = (1, 2, 3, 5, 10, 20)
    sweep_questions: int = 30
    """Questions that the sweep asks at most: it reranks up to 200 candidates of each."""
    latency_questions: int = 10
    """Questions that are asked once more, one by one and without the cache, to take the time."""
    tolerance: float = 0.01
    """nDCG@10 (0 to 1) that a faster setting may lose and still be recommended."""
    cache: Path | None = None
    """File that keeps vectors and scores; None: they are kept in memory, and gone afterwards."""
    progress: bool = False
    """Progress bars on stderr."""

    def __post_init__(self) -> None:
        """Check what can be checked here.

        Raises:
            ValueError: If a number is out of range, or an instruction is no task or sentence.
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
                    raise ValueError(msg)
        if not 0 <= self.tolerance < 1:
            msg = f"tolerance must be from 0 to below 1, got {self.tolerance!r}"
            raise ValueError(msg)
