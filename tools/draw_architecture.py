"""Draw the architecture as the contracts of import-linter in pyproject.toml state it.

    python tools/draw_architecture.py docs/images/architecture.svg

`make lint` checks the contracts against the imports, and a test the drawing against the contracts.
"""

import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WIDTH, BOX, ROW, GAP = 760, 30, 44, 12
"""Pixels: the picture, a box's height, from row to row, between boxes."""

STYLE = """
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f;
         text-anchor: middle }
  .frame { fill: #f6f8fa; stroke: #afb8c1 }
  .framework { fill: #ddf4ff; stroke: #54aeff }
  .module { fill: #ffffff; stroke: #8c959f }
  .down { stroke: #57606a; stroke-width: 1.5; marker-end: url(#head) }
"""

HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#57606a"/></marker></defs>'
)
"""Of an arrow."""


def draw(contracts: list[dict[str, object]]) -> str:
    """The layers as rows of boxes, the highest first; imports go down."""
    by_id = {contract["id"]: contract for contract in contracts}
    ((commands,), frameworks, (core,)) = _rows(by_id["packages"])
    tools, modules = _rows(by_id["commands"]), _rows(by_id["core"])
    top = (len(tools) + 1) * ROW + 20
    height = top + 3 * ROW + len(modules) * ROW + 20
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    above = f'x="16" y="8" width="{WIDTH - 32}" height="{top - 20}"'
    frame = (
        f'x="16" y="{top + 2 * ROW}" width="{WIDTH - 32}" height="{height - top - 2 * ROW - 12}"'
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Architecture">',
        f"<style>{STYLE}</style>",
        HEAD,
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<rect class="frame" {above} rx="6"/>',
        _text(WIDTH // 2, 30, commands),
        *_stack(tools, ROW - 4),
        *_boxes(frameworks, top + 16, "framework"),
        f'<rect class="frame" {frame} rx="6"/>',
        _text(WIDTH // 2, top + 2 * ROW + 22, core),
    ]
    for x in (WIDTH // 4, WIDTH * 3 // 4):
        parts.append(f'<path class="down" d="M{x} {top - 12} V{top + 14}"/>')
        parts.append(f'<path class="down" d="M{x} {top + 16 + BOX} V{top + 2 * ROW - 2}"/>')
    parts += _stack(modules, top + 3 * ROW - 8)
    return "\n".join([*parts, "</svg>", ""])


def _stack(rows: list[list[str]], top: int) -> list[str]:
    """Rows of modules below one another, with an arrow from each to the next."""
    parts = []
    for i, row in enumerate(rows):
        y = top + i * ROW
        parts += _boxes(row, y, "module")
        if i:
            parts.append(f'<path class="down" d="M{WIDTH // 2} {y - ROW + BOX} V{y - 2}"/>')
    return parts


def _rows(contract: dict[str, object]) -> list[list[str]]:
    layers = contract["layers"]
    if not isinstance(layers, list):
        msg = f"the layers of contract {contract['id']!r} are no list"
        raise TypeError(msg)
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def _boxes(names: list[str], y: int, kind: str) -> list[str]:
    width = (WIDTH - 64 - GAP * (len(names) - 1)) // len(names)
    parts = []
    for i, name in enumerate(names):
        x = 32 + i * (width + GAP)
        box = f'x="{x}" y="{y}" width="{width}" height="{BOX}" rx="4"'
        parts += [f'<rect class="{kind}" {box}/>', _text(x + width // 2, y + 20, name)]
    return parts


def _text(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'


def main() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    Path(sys.argv[1]).write_text(draw(contracts), encoding="utf-8")


if __name__ == "__main__":
    main()
