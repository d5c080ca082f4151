"""Reads lines, JSON objects and table rows of a file; every error names file and line."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from qwen3_retrieval.documents.encoding import decode
from qwen3_retrieval.documents.records import parse_json
from qwen3_retrieval.documents.text import UnreadableError
from qwen3_retrieval.evaluation.dataset import DatasetError


def fail(path: Path, line: int, reason: str) -> NoReturn:
    """Raise a DatasetError that names the place."""
    msg = f"{path}, line {line}: {reason}"
    raise DatasetError(msg)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line, including its line end.

    Raises:
        OSError: If the file cannot be read.
        DatasetError: If a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            if data.startswith((b"\xff\xfe", b"\xfe\xff")):
                fail(path, number, "it is UTF-16: save it as UTF-8")
            try:
                yield number, decode(data)
            except UnreadableError as error:
                fail(path, number, str(error))


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and object of each non-blank line of JSON lines.

    Raises:
        OSError: If the file cannot be read.
        DatasetError: If a line is not a JSON object.
    """
    for number, text in read_lines(path):
        if not text.strip():
            continue
        try:
            value = parse_json(text)
        except ValueError as error:
            fail(path, number, str(error))
        if not isinstance(value, dict):
            fail(path, number, f"a JSON {type(value).__name__}, not an object")
        yield number, value


def read_table(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number (the last, if a cell has several lines) and the row by column name.

    Raises:
        OSError: If the file cannot be read.
        DatasetError: If there is no header, or a row has more or fewer cells than it.
    """
    rows = csv.reader((text for _, text in read_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [cell.strip() for cell in row]
                continue
            if len(row) != len(header):
                fail(
                    path,
                    rows.line_num,
                    f"{len(row)} cells where the header {header} has {len(header)}",
                )
            yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        fail(path, rows.line_num, f"not a table: {error}")
    if not header:
        fail(path, 1, "there is no header line")


def text_of(record: dict[str, Any], name: str, path: Path, line: int) -> str:
    """A record's text in this field.

    Raises:
        DatasetError: If it is missing, not a string, blank, or contains a lone surrogate.
    """
    if name not in record:
        fail(path, line, f"no {name!r}; there are {', '.join(map(repr, record)) or 'no fields'}")
    value = record[name]
    if not isinstance(value, str):
        fail(path, line, f"{name!r} is a {type(value).__name__}, not a string")
    if not value.strip():
        fail(path, line, f"{name!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        fail(path, line, f"{name!r} spells a lone surrogate, which is no character")
    return value
