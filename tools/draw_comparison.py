"""Draw dense search beside reranking of the bundled FAQ by the bundled pair, as an SVG.

    python tools/draw_comparison.py --out docs/images/comparison.svg \
        --question "Is a row lost if the server crashes right after I inserted it?"

It computes in float32, in which every CPU draws the same order. The passage that answers is marked
if the question is one of `examples/_questions.py`.
"""

import argparse
import runpy
from collections.abc import Sequence
from html import escape
from pathlib import Path

from qwen3_core.components import make_embedder, make_reranker
from qwen3_core.settings import TINY
from qwen3_retrieval.comparison import Move, by_first_stage, by_reranker
from qwen3_retrieval.demo.passages import Excerpt, read_corpus
from qwen3_retrieval.demo.search import Searcher
from qwen3_retrieval.documents.cutting import Cutter, tokenizer_of

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
QUESTIONS: dict[str, str] = runpy.run_path(str(EXAMPLES / "_questions.py"))["QUESTIONS"]
CANDIDATES = 10

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


def draw(question: str, moves: Sequence[Move[Excerpt]], command: str) -> str:
    """The two orders of the same passages as columns, with a line for each passage's move."""
    answer = QUESTIONS.get(question)
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
        marked = move.passage.title == answer
        y, to = (TOP + ROW * ((rank or 0) - 1) for rank in (move.before, move.after))
        begin, end, bend = COLUMN + 16, right - 8, (COLUMN + right) // 2
        parts.append(
            f'<path class="move{" answer" if marked else ""}" '
            f'd="M{begin} {y - 5} C{bend} {y - 5} {bend} {to - 5} {end} {to - 5}"/>'
        )
        parts += _row(16, y, move.passage.title, move.cosine, marked)
    for i, move in enumerate(by_reranker(moves)):
        title = move.passage.title
        parts += _row(right, TOP + ROW * i, title, move.score, title == answer)
    parts += [_text(16, height - 14, command, "small"), "</svg>", ""]
    return "\n".join(parts)


def _row(x: int, y: int, title: str, score: float | None, marked: bool) -> list[str]:
    title = title if len(title) <= LETTERS else f"{title[: LETTERS - 1].rstrip()}…"
    kind = "answer" if marked else ""
    return [_text(x, y, f"{score:.3f}", "score"), _text(x + 50, y, title, kind)]


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--question", required=True)
    options = parser.parse_args()
    searcher = Searcher(
        make_embedder(TINY, dimensions=None, dtype="float32"),
        make_reranker(TINY, dtype="float32"),
    )
    passages = read_corpus(EXAMPLES / "corpus", Cutter(tokenizer_of(TINY))).passages
    result = searcher.search(searcher.index(passages), options.question, CANDIDATES, None)
    command = f"python examples/demo.py --top-n {CANDIDATES} --dtype float32 --question ..."
    options.out.write_text(draw(options.question, result.moves, command), encoding="utf-8")


if __name__ == "__main__":
    main()
