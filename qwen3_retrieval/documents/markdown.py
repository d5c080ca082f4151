"""The blocks of a Markdown text (CommonMark and GitHub's tables), and its front matter."""

import datetime as dt
import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final

from qwen3_retrieval.documents.text import Block, need, usable_metadata

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT_MATTER: Final = re.compile(
    r"\A(---|\+\+\+)[ \t]*\n(.*?)^(\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_TABLE: Final = re.compile(r"<table\b", re.IGNORECASE)
_TABLE_END: Final = re.compile(r"</table\b", re.IGNORECASE)
_ROW: Final = re.compile(r"[ \t]*(?:<tbody[^>]*>)?[ \t]*<tr\b", re.IGNORECASE)
_CELL: Final = re.compile(r"<(td|th)\b", re.IGNORECASE)
_ANCHOR: Final = re.compile(r"\s*\{#[^}]*\}\s*$")


def markdown_blocks(text: str) -> tuple[Block, ...]:
    """The blocks of a text; its line ends must be newlines.

    Raises:
        UnreadableError: If markdown-it-py is not installed.
    """
    parser = need("markdown_it", "markdown-it-py", "Markdown").MarkdownIt("commonmark")
    tokens: list[Token] = parser.enable("table").parse(text)
    lines = [0]
    for line in text.split("\n"):
        lines.append(lines[-1] + len(line) + 1)
    tops = [i for i, t in enumerate(tokens) if t.level == 0 and t.map and t.nesting >= 0]
    blocks: list[Block] = []
    for this, behind in pairwise([*tops, len(tokens)]):
        token, inner = tokens[this], tokens[this + 1 : behind]
        assert token.map is not None  # noqa: S101 - for the type checker
        first = token.map[0]
        begin = lines[first] if blocks else 0
        if token.type == "heading_open":
            blocks.append(Block(begin, int(token.tag[1]), _words(inner[0])))
            continue
        starts: set[int] = set()
        heads = []
        for part in [token, *inner]:
            if part.map is None or part.nesting < 0 or part.type == "inline":
                continue
            begins, ends = part.map
            starts.add(begins)
            if part.type == "html_block" and (table := _html_table(part.content)):
                top, below, end, rows = table
                starts |= {begins + row for row in rows}
                if below:
                    heads.append((lines[begins + top], lines[begins + below], lines[begins + end]))
            elif part.type in ("fence", "code_block", "html_block"):
                starts |= set(range(begins + 1, ends))
            elif part.type == "table_open":
                below = begins + 2
                heads.append((lines[begins], lines[below], lines[ends]))
                starts -= {begins + 1}  # a table without rows has only header and delimiters
        starts.discard(first)
        cuts = tuple(sorted(lines[s] for s in starts))
        blocks.append(Block(begin, cuts=cuts, heads=tuple(heads)))
    return tuple(blocks) or (Block(0),)


def _html_table(markup: str) -> tuple[int, int, int, list[int]] | None:
    """The table in a block of HTML, in lines from the block's first.

    Returns:
        Where the table begins, where the rows below its header begin (0 without a header), where it
        ends, and where its rows begin; None if there is no table whose rows begin lines.
    """
    lines = markup.rstrip("\n").split("\n")
    top = next((i for i, line in enumerate(lines) if _TABLE.search(line)), None)
    rows = [i for i, line in enumerate(lines) if _ROW.match(line) and top is not None and i > top]
    if top is None or len(rows) < 2:
        return None
    end = next((i for i, line in enumerate(lines) if _TABLE_END.search(line)), len(lines) - 1) + 1
    below = 0
    for row, behind in pairwise([top, *rows]):
        tags = {tag.lower() for line in lines[row:behind] for tag in _CELL.findall(line)}
        if "td" in tags:
            break
        below = behind if tags else below
    return top, below, end, rows


def _words(inline: "Token") -> str:
    """A heading's words, without markup, links and anchors."""
    parts = []
    for token in inline.children or ():
        if token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif token.type == "html_inline":
            continue
        else:
            parts.append(token.content)
    return _ANCHOR.sub("", " ".join("".join(parts).split(" "))).strip()


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The fields of a text's YAML or TOML front matter, and the rest of the text.

    Front matter that cannot be parsed stays in the text.
    """
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    fields = _toml(found[2]) if found[1] == "+++" else _yaml(found[2])
    if not isinstance(fields, dict):
        return {}, text
    try:
        return usable_metadata((str(k), _value(v)) for k, v in fields.items()), text[found.end() :]
    except (TypeError, ValueError):
        return {}, text


@cache
def _yaml_loader() -> Any:
    """A loader that reads plain values as YAML 1.2 does, and only those that it does not alter.

    YAML 1.1 would read `no` as false, `1.10` as 1.1, `01234` as 668 and `12:30` as 750.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            if len(set(map(str, names))) < len(names):
                raise yaml.constructor.ConstructorError(None, None, "a key occurs twice")
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    for name, pattern, first in (
        ("merge", r"<<", "<"),
        ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"-?[1-9][0-9]{0,17}|0", "-0123456789"),
        ("float", r"-?(?:0|[1-9][0-9]{0,7})\.(?:[0-9]{0,6}[1-9]|0)", "-0123456789"),
    ):
        whole = re.compile(rf"(?:{pattern})\Z")
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", whole, list(first))
    return Loader


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, _yaml_loader())  # noqa: S506 - derived from SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None


def _value(value: Any) -> Any:
    """The value in JSON's types."""
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(k): _value(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_value(each) for each in value]
    return value
