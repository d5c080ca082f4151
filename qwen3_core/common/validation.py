"""Checks of what callers hand in, with errors that name the value and the fix."""

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, Final, ParamSpec, TypeGuard, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MIN_DIMENSIONS = 32
"""Smallest Matryoshka dimension the models were trained for (model cards: "32 to full")."""


def check_text(text: object, what: str) -> str:
    """Return `text` if it is a string that can be encoded as UTF-8.

    Args:
        text: The value to check.
        what: How to name it in an error, e.g. `documents[3]`.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it holds a lone surrogate, which no tokenizer can read.
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


def check_texts(texts: Iterable[str], what: str) -> list[str]:
    """Return the texts as a list, each checked by `check_text`.

    Raises:
        TypeError: If `texts` is a single string, not iterable, or holds anything but strings.
        ValueError: If a text holds a lone surrogate.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        msg = f"{what} must be a list of strings, got {type(texts).__name__}: {texts!r:.80}"
        raise TypeError(msg)
    return [check_text(text, f"{what}[{i}]") for i, text in enumerate(texts)]


def check_query(query: object) -> str:
    """Return a query that is a string with something in it.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is blank (it would retrieve at random) or holds a lone surrogate.
    """
    text = check_text(query, "query")
    if not text.strip():
        msg = f"query is blank ({text!r:.20}): there is nothing to search for"
        raise ValueError(msg)
    return text


def check_order(documents: object, query: object) -> None:
    """Refuse a query in the documents' place and documents in the query's.

    Raises:
        TypeError: That gives the order.
    """
    if isinstance(documents, str) and not isinstance(query, str):
        msg = (
            f"documents come first, then the query, but documents is a string, {documents!r:.80}, "
            f"and query of type {type(query).__name__}: pass (documents, query), or both by name"
        )
        raise TypeError(msg)


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether a value is an integer (a bool is none) of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number (a bool is none)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def got(value: object, kind: type[int] | type[float] = int) -> str:
    """The end of an error about a number that is refused; its type is named if that is the reason.

    Args:
        value: What was given.
        kind: int, or float for any number.
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
        raise ValueError(msg)
    return top_n


def check_dimensions(dimensions: int | None, full: int | None = None) -> int | None:
    """Return `dimensions` if it is None (full) or in range.

    Args:
        dimensions: Length of the vectors asked for.
        full: The model's own length, if known already.

    Raises:
        ValueError: If it is not an integer from 32 to `full`.
    """
    if dimensions is None:
        return None
    if not is_count(dimensions, MIN_DIMENSIONS) or (full is not None and dimensions > full):
        upper = "the model's full length" if full is None else str(full)
        msg = f"dimensions must be an integer from {MIN_DIMENSIONS} to {upper}, {got(dimensions)}"
        raise ValueError(msg)
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
        raise ValueError(msg)
    return score_threshold


FRAMEWORKS: Final = {"langchain": "LangChain", "llama_index": "LlamaIndex"}
"""How the names of packages begin, and whose they are."""


def misplaced(
    name: str,
    value: object,
    kind: type | tuple[type, ...],
    wanted: str,
    hints: Mapping[Any, str] | None = None,
) -> str | None:
    """What to say of something that is no component of the kind that an argument takes.

    Args:
        name: The argument's.
        value: What was given; never shown, since it may be a key.
        kind: The right class, or classes.
        wanted: How to call the right kind, such as "a Qwen3Reranker".
        hints: By class of a mistake, what to do instead.

    Returns:
        None if it is of the right kind.
    """
    if isinstance(value, kind):
        return None
    hint = next((hint for other, hint in (hints or {}).items() if isinstance(value, other)), "")
    given = type(value)
    if isinstance(value, type):
        given, hint = value, f"the class itself: write {value.__name__}(...)"
    theirs = _framework(given)
    ours = _framework(kind if isinstance(kind, type) else kind[0])
    if theirs and theirs != ours:
        hint = f"of {theirs}, but this is for {ours}"
    return f"{name}= takes {wanted}; got {given.__name__}{f' ({hint})' if hint else ''}"


def _framework(kind: type) -> str:
    """The framework whose class this is, or is derived from; "" for none."""
    for base in kind.__mro__:
        for prefix, framework in FRAMEWORKS.items():
            if base.__module__.startswith(prefix):
                return framework
    return ""


OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "model_name": ("model",),
    "model_name_or_path": ("model",),
    "model_id": ("model",),
    "url": ("base_url", "uri"),
    "api_base": ("base_url",),
    "openai_api_base": ("base_url",),
    "openai_api_key": ("api_key",),
    "api_key": ("token",),
    "top_k": ("k",),
    "topk": ("k", "top_k"),
    "limit": ("k",),
    "n_results": ("k",),
    "threshold": ("score_threshold",),
    "similarity_top_k": ("k", "top_k"),
    "k": ("top_k",),
    "node_postprocessors": ("reranker",),
    "embedding": ("embeddings", "embed_model"),
    "embedding_function": ("embeddings", "embed_model"),
    "embed_model": ("embeddings",),
    "embeddings": ("embed_model",),
    "collection": ("collection_name",),
    "metric_type": ("metric",),
    "similarity_metric": ("metric",),
    "index": ("index_type",),
    "enable_sparse": ("hybrid",),
    "overwrite": ("drop_old",),
    "drop_old": ("overwrite",),
}
"""What other components call an argument, and what ours do: the first name that there is."""


def suggest(given: object, fields: Mapping[str, Any]) -> None:
    """Raise for an unknown argument if it is clear which one is meant.

    Args:
        given: Arguments by name; anything else is left alone.
        fields: A pydantic model's.

    Raises:
        ValueError: That names both.
    """
    if not isinstance(given, Mapping):
        return
    known = {*fields, *(field.alias for field in fields.values() if field.alias)}
    if hint := suggestion(given, known):
        raise ValueError(hint)


def suggests(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function's TypeError for an unknown argument name the one that is meant."""
    known = signature(function).parameters

    @wraps(function)
    def suggesting(*args: P.args, **kwargs: P.kwargs) -> T:
        if hint := suggestion(kwargs, known):
            msg = f"{function.__name__}: {hint}"
            raise TypeError(msg)
        return function(*args, **kwargs)

    return suggesting


def suggestion(given: Iterable[object], known: Collection[str]) -> str | None:
    """What to say of the first unknown name of which it is clear what is meant.

    Args:
        given: Names of arguments; what is no string is left alone.
        known: Names that there are.

    Returns:
        None if it is clear of none.
    """
    for name in given:
        if not isinstance(name, str) or name in known:
            continue
        ours = [other for other in OTHER_NAMES.get(name, ()) if other in known]
        # 0.8, because other names of arguments come up to 0.75: "threshold", "score_threshold".
        close = get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.8)
        if ours or close:
            return f"unknown argument {name!r}: did you mean {(ours or close)[0]}?"
    return None
