"""How Milvus's full-text search (BM25) splits a text into words."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from qwen3_core.common.validation import got

logger = logging.getLogger(__name__)

SERVER: Final[dict[str, dict[str, Any]]] = {
    "standard": {"tokenizer": "standard", "filter": ["lowercase"]},
    "english": {"type": "english"},
    "chinese": {"type": "chinese"},
    "jieba": {"tokenizer": "jieba", "filter": ["lowercase", "cnalphanumonly"]},
    "icu": {"tokenizer": "icu", "filter": ["lowercase", "removepunct"]},
}
"""Analyzers by name for servers of 2.5 or later ("icu": 2.5.11 or later; Milvus documentation,
"Analyzer Overview")."""

LITE: Final[dict[str, dict[str, Any]]] = {
    "standard": {"tokenizer": "standard"},
    "chinese": {"tokenizer": "jieba"},
    "jieba": {"tokenizer": "jieba"},
}
"""Analyzers by name for Milvus Lite 3.2, which has two; both convert to lower case."""

_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""A character of Thai, Lao, Burmese, Khmer, kana, Han or Hangul: spaces do not separate words."""


def analyzer_params(analyzer: str | Mapping[str, Any] | None, *, lite: bool) -> Any:
    """Milvus's `analyzer_params` of an analyzer.

    Args:
        analyzer: A name from `SERVER` (from `LITE` for Milvus Lite), or a dictionary of
            `analyzer_params`. None is Milvus's default, "standard".
        lite: Whether it is for Milvus Lite.

    Returns:
        A dictionary, or None.

    Raises:
        TypeError: If it is neither a name nor a dictionary.
        ValueError: If Milvus has no such analyzer, or Milvus Lite would ignore a part of it.
        ImportError: If Milvus Lite needs the missing package jieba for it.
    """
    known = LITE if lite else SERVER
    if analyzer is None:
        return None
    if isinstance(analyzer, str):
        if analyzer not in known:
            elsewhere = ": use a server" if lite and analyzer in SERVER else ""
            msg = (
                f"{'Milvus Lite' if lite else 'Milvus'} has no analyzer {analyzer!r} "
                f"({', '.join(known)}){elsewhere}; or give analyzer_params as a dictionary"
            )
            raise ValueError(msg)
        params: dict[str, Any] = known[analyzer]
    elif isinstance(analyzer, Mapping):
        params = dict(analyzer)
    else:
        msg = f"analyzer must be a name such as 'chinese', or a dictionary, {got(analyzer)}"
        raise TypeError(msg)
    if lite:
        _check_lite(params)
    return params


def _check_lite(params: dict[str, Any]) -> None:
    """Refuse parameters that Milvus Lite does not know or silently ignores."""
    from milvus_lite.analyzer import create_analyzer
    from milvus_lite.exceptions import SchemaValidationError

    more = sorted(params.keys() - {"tokenizer", "type", "filter"})
    filters = params.get("filter") or []
    for item in filters if isinstance(filters, list) else [filters]:
        is_stop = isinstance(item, dict) and item.get("type") == "stop"
        if item != "lowercase" and not (is_stop and isinstance(item.get("stop_words"), list)):
            more.append(f"filter {item!r}")
    if more:
        msg = (
            f"Milvus Lite ignores {', '.join(more)} of analyzer={params!r}: leave it out, or use a "
            "server. It knows 'tokenizer', and as 'filter' stop words"
        )
        raise ValueError(msg)
    try:
        create_analyzer(params)
    except SchemaValidationError as error:
        msg = f"Milvus Lite does not take analyzer={params!r}: {error}; use a server"
        raise ValueError(msg) from error
    except ImportError as error:
        msg = (
            f"analyzer={params!r} needs the package jieba on Milvus Lite: pip install "
            '"jieba>=0.42,<1"'
        )
        raise ImportError(msg) from error


def analyzer_of(text_field: Mapping[str, Any]) -> Any:
    """The `analyzer_params` of a field from `describe_collection`; None if it has none."""
    kept = text_field.get("params", {}).get("analyzer_params")
    try:
        return json.loads(kept) if isinstance(kept, str) else kept
    except ValueError:
        return kept


def splits_at_spaces(params: Any) -> bool:
    """Whether an analyzer splits words at spaces."""
    if not isinstance(params, Mapping):
        return params is None
    tokenizer = params.get("tokenizer") or params.get("type", "standard")
    if isinstance(tokenizer, Mapping):
        tokenizer = tokenizer.get("type", "standard")
    return tokenizer in ("standard", "whitespace", "english")


def warn_of_unspaced(texts: Iterable[str], collection_name: str, *, lite: bool) -> bool:
    """Log a warning if a text has no spaces between words; "standard" finds no words in it.

    Returns:
        Whether there was such a text.
    """
    if not any(_UNSPACED.search(text) for text in texts):
        return False
    better = "'jieba'" if lite else "'chinese', or 'icu' for several languages"
    logger.warning(
        "full-text search in collection %r splits texts at spaces, so it finds no words within "
        "Chinese, Japanese, Korean or Thai text (the vectors do): make the collection anew with "
        "analyzer=%s",
        collection_name,
        better,
    )
    return True
