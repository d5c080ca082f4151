"""Draw dense search beside reranking of the bundled FAQ by the bundled pair, as an SVG.

    python tools/draw_comparison.py --out docs/images/comparison.svg \
        --question "Is a row lost if the server crashes right after I inserted it?"

It computes in float32, in which every CPU draws the same order. The passage that answers is marked
if the question is one of `examples/_questions.py`.
"""

import argparse
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from qwen3_core.components import make_embedder, make_reranker
from qwen3_core.settings import TINY
from qwen3_retrieval.demo.passages import read_folder
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


@dataclass(frozen=True)
class Hit:
    """A passage's title and its score."""

    title: str
    score: float


def draw(question: str, dense: Sequence[Hit], reranked: Sequence[Hit], command: str) -> str:
    """The two orders of the same passages as columns, with a line for each passage's move."""
    answer = QUESTIONS.get(question)
    place = {hit.title: i for i, hit in enumerate(reranked)}
    height = TOP + ROW * len(dense) + 34
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
    for i, hit in enumerate(dense):
        marked = hit.title == answer
        y, to = TOP + ROW * i, TOP + ROW * place[hit.title]
        begin, end, bend = COLUMN + 16, right - 8, (COLUMN + right) // 2
        parts.append(
            f'<path class="move{" answer" if marked else ""}" '
            f'd="M{begin} {y - 5} C{bend} {y - 5} {bend} {to - 5} {end} {to - 5}"/>'
        )
        parts += _row(16, y, hit, marked)
    for i, hit in enumerate(reranked):
        parts += _row(right, TOP + ROW * i, hit, hit.title == answer)
    parts += [_text(16, height - 14, command, "small"), "</svg>", ""]
    return "\n".join(parts)


def _row(x: int, y: int, hit: Hit, marked: bool) -> list[str]:
    title = hit.title if len(hit.title) <= LETTERS else f"{hit.title[: LETTERS - 1].rstrip()}…"
    kind = "answer" if marked else ""
    return [_text(x, y, f"{hit.score:.3f}", "score"), _text(x + 50, y, title, kind)]


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
    passages = read_folder(EXAMPLES / "corpus", Cutter(tokenizer_of(TINY))).passages
    result = searcher.search(searcher.index(passages), options.question, CANDIDATES, None)
    titles = [passage.title for passage in result.candidates]
    dense = [Hit(*each) for each in zip(titles, result.similarities, strict=True)]
    reranked = [Hit(titles[each.index], each.score) for each in result.ranking]
    command = f"python examples/demo.py --top-n {CANDIDATES} --dtype float32 --question ..."
    options.out.write_text(draw(options.question, dense, reranked, command), encoding="utf-8")


if __name__ == "__main__":
    main()
