"""Reads what servers answer: whatever they send becomes what was asked for, or a ValueError."""

from typing import Any

import numpy as np

from qwen3_core.common.validation import is_count


def in_order(entries: Any, count: int) -> list[dict[str, Any]]:
    """The entries in the order of the request, by their "index", whatever order they have.

    Raises:
        ValueError: If they are no list of objects with the indices from 0 to `count - 1`, each
            once.
    """
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        msg = f"no list of results but {entries!r:.80}"
        raise ValueError(msg)
    found = {entry.get("index"): entry for entry in entries if is_count(entry.get("index"), 0)}
    if len(entries) != count or sorted(found) != list(range(count)):
        indices = [entry.get("index") for entry in entries]
        msg = f"{len(entries)} results with the indices {indices!r:.80}"
        raise ValueError(msg)
    return [found[i] for i in range(count)]


def numbers(values: Any, dimensions: int) -> np.ndarray:
    """Values as a float64 array of so many dimensions; null, JSON's stand-in for NaN, is NaN.

    Raises:
        ValueError: If they are something else.
    """
    try:
        array = np.array(values, dtype=np.float64)  # ValueError if lengths differ
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if array.ndim != dimensions:
        msg = f"numbers of shape {array.shape}"
        raise ValueError(msg)
    return array


def tokens_read(reply: Any) -> int | None:
    """How many tokens a server says that it read, if it does."""
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return None
    said = usage.get("prompt_tokens") or usage.get("total_tokens")
    return said if is_count(said) else None
