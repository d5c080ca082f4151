"""Argument checks, with errors that name the value and the fix."""

from collections.abc import Iterable
from typing import TypeGuard

MIN_DIMENSIONS = 32
"""Smallest Matryoshka dimension that the models were trained for (model cards: "32 to full")."""


class ArgumentError(ValueError):
    """An argument is out of range, or does not fit the model, the server or the collection."""

    parameter: str
    """The argument's name, from which a command tells its option."""

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class QueryError(ValueError):
    """A query is blank, or contains characters that no tokenizer can read.

    The end user's input is at fault; a web application should answer with a 4xx status.
    """


def check_text(text: object, what: str) -> str:
    """Return `text` if it is a string that can be encoded as UTF-8.

    Args:
        text: The value to check.
        what: Its name in error messages, such as `documents[3]`.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it contains a lone surrogate, which no tokenizer can read.
    """
    if not isinstance(text, str):
        msg = f"{what} must be a string, got {type(text).__name__}: {text!r:.80}"
        raise TypeError(msg)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            msg = (
                f"{what} holds a lone surrogate, {text[error.start]!r}, at position {error.start}: "
                "repair the text first, e.g. text.encode('utf-8', 'replace').decode()"
            )
            raise ValueError(msg) from None
    return text


def check_iterable(texts: object, what: str) -> None:
    """Raise TypeError if `texts` is a single string (which is iterable too) or not iterable."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        msg = f"{what} must be a list of strings, got {type(texts).__name__}: {texts!r:.80}"
        raise TypeError(msg)


def check_texts(texts: Iterable[str], what: str) -> list[str]:
    """Return the texts as a list, each checked by `check_text`.

    Raises:
        TypeError: If `texts` is a single string, not iterable, or contains a non-string.
        ValueError: If a text contains a lone surrogate.
    """
    check_iterable(texts, what)
    return [check_text(text, f"{what}[{i}]") for i, text in enumerate(texts)]


def check_query(query: object) -> str:
    """Return `query` if it is a string that is not blank.

    Raises:
        TypeError: If it is not a string.
        QueryError: If it is blank (its results would be arbitrary) or contains a lone surrogate.
    """
    try:
        text = check_text(query, "query")
    except ValueError as error:
        raise QueryError(str(error)) from None
    if not text.strip():
        msg = f"query is blank ({text!r:.20}): there is nothing to search for"
        raise QueryError(msg)
    return text


def check_order(documents: object, query: object) -> None:
    """Refuse query and documents in swapped positions.

    Raises:
        TypeError: If they are swapped; it gives the right order.
    """
    if isinstance(documents, str) and not isinstance(query, str):
        msg = (
            f"documents come first, then the query, but documents is a string, {documents!r:.80}, "
            f"and query of type {type(query).__name__}: pass (documents, query), or both by name"
        )
        raise TypeError(msg)


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether a value is an integer of at least `least`; bools are refused."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number; bools are refused."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def got(value: object, kind: type[int] | type[float] = int) -> str:
    """The end of an error about a refused number; names the type if the type is the reason.

    Args:
        value: The refused value.
        kind: The accepted type: int, or float for any number.
    """
    fits = is_number(value) and isinstance(value, (int, kind))
    wanted = "an int" if kind is int else "a number"
    hint = "" if fits else f" (of type {type(value).__name__}: pass {wanted})"
    return f"got {value!r:.80}{hint}"


def check_top_n(top_n: int | None, name: str = "top_n") -> int | None:
    """Return `top_n` if it is None (all) or an integer of at least 1.

    Raises:
        ValueError: If it is anything else.
    """
    if top_n is not None and not is_count(top_n):
        msg = f"{name} must be at least 1, or None for all, but {got(top_n)}"
        raise ArgumentError(msg, name)
    return top_n


def check_dimensions(dimensions: int | None, full: int | None = None) -> int | None:
    """Return `dimensions` if it is None (full) or in range.

    Args:
        dimensions: The requested length of the vectors.
        full: The model's own length; None if it is not known yet.

    Raises:
        ValueError: If it is not an integer from 32 to `full`.
    """
    if dimensions is None:
        return None
    if not is_count(dimensions, MIN_DIMENSIONS) or (full is not None and dimensions > full):
        upper = "the model's full length" if full is None else str(full)
        msg = f"dimensions must be an integer from {MIN_DIMENSIONS} to {upper}, {got(dimensions)}"
        raise ArgumentError(msg, "dimensions")
    return dimensions


def check_threshold(score_threshold: float | None) -> float | None:
    """Return the threshold if it is None or a number from 0 to 1.

    Raises:
        ValueError: If it is anything else.
    """
    if score_threshold is None:
        return None
    if not is_number(score_threshold) or not 0 <= score_threshold <= 1:
        msg = f"score_threshold must be None or a number from 0 to 1, {got(score_threshold, float)}"
        raise ArgumentError(msg, "score_threshold")
    return score_threshold
