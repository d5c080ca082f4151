"""Finds the passages that an answer cites; used by both frameworks and the demo."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from qwen3_core.common.validation import is_count

# [ and its small and full-width forms, the CJK brackets, and the mathematical ones
_OPEN = r"[\[\ufe5d\uff3b\u3010\u3014\u3016\u3018\u301a\u27e6]"
_CLOSE = r"[\]\ufe5e\uff3d\u3011\u3015\u3017\u3019\u301b\u27e7]"
_LABEL = r"""(?:
    passages? | sources? | documents? | docs? | ref(?:erence)?s? | citations? | cite | id
  | quellen? | abschnitte? | textstellen? | dokumente? | extraits? | pasajes? | fuentes?
  | documentos? | fontes? | trechos? | passaggi[o]? | font[ei]
  | источники? | фрагменты? | документы? | отрывки?
  | 段落 | 文段 | 片段 | 来源 | 來源 | 资料 | 資料 | 文档 | 文檔 | 文献 | 文獻 | 文書
  | 引用 | 参考 | 參考 | 出典 | パッセージ | ソース | 구절 | 문단 | 출처 | 문서 | 자료
  | bron(?:nen)? | kaynak(?:lar)? | belge | bölüm | zdroje? | źródł[oa] | dokument
  | fragmenty? | källa | källor | kilde | sumber | dokumen | đoạn | nguồn | tài\sliệu
  | джерел[оа] | документ | (?:ال)?مقطع | (?:ال)?مصدر | (?:ال)?مستند | (?:ال)?مرجع | منبع
  | स्रोत | अनुच्छेद | दस्तावेज़ | แหล่งที่มา | ข้อความ | เอกสาร
)[\s:._\uff1a-]{0,3} (?:(?:n[or]|numbers?)\.?\s?)?"""
_NUMBER = rf"(?:{_LABEL} | n[or]\.\s? | №\s?)? [\#^]? \d{{1,9}} \^?"
_DASH = r"[-~\u2010-\u2015\u2212\u301c\uff0d\uff5e]"
_THROUGH = r"(?: [至到] | から | \b(?:to|through|bis|à|a|до)\b )"
_TO = rf"\s{{0,2}} (?:{_DASH} | \.{{2,3}} | … | {_THROUGH}) \s{{0,2}}"
_ITEM = rf"{_NUMBER} (?:{_TO} {_NUMBER})?"
_AND = r"""(?:& | \b(?:and|or|und|oder|et|ou|y|e|i|en|och|og|ve|và|dan|и|или|та|і|و|और)\b
  | [和及与與와과] | および | または | และ )"""
_COMMA = r"[,;\u060c\u061b\u3001\u30fb\uff0c\uff1b]"
_BETWEEN = rf"\s{{0,3}} (?:{_COMMA} \s{{0,3}} (?:{_AND} \s{{0,3}})? | {_AND} \s{{0,3}})"
_FLAGS = re.IGNORECASE | re.VERBOSE

CITATION: Final = re.compile(
    rf"""{_OPEN} (?P<numbers> {_ITEM} (?:{_BETWEEN} {_ITEM})*+ )
    (?:†[^\[\]\u3010\u3011\n]{{0,200}})? \s{{0,3}} \\? {_CLOSE}""",
    _FLAGS,
)
"""A bracket that reads as a citation. A bracket that starts with a blank does not match:
`qwen3_core.rag.fence` inserts one to keep passages from citing."""

_ITEMS = re.compile(_ITEM, _FLAGS)

_THINKING = re.compile(
    r"""
    \A[\s\ufeff]* (?:
        <(think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|seed:think)>
            .*? (?:</\1>|\Z) \s*
    )+
  | \A[\s\ufeff]* \[THINK\] .*? (?:\[/THINK\]|\Z)
  | \A[\s\ufeff]* <\|begin_of_thought\|> .*? (?:<\|end_of_thought\|>|\Z)
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
  | <!-- .*? (?:--> | \Z)
  | (?<!\w)!\[[^\[\]\n]*\](?=\()  # the words of a picture
    """,
    re.DOTALL | re.MULTILINE | _FLAGS,
)

_CHAIN = r"(?:\[[^\[\]\n]{0,40}\])*"
_ENDINGS = r"""(?:js|ts|jsx|tsx|mjs|py|ipynb|md|txt|rst|jsonl?|ya?ml|toml|csv|xml|html?|css|pdf|docx
  |xlsx|pptx|sql|java|cpp|exe|dll|zip|gz|png|jpg|svg|net|com|org|io|gov|edu|ai)"""
"""Last parts of the names of products, files and sites, which are words: Node.js, README.md."""
_VARIABLE = re.compile(
    rf"""
    (?: (?<![A-Za-z0-9_$.\u00c0-\u024f])  # from here on a whole name
        (?: [a-z] | (?<![a-z][ ])[A-Z]  # x; but "in C" is a word
          | (?!v\d|s3)[a-z]{{1,2}}\d{{1,2}}  # x1, df2; but v2 is a version
          | arr(?:ay)?|arg[sv]|bar|bu?f|df|dict|foo|idx|kwargs|list|lst|mat|obj|ptr|res|tmp|tuple
          | v(?:ec|als?|ars?) | xs | ys
          | _*[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+  # snake_case
          | [a-z]{{2,}}(?:[A-Z][a-z0-9][A-Za-z0-9]*|[A-Z]|IDs?)  # camelCase; but macOS is a word
          | (?:self|this|cls)(?:\.[A-Za-z_]\w*)+
          | (?![\w.]*\.(?i:{_ENDINGS})(?!\w)) [A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+  # rows.items
          | [A-Za-z_][\w.]*\([^()\n]{{0,60}}\)  # items()
        )
      | \$\w+
    ) {_CHAIN}\Z
    """,
    re.ASCII | re.VERBOSE,
)
_LABELLED = re.sub(r"\s", "", _LABEL)  # "[Source: 1]" is no slice
_SLICE = r"[^\[\]\s]{0,20}[ ]?:[ ]?[^\[\]\s]{0,20}"
_INDEX = rf"""\[(?!(?i:{_LABELLED}))(?:0|-\d+|[a-z][a-z0-9]{{0,2}}|{_SLICE}|(['"]).{{0,40}}?\1)\]"""
_INDEXED_BEFORE = re.compile(rf"\w{_CHAIN}{_INDEX}{_CHAIN}\Z")
_INDEXED_AFTER = re.compile(rf"{_CHAIN}(?:{_INDEX}|\.[a-z_]|[ ]?[-+*/|&]?=)", re.VERBOSE)
_PASSAGE = ("citation", "source", "passage", "document", "doc", "reference", "ref")
LIST_KEYS: Final = frozenset(
    (
        *("citations", "cited", "sources", "passages", "references", "refs"),
        *(f"{word}{of}s" for word in _PASSAGE for of in ("id", "number")),
        *(f"cited{word}s" for word in _PASSAGE),
    )
)
"""Keys of a list of passages in a structured answer, without "_" and in lower case."""
NUMBER_KEYS: Final = frozenset(
    ("number", "id", *_PASSAGE, *(f"{word}{of}" for word in _PASSAGE for of in ("id", "number")))
)
"""Keys of a passage's number in an object of such a list, written likewise."""

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

    - brackets: `[1]`, and other scripts' forms such as `［1］`, `【1】`; several may follow each
      other, `[1][2]`, and Markdown may escape them, `\[1\]`;
    - lists: `[1, 3]`, `[1; 3]`, `[1、3]`, `[1，3]`, `[1 and 3]`, `[1 & 3]`;
    - ranges: `[1-3]`, `[1–3]`, `[1~3]`, `[1 to 3]` and `[1]–[3]` are 1, 2, 3;
    - digits of any script, `［１］`; footnotes, `[^1]`; a word for "passage" in a common language,
      `[Passage 1]`, `[Source: 1]`, `[doc1]`, `[段落1]`; and what follows a dagger, `【1†source】`.

    These are not citations:

    - numbers that no passage has; in a range, only existing passages count;
    - anything in a leading thinking block, `<think>...</think>`, also if it is not closed (then
      nothing is cited) or not opened (the prompt's template may have opened it);
    - Markdown code, inline and fenced, HTML's `<code>`, `<pre>` and comments, and a picture's
      words, `![1](a.png)`;
    - indexing outside of marked code: a bracket directly after something that can only be a
      variable, such as `x[1]`, `arr[0][1]`, `top_n[1]`, `self.rows[1]` or `f(x)[1]`. A citation
      directly after an ordinary word counts: `in storage[1]`, `Node.js[1]`, `macOS[1]`;
    - a list in an assignment, `ids = [1, 2]`;
    - a bracket that begins with a blank, `[ 1]`, or contains anything else, `[1: a title]`, `[a]`;
    - numbers in parentheses, or raised ones without brackets.

    Args:
        answer: The LLM's text. In a structured answer (a pydantic model, a dict, a list) all
            strings are read, in order; under a key `citations`, and in a list under one of
            `LIST_KEYS`, integers and numbers as in a bracket count too, in objects those under one
            of `NUMBER_KEYS`, such as `{"source_id": 1, "quote": "..."}`.
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
    last: re.Match[str] | None = None
    for found in CITATION.finditer(prose):
        numbers = bracketed_numbers(found, count)
        if last and _DASHES.fullmatch(prose, last.end(), found.start()):  # [1]–[3]
            numbers = [*range(_digits(last)[-1] + 1, min(_digits(found)[0], count + 1)), *numbers]
        last = None
        if numbers and not _is_index(prose, found):
            last = found
            yield Citation(*found.span(), numbers)


_DASHES: Final = re.compile(_DASH)


def _digits(found: re.Match[str]) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", found["numbers"])]


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
        if listed and (bare := CITATION.fullmatch(f"[{answer.strip()}]")):
            yield from bracketed_numbers(bare, count)
        for citation in find_citations(answer, count):
            yield from citation.numbers
    elif isinstance(answer, Mapping):
        for name, value in answer.items():
            key = re.sub(r"[\W_]", "", str(name)).lower()
            if listed and key.isdecimal():  # {"1": "a quote"}
                yield from _numbers_in(key, count, listed=True)
            is_list = key == "citations" or (key in LIST_KEYS and not is_count(value))
            yield from _numbers_in(value, count, listed=is_list or (listed and key in NUMBER_KEYS))
    elif isinstance(answer, (list, tuple)):
        for value in answer:
            yield from _numbers_in(value, count, listed=listed)
    elif listed and is_count(answer) and answer <= count:
        yield answer


def _blanked(found: re.Match[str]) -> str:
    """A replacement of the same length, in characters that are neither a word nor a blank."""
    return "\0" * len(found[0])


def _is_index(text: str, found: re.Match[str]) -> bool:
    """Whether the bracket indexes a variable or is a list, judged by the text around it."""
    before = text[max(0, found.start() - _LOOK) : found.start()]
    if text[found.start()] != "[" or not before:
        return False
    if re.search(r"\w[ ]?=[ ]?\Z", before):
        return True
    if before[-1].isspace():
        return False
    after = text[found.end() : found.end() + _LOOK]
    word = re.search(rf"\w{_CHAIN}\Z", before)
    return bool(
        _VARIABLE.search(before)
        or _INDEXED_BEFORE.search(before)
        or (word and _INDEXED_AFTER.match(after))
    )
