"""Draw dense search beside reranking: a real run of `examples/compare.py` as an SVG.

    python tools/draw_comparison.py --out docs/images/comparison.svg --dtype float32 \
        --question "Is a row lost if the server crashes right after I inserted it?"

All other options are those of `examples/compare.py`; in float32 every CPU draws the same order. The
passage that answers is marked if the question is one of `examples/_questions.py`.
"""

import argparse
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import _shared  # noqa: E402
import compare  # noqa: E402
from _corpus import load_passages  # noqa: E402
from _output import Hit  # noqa: E402
from _questions import QUESTIONS  # noqa: E402
from langchain_rag import open_store  # noqa: E402

from qwen3_retrieval.comparison import Move, by_first_stage, by_reranker  # noqa: E402
from qwen3_retrieval.ingest._langchain import splitters  # noqa: E402

WIDTH, COLUMN, ROW, TOP = 980, 400, 30, 92
"""Pixels: the picture, one column of passages, one row, the head above the first row."""

LETTERS = 40
"""Of a passage's title, as many as fit into a column in a wide font."""

STYLE = """
  text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #24292f }
  .question { font-size: 17px; font-weight: 600 }
  .head { font-weight: 600; fill: #57606a }
  .score { fill: #57606a; font-variant-numeric: tabular-nums }
  .answer { fill: #116329; text-decoration: underline }
  .move { fill: none; stroke: #afb8c1; stroke-width: 1.5 }
  .move.answer { stroke: #1a7f37; stroke-width: 3; fill: none }
  .small { font-size: 12px; fill: #57606a }
"""


def draw(question: str, moves: Sequence[Move[Hit]], command: str) -> str:
    """The two orders of the same passages as columns, with a line for each passage's move."""
    height = TOP + ROW * len(moves) + 34
    right = WIDTH - COLUMN
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    label = f'role="img" aria-label="{escape(question)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        _text(16, 32, question, "question"),
        _text(16, 68, "Dense search: cosine", "head"),
        _text(right, 68, "Reranked: probability", "head"),
    ]
    for move in by_first_stage(moves):
        y, to = (TOP + ROW * (rank - 1) for rank in (move.before or 0, move.after or 0))
        begin, end, bend = COLUMN + 16, right - 8, (COLUMN + right) // 2
        parts.append(
            f'<path class="move{" answer" if move.relevant else ""}" '
            f'd="M{begin} {y - 5} C{bend} {y - 5} {bend} {to - 5} {end} {to - 5}"/>'
        )
        parts += _row(16, y, move, move.cosine)
    for i, move in enumerate(by_reranker(moves)):
        parts += _row(right, TOP + ROW * i, move, move.score)
    parts += [_text(16, height - 14, command, "small"), "</svg>", ""]
    return "\n".join(parts)


def _row(x: int, y: int, move: Move[Hit], score: float | None) -> list[str]:
    title = move.passage.title
    title = title if len(title) <= LETTERS else f"{title[: LETTERS - 1].rstrip()}…"
    kind = "answer" if move.relevant else ""
    return [_text(x, y, f"{score:.3f}", "score"), _text(x + 50, y, title, kind)]


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    options, rest = parser.parse_known_args()
    sys.argv[1:] = rest

    def write(settings: _shared.Settings) -> None:
        question = settings.question or _shared.QUESTION
        store = open_store(settings, load_passages(settings, splitters))
        moves = compare.search(settings, store, question, QUESTIONS.get(question))
        command = f"python examples/compare.py --top-n {len(moves)} --model {settings.model}"
        command += f" --reranker {settings.reranker} --dtype {settings.dtype} --question ..."
        options.out.write_text(draw(question, moves, command), encoding="utf-8")

    _shared.run(write, __doc__)


if __name__ == "__main__":
    main()
