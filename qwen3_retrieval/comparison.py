"""One question: its candidates in the first stage's order and in the reranker's.

The demo and the page of an evaluation show it by the macros of comparison.html; the examples print
it as a table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from qwen3_core.ranking import Ranked

if TYPE_CHECKING:
    from rich.console import Console


class Shown(Protocol):
    """What is shown of a passage."""

    @property
    def title(self) -> str:
        """Its heading; may be empty."""

    @property
    def source(self) -> str:
        """The file it is from; may be empty."""

    @property
    def text(self) -> str:
        """The text that the models read."""


P = TypeVar("P", bound=Shown)


@dataclass(frozen=True, slots=True)
class Move(Generic[P]):
    """A passage with its rank in both orders; they are None if it is no candidate."""

    passage: P
    before: int | None = None
    """Rank in the first stage, from 1."""
    after: int | None = None
    """Rank after reranking, from 1."""
    cosine: float | None = None
    """Cosine with the question."""
    score: float | None = None
    """The reranker's score, from 0 to 1."""
    log_odds: float | None = None
    relevant: bool = False
    """Whether it is known to answer the question."""

    @property
    def gain(self) -> int:
        """By how many ranks it moved up; negative: down; 0 also if it is no candidate."""
        return 0 if self.before is None or self.after is None else self.before - self.after

    @property
    def direction(self) -> str:
        """Where it moved: "up", "down" or "same"."""
        return "up" if self.gain > 0 else "down" if self.gain < 0 else "same"

    @property
    def mark(self) -> str:
        """The move in a few characters: "▲ 3", "▼ 1" or "="."""
        return {"up": f"▲ {self.gain}", "down": f"▼ {-self.gain}", "same": "="}[self.direction]

    @property
    def snippet(self) -> str:
        """Its text on one line, without the title; the source if nothing else is left."""
        text = " ".join(self.passage.text.split())
        title = self.passage.title
        if title:
            text = text.partition(title)[2].strip() if title in text else text
        return text or self.passage.source


def moves(
    candidates: Sequence[P],
    cosines: Sequence[float],
    ranking: Sequence[Ranked],
    relevant: Callable[[P], bool] = lambda _: False,
) -> list[Move[P]]:
    """The moves of all candidates, in the reranker's order.

    Args:
        candidates: The candidates in the first stage's order.
        cosines: The cosine of each with the question.
        ranking: The reranker's order; `index` is a position in `candidates`.
        relevant: Whether a candidate is known to answer the question.
    """
    return [
        Move(
            passage=candidates[each.index],
            before=each.index + 1,
            after=after,
            cosine=float(cosines[each.index]),
            score=each.score,
            log_odds=each.log_odds,
            relevant=relevant(candidates[each.index]),
        )
        for after, each in enumerate(ranking, 1)
    ]


def by_first_stage(found: Sequence[Move[P]]) -> list[Move[P]]:
    """The candidates in the first stage's order."""
    return sorted((move for move in found if move.before), key=lambda move: move.before or 0)


def by_reranker(found: Sequence[Move[P]]) -> list[Move[P]]:
    """The candidates in the reranker's order."""
    return sorted((move for move in found if move.after), key=lambda move: move.after or 0)


def show(found: Sequence[Move[P]], top_n: int, console: "Console") -> None:
    """Print the best of both orders side by side; needs rich.

    Args:
        found: The moves of all candidates.
        top_n: Rows to show.
        console: Where to print; relevant passages are marked "*".
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    dense, reranked = by_first_stage(found), by_reranker(found)
    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False, show_edge=False, expand=True)
    table.add_column("score", justify="right", style="dim")
    table.add_column(f"dense search, top {min(top_n, len(dense))} of {len(dense)}", ratio=1)
    table.add_column("score", justify="right", style="dim")
    table.add_column("moved", justify="center")
    table.add_column(f"reranked, top {min(top_n, len(reranked))}", ratio=1)

    def title(move: Move[P]) -> Text:
        name = move.passage.title or move.passage.source
        return Text(f"* {name}" if move.relevant else name, "bold" if move.relevant else "")

    arrow = "->" if console.options.ascii_only else "→"
    for before, after in list(zip(dense, reranked, strict=True))[:top_n]:
        moved = f"{after.before} {arrow} {after.after}" if after.gain else "-"
        table.add_row(
            f"{before.cosine:.3f}",
            title(before),
            f"{after.score:.3f}",
            Text(moved, "green" if after.gain > 0 else "dim"),
            title(after),
        )
    console.print(table)
