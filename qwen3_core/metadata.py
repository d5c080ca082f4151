"""Chosen metadata before a document's text, as the embedder and the reranker read it.

The format is LlamaIndex's default (`DEFAULT_METADATA_TMPL` and `DEFAULT_TEXT_NODE_TMPL` in
`llama_index.core.schema`), so both frameworks' models read the same text.
"""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from qwen3_core.common.validation import ArgumentError


def check_metadata_keys(keys: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return metadata keys as a tuple; None stays None.

    Raises:
        TypeError: If it is a single string, not iterable, or contains a non-string.
        ValueError: If a key is blank or repeated.
    """
    if keys is None:
        return None
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        msg = f"metadata_keys must be a list of keys, such as ['title'], got {keys!r:.80}"
        raise TypeError(msg)
    found: list[str] = []
    for key in keys:
        if not isinstance(key, str):
            msg = f"metadata_keys holds {key!r:.80} of type {type(key).__name__}: a key is a string"
            raise TypeError(msg)
        if not key.strip():
            msg = f"metadata_keys holds the blank key {key!r:.80}: name a key of the metadata"
            raise ArgumentError(msg, "metadata_keys")
        if key in found:
            msg = f"metadata_keys holds {key!r:.80} twice: name each key once"
            raise ArgumentError(msg, "metadata_keys")
        found.append(key)
    return tuple(found)


def metadata_header(metadata: Mapping[str, Any] | None, keys: Iterable[str]) -> str:
    """Chosen metadata, one "key: value" per line, in the order of `keys`.

    Args:
        metadata: A document's metadata.
        keys: Keys to include. A key that is missing, None or a blank string is left out.

    Returns:
        The lines; "" if there are none.

    Raises:
        ValueError: If a value is neither a string, a number nor a bool.
    """
    lines = []
    for key in keys:
        value = (metadata or {}).get(key)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if not isinstance(value, (str, Real)):
            msg = (
                f"metadata {key!r} is a {type(value).__name__}, {value!r:.60}, which no model can "
                "read: store it as a string, or leave the key out of metadata_keys"
            )
            raise ValueError(msg)
        lines.append(f"{key}: {value}")
    return "\n".join(lines)


def with_header(header: str, text: str) -> str:
    """A document's text after the result of `metadata_header` and a blank line."""
    return f"{header}\n\n{text}" if header else text


def with_metadata(text: str, metadata: Mapping[str, Any] | None, keys: Iterable[str]) -> str:
    """A document's text after chosen metadata; arguments and errors as in `metadata_header`."""
    return with_header(metadata_header(metadata, keys), text)
