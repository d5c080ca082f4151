"""Finds the passages that an answer cites; used by both frameworks and the demo."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from qwen3_core.common.validation import is_count

_OPEN = r"[\[\uff3b\u3010\u3014\u3016]"  # [ and its full-width form, and the CJK brackets
_CLOSE = r"[\]\uff3d\u3011\u3015\u3017]"
_LABEL = r"""(?:
    passages? | sources? | documents? | docs? | ref(?:erence)?s? | citations? | cite | id
  | quellen? | abschnitte? | textstellen? | dokumente? | extraits? | pasajes? | fuentes?
  | documentos? | fontes? | trechos? | passaggi[o]? | font[ei]
  | источники? | фрагменты? | документы? | отрывки?
  | 段落 | 文段 | 片段 | 来源 | 來源 | 资料 | 資料 | 文档 | 文檔 | 文献 | 文獻 | 文書
  | 引用 | 参考 | 參考 | 出典 | パッセージ | ソース | 구절 | 문단 | 출처 | 문서 | 자료
)[\s:._\uff1a-]{0,3} (?:n[or]\.?\s?)?"""
_NUMBER = rf"(?:{_LABEL})? [\#^]? \d{{1,9}} \^?"
_DASH = r"[-~\u2010-\u2015\u2212\u301c\uff0d\uff5e]"
_THROUGH = r"(?: [至到] | から | \b(?:to|through|bis|à|a|до)\b )"
_TO = rf"\s{{0,2}} (?:{_DASH} | \.{{2,3}} | … | {_THROUGH}) \s{{0,2}}"
_ITEM = rf"{_NUMBER} (?:{_TO} {_NUMBER})?"
_AND = r"(?:& | \b(?:and|or|und|oder|et|ou|y|e|и|или)\b | [和及与與와과] | および | または )"
_COMMA = r"[,;\u060c\u3001\u30fb\uff0c\uff1b]"
_BETWEEN = rf"\s{{0,3}} (?:{_COMMA} \s{{0,3}} (?:{_AND} \s{{0,3}})? | {_AND} \s{{0,3}})"
_FLAGS = re.IGNORECASE | re.VERBOSE

CITATION: Final = re.compile(
    rf"""{_OPEN} (?P<numbers> {_ITEM} (?:{_BETWEEN} {_ITEM})*+ )
    (?:†[^\[\]\u3010\u3011\n]{{0,200}})? \s{{0,3}} \\? {_CLOSE}""",
    _FLAGS,
)
"""A bracket that reads as a citation. A bracket that starts with a blank does not match:
`qwen3_core.rag.fence` inserts one to keep passages from citing."""

_DIGITS = re.compile(r"\s*\d{1,9}\s*")

_ITEMS = re.compile(_ITEM, _FLAGS)

_THINKING = re.compile(
    r"""
    \A[\s\ufeff]* (?:
        <(think|thinking|thought|reasoning|reflection|scratchpad|seed:think)> .*? (?:</\1>|\Z) \s*
    )+
  | \A[\s\ufeff]* \[THINK\] .*? (?:\[/THINK\]|\Z)
  | \A[\s\ufeff]* ◁think▷ .*? (?:◁/think▷|\Z)  # Kimi
  | \A[\s\ufeff]* (?:<\|start\|>assistant)? <\|channel\|>(?:analysis|commentary)  # gpt-oss
        .*? (?:<\|channel\|>final<\|message\|>|\Z)
  | \A (?:(?!<think>).)*? (?<!`)</think>(?!`)  # the opening tag was in the prompt's template
    """,
    re.DOTALL | _FLAGS,
)
_CODE = re.compile(
    r"""
    ^[ \t>]* (?:(?:[-*+]|\d+[.)])[ \t]+)? (?P<fence>`{3,}|~{3,}) [^`\n]*\n
        .*? (?:^[ \t>]*(?P=fence)[`~]*[ \t]*$ | \Z)
  | (?<!`)(?P<ticks>`+)(?!`) (?:(?!\n[ \t]*\n).)+? (?<!`)(?P=ticks)(?!`)
  | <(?P<tag>code|pre)\b[^>]*> .*? (?:</(?P=tag)> | \Z)
    """,
    re.DOTALL | re.MULTILINE | _FLAGS,
)

_CHAIN = r"(?:\[[^\[\]\n]{0,40}\])*"
_VARIABLE = re.compile(
    rf"""
    (?: (?<![A-Za-z0-9_$.\u00c0-\u024f])  # from here on a whole name
        (?: [A-Za-z] | [a-z]{{1,2}}\d{{1,2}}  # x, x1, df2
          | arr(?:ay)?|arg[sv]|bar|bu?f|df|dict|foo|idx|kwargs|list|lst|mat|obj|ptr|res|tmp|tuple
          | v(?:ec|als?|ars?) | xs | ys
          | _*[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+  # snake_case
          | [a-z]{{2,}}[A-Z][A-Za-z0-9]*  # camelCase
          | [A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+  # self.items
          | [A-Za-z_][\w.]*\([^()\n]{{0,60}}\)  # items()
        )
      | \$\w+
    ) {_CHAIN}\Z
    """,
    re.ASCII | re.VERBOSE,
)
_LABELLED = re.sub(r"\s", "", _LABEL)  # "[Source: 1]" is no slice
_SLICE = r"[^\[\]\n]{0,20}:[^\[\]\n]{0,20}"
_INDEX = rf"""\[(?!(?i:{_LABELLED}))(?:0|-\d+|[a-z][a-z0-9]{{0,2}}|{_SLICE}|(['"]).{{0,40}}?\1)\]"""
_INDEXED_BEFORE = re.compile(rf"\w{_CHAIN}{_INDEX}{_CHAIN}\Z")
_INDEXED_AFTER = re.compile(rf"{_CHAIN}(?:{_INDEX}|\.[a-z_]|[ ]?[-+*/|&]?=)", re.VERBOSE)
NUMBER_KEYS: Final = frozenset(
    (
        "number",
        "id",
        "source_id",
        "source",
        "passage",
        "passage_id",
        "document",
        "doc_id",
        "citation",
    )
)
"""Keys of a passage's number in an object under `citations` of a structured answer."""

_LOOK = 120
"""Characters before and after a bracket that `_is_index` inspects."""


class Citation(NamedTuple):
    """A citation in an answer.

    Attributes:
        begin: Position of the opening bracket.
        end: Position after the closing bracket.
        numbers: The passages' numbers, from 1 to their count, in order; not empty.
    """

    begin: int
    end: int
    numbers: list[int]


def cited(answer: object, count: int) -> list[int]:
    r"""Numbers of the passages that an answer cites, each once, in order of first mention.

    A citation is a bracket that contains only passage numbers:

    - brackets: `[1]`, and the CJK forms `［1］`, `【1】`, `〔1〕`, `〖1〗`; several may follow each
      other, `[1][2]`, and Markdown may escape them, `\[1\]`;
    - lists: `[1, 3]`, `[1; 3]`, `[1、3]`, `[1，3]`, `[1 and 3]`, `[1 & 3]`;
    - ranges: `[1-3]`, `[1–3]`, `[1~3]`, `[1 to 3]` are 1, 2, 3;
    - digits of any script, `［１］`; footnotes, `[^1]`; a word for "passage" in a common language,
      `[Passage 1]`, `[Source: 1]`, `[doc1]`, `[段落1]`; and what follows a dagger, `【1†source】`.

    These are not citations:

    - numbers that no passage has; in a range, only existing passages count;
    - anything in a leading thinking block, `<think>...</think>`, also if it is not closed (then
      nothing is cited) or not opened (the prompt's template may have opened it);
    - Markdown code, inline and fenced, and HTML's `<code>` and `<pre>`;
    - indexing outside of marked code: a bracket directly after something that can only be a
      variable, such as `x[1]`, `arr[0][1]`, `top_n[1]`, `self.rows[1]` or `f(x)[1]`. A citation
      directly after an ordinary word counts: `in storage[1]`;
    - a bracket that begins with a blank, `[ 1]`, or contains anything else, `[1: a title]`, `[a]`;
    - numbers in parentheses, or raised ones without brackets.

    Args:
        answer: The LLM's text. In a structured answer (a pydantic model, a dict, a list) all
            strings are read, in order; under a key `citations`, integers and digits count too, in
            objects those under one of `NUMBER_KEYS`, such as `{"source_id": 1, "quote": "..."}`.
        count: The number of passages.
    """
    return list(dict.fromkeys(_numbers_in(answer, count)))


def find_citations(text: str, count: int) -> Iterator[Citation]:
    """The citations in a text by the rules of `cited`, in order.

    Args:
        text: The LLM's text.
        count: The number of passages.
    """
    prose = _THINKING.sub(_blanked, text, count=1)
    prose = _CODE.sub(_blanked, prose)
    for found in CITATION.finditer(prose):
        numbers = bracketed_numbers(found, count)
        if numbers and not _is_index(prose, found):
            yield Citation(*found.span(), numbers)


def bracketed_numbers(found: re.Match[str], count: int) -> list[int]:
    """The numbers from 1 to `count` in a match of `CITATION`."""
    numbers: list[int] = []
    for item in _ITEMS.finditer(found["numbers"]):
        ends = [int(digits) for digits in re.findall(r"\d+", item[0])]
        first, last = ends[0], ends[-1]
        if first <= last:
            numbers += range(max(first, 1), min(last, count) + 1)
        else:
            numbers += range(min(first, count), max(last, 1) - 1, -1)
    return numbers


def _numbers_in(answer: object, count: int, *, listed: bool = False) -> Iterator[int]:
    """The numbers in an answer; `listed` if it is a value of the key `citations`."""
    if hasattr(answer, "model_dump"):  # a pydantic model
        answer = answer.model_dump()
    if isinstance(answer, str):
        if listed and _DIGITS.fullmatch(answer) and 1 <= int(answer) <= count:
            yield int(answer)
        for citation in find_citations(answer, count):
            yield from citation.numbers
    elif isinstance(answer, Mapping):
        for name, value in answer.items():
            key = str(name).lower()
            yield from _numbers_in(
                value, count, listed=key == "citations" or (listed and key in NUMBER_KEYS)
            )
    elif isinstance(answer, (list, tuple)):
        for value in answer:
            yield from _numbers_in(value, count, listed=listed)
    elif listed and is_count(answer) and answer <= count:
        yield answer


def _blanked(found: re.Match[str]) -> str:
    """A replacement of the same length, in characters that are neither a word nor a blank."""
    return "\0" * len(found[0])


def _is_index(text: str, found: re.Match[str]) -> bool:
    """Whether the bracket indexes a variable, judged by the text directly around it."""
    before = text[max(0, found.start() - _LOOK) : found.start()]
    if text[found.start()] != "[" or not before or before[-1].isspace():
        return False
    after = text[found.end() : found.end() + _LOOK]
    word = re.search(rf"\w{_CHAIN}\Z", before)
    return bool(
        _VARIABLE.search(before)
        or _INDEXED_BEFORE.search(before)
        or (word and _INDEXED_AFTER.match(after))
    )
