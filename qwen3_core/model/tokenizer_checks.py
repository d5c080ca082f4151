"""Reads a checkpoint's tokenizer, and refuses one that does not fit the model."""

import json
from pathlib import Path
from typing import Any

from qwen3_core.model.description import TOKENIZER, Description
from qwen3_core.model.source import PUBLISHED, in_short
from qwen3_core.prompts import END_OF_TEXT
from qwen3_core.settings import ModelKind
from qwen3_core.tokenizer import Qwen3Tokenizer

_TAKEN_WHOLE = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that use a tokenizer.json as it is."""


def read_tokenizer(path: Path | None, name: str, kind: ModelKind) -> Qwen3Tokenizer:
    """Read a tokenizer.json.

    Args:
        path: The file; None if the checkpoint has none.
        name: The checkpoint as the user named it.
        kind: A reranker's tokenizer has to have the control tokens of the prompt.

    Raises:
        OSError: If the file is missing or is not JSON.
        ValueError: If it is not a Qwen3 retrieval model's tokenizer.
    """
    if path is None:
        # Offline, the hub's client does not distinguish uncached files from missing ones.
        what = "" if Path(name).expanduser().is_dir() else ", or cannot be reached"
        msg = f"{name!r} has no tokenizer.json{what}"
        raise OSError(msg)
    try:
        tokenizer = Qwen3Tokenizer(path.read_text(encoding="utf-8"))
        if kind == "reranker":
            _ = tokenizer.rerank_suffix
        return tokenizer
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not valid JSON ({error}): download it again"
        raise OSError(msg) from error
    except Exception as error:  # the tokenizers library raises plain Exception
        if isinstance(error, ValueError):
            raise
        msg = f"{path} is not a Qwen3 model's tokenizer ({in_short(error)}): download it again"
        raise ValueError(msg) from error


def check_end_of_text(name: str, kind: ModelKind, tokenizer: Qwen3Tokenizer) -> None:
    """Raise ValueError if an embedding model's tokenizer puts other tokens around texts."""
    before, after = tokenizer.around
    if kind == "embedding" and (before, after) != ((), (END_OF_TEXT,)):
        first = f"puts {before} before a text and " if before else ""
        msg = (
            f"the tokenizer of {name!r} {first}appends {after or 'nothing'} to a text; "
            f"an embedding model's tokenizer must append {END_OF_TEXT} exactly once "
            "(post_processor in its tokenizer.json): use a Qwen3 embedding model such as "
            f"{PUBLISHED[kind]!r}"
        )
        raise ValueError(msg)


def check_tokenizer_config(name: str, known: Description, tokenizer: Qwen3Tokenizer) -> None:
    """Raise ValueError if tokenizer_config.json contradicts tokenizer.json."""
    settings = known.json(TOKENIZER) or {}
    given = settings.get("tokenizer_class")
    if tokenizer.own_parts and given not in _TAKEN_WHOLE:
        msg = (
            f"the tokenizer of {name!r} contradicts itself: its tokenizer.json has another "
            f"{' and '.join(tokenizer.own_parts)} than Qwen3's, which transformers 5 does not read "
            f"for the tokenizer_class {given!r} (tokenizer_config.json): write "
            "'PreTrainedTokenizerFast' there if tokenizer.json is right"
        )
        raise ValueError(msg)
    special = settings | (known.json("special_tokens_map.json") or {})
    for key, token in special.items():
        content = token.get("content") if isinstance(token, dict) else token
        if key.endswith("_token") and tokenizer.is_ordinary(content):
            msg = (
                f"the tokenizer of {name!r} makes the ordinary token {content!r} a special one "
                f"({key} in tokenizer_config.json or special_tokens_map.json), which is not "
                f"supported: name a control token such as {END_OF_TEXT} there"
            )
            raise ValueError(msg)
    decoder = settings.get("added_tokens_decoder") or {}
    said = {
        str(token.get("content") if isinstance(token, dict) else token): int(number)
        for number, token in decoder.items()
    }
    needed = tokenizer.words if said and given not in _TAKEN_WHOLE else ()
    for content in (*said, *needed):
        ids = said.get(content), tokenizer.added_tokens.get(content)
        if ids[0] != ids[1]:
            here, there = ("no added token" if n is None else f"token {n}" for n in ids)
            msg = (
                f"the tokenizer of {name!r} contradicts itself: {content!r} is {here} in "
                f"added_tokens_decoder of tokenizer_config.json, and {there} in tokenizer.json: "
                "load it with transformers and save it anew"
            )
            raise ValueError(msg)


def check_fit(name: str, config: Any, tokenizer: Qwen3Tokenizer) -> None:
    """Raise ValueError if the tokenizer exceeds the vocabulary, or the model has no positions."""
    if tokenizer.size > config.vocab_size:
        msg = (
            f"the tokenizer of {name!r} has token ids up to {tokenizer.size - 1}, but the model's "
            f"vocab_size is {config.vocab_size}: tokenizer.json belongs to another model"
        )
        raise ValueError(msg)
    if config.max_position_embeddings < 1:
        msg = (
            f"{name!r} has max_position_embeddings={config.max_position_embeddings} in its "
            "config.json, so it cannot encode any text: download it again"
        )
        raise ValueError(msg)
