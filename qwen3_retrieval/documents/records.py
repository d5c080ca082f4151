"""JSON records, other JSON, and tables of values."""

import csv
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from qwen3_retrieval.documents.encoding import decode
from qwen3_retrieval.documents.text import Block, Note, Section, UnreadableError, usable_metadata


def record(line: str, text_field: str, size: int) -> Section:
    """The section of a JSON object.

    Raises:
        ValueError: If it is not a JSON object, has no text, or has values that a row cannot store.
    """
    return _section(parse_json(line), text_field, size)


def parse_json(text: str) -> Any:
    """Parse a JSON value whose numbers fit into 64 bits, and whose fields occur once.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        return json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_int64,
            object_pairs_hook=_no_field_twice,
        )
    except json.JSONDecodeError as error:
        msg = f"not JSON ({error.msg} at character {error.pos})"
        raise ValueError(msg) from error
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error


def _section(value: Any, text_field: str, size: int) -> Section:
    if not isinstance(value, dict):
        msg = f"a JSON {type(value).__name__}, not an object"
        raise ValueError(msg)
    text = value.get(text_field)
    if not isinstance(text, str):
        msg = f"no string in the field {text_field!r} (--text-field names another)"
        raise ValueError(msg)
    if not text.strip():
        msg = f"the field {text_field!r} is blank"
        raise ValueError(msg)
    if "\0" in text:
        msg = "it holds NUL characters"
        raise ValueError(msg)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = "it spells a lone surrogate, which is no character"
        raise ValueError(msg) from error
    metadata = usable_metadata((k, v) for k, v in value.items() if k != text_field)
    return Section(text, size, metadata=metadata)


def read_json(data: bytes, encoding: str | None, text_field: str, note: Note) -> Iterator[Section]:
    """Yield a list of objects with texts as records; any other document as one unchanged text.

    Raises:
        UnreadableError: If it is not JSON.
    """
    text = decode(data, encoding)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        reason = "not JSON"
        if error.msg == "Extra data" and not text[: error.pos].rstrip(" \t").endswith("]"):
            reason = "several JSON values in one file: use the file extension .jsonl for JSON Lines"
        raise UnreadableError(reason, f"{error.msg} at line {error.lineno}") from error
    except RecursionError as error:
        reason = "JSON that is nested too deeply"
        raise UnreadableError(reason) from error
    if isinstance(value, list) and any(_has_text(each, text_field) for each in value):
        for number, each in enumerate(_elements(text), 1):
            try:
                yield record(each, text_field, len(data) // len(value))
            except ValueError as error:
                note("a bad record", f"record {number}: {error}")
        return
    # Replace escapes of letters, which no search would find.
    text = _STRING.sub(_spelled_out, text)
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        reason = "JSON that spells NUL or a lone surrogate, which is no character"
        raise UnreadableError(reason)
    cuts = tuple(found.end() for found in re.finditer(r"\n(?=.)", text, re.DOTALL))
    yield Section(text, len(data), (Block(0, cuts=cuts),))


def _elements(text: str) -> Iterator[str]:
    """The elements of a JSON list, unparsed, so that a bad one does not hide the others."""
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    while at < len(text):
        between = _BETWEEN.match(text, at)
        start = between.end() if between else at
        if text[start] == "]":
            return
        at = decoder.raw_decode(text, start)[1]
        yield text[start:at]


_BETWEEN: Final = re.compile(r"[ \t\n\r,]*")


def _has_text(value: Any, text_field: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get(text_field), str)


_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _spelled_out(found: re.Match[str]) -> str:
    if "\\u" not in found[0]:
        return found[0]
    return json.dumps(json.loads(found[0], strict=False), ensure_ascii=False)


_SEP_LINE: Final = re.compile(r'"?sep=(.)"?[ \t]*\n', re.IGNORECASE)
"""A first line by which Excel names the delimiter."""


def read_table(data: bytes, encoding: str | None) -> Section:
    """The unchanged lines, to be cut between records; the first line is the header.

    Raises:
        UnreadableError: If it is not a table.
    """
    text = decode(data, encoding)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:65_536], ",;\t|")
        delimiter = dialect.delimiter
    except csv.Error:
        delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    lines = re.findall(r"[^\n]*\n|[^\n]+\Z", text)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    named = _SEP_LINE.match(text)
    if named:
        delimiter = named[1]
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        ends = [starts[reader.line_num] for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        reason = "not a table"
        raise UnreadableError(reason, f"line {reader.line_num}: {error}") from error
    if named:
        del ends[0]  # it stays with the header
    heads = ((0, ends[0], len(text)),) if len(ends) > 1 else ()
    return Section(text, len(data), (Block(0, cuts=tuple(ends[:-1]), heads=heads),))


def _no_field_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"the field {twice!r:.80} occurs twice in an object"
        raise ValueError(msg)
    return fields


def _no_number(name: str) -> float:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _finite(digits: str) -> float:
    if not math.isfinite(float(digits)):
        msg = f"the number {digits[:24]} is out of range"
        raise ValueError(msg)
    return float(digits)


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        msg = f"the number {digits[:24]} does not fit into 64 bits"
        raise ValueError(msg)
    return int(digits)
