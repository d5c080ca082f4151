"""Parses servers' answers: returns the expected data or raises ValueError."""

from typing import Any

import numpy as np

from qwen3_core.common.validation import is_count


def in_order(entries: Any, count: int) -> list[dict[str, Any]]:
    """Sort entries by their "index" into the order of the request.

    Raises:
        ValueError: If they are not a list of objects with each index from 0 to `count - 1` once.
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
    """Values as a float64 array of `dimensions` axes; null, JSON's stand-in for NaN, becomes NaN.

    Raises:
        ValueError: If they are anything else.
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
    """The number of tokens that a server says it read; None if it does not say."""
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return None
    said = usage.get("prompt_tokens") or usage.get("total_tokens")
    return said if is_count(said) else None
