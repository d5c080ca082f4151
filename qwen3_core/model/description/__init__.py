"""Reads a checkpoint's own settings from its small files, before any weights are loaded.

`describe` is the entry. Every setting that changes results is in the `Description`, or the
checkpoint is refused. The reference for sentence-transformers folders is that library (6.2):
`encode_query`, `encode_document`, `CrossEncoder.predict`.
"""

from qwen3_core.common.validation import is_count
from qwen3_core.model.description.architecture import architecture_of
from qwen3_core.model.description.checkpoint import (
    PROMPTS,
    TOKENIZER,
    TOKENIZER_JSON,
    Checkpoint,
    open_checkpoint,
    places,
)
from qwen3_core.model.description.head import check_activation, head_of, trained_labels
from qwen3_core.model.description.modules import modules_of
from qwen3_core.model.description.prompts import instruction_of, prompts_of
from qwen3_core.model.description.result import Dense, Description, Head
from qwen3_core.model.description.texts import check_modality, max_length_of
from qwen3_core.model.description.vectors import after_pooling, check_similarity, truncation_of
from qwen3_core.model.source import Source, sentence, what_to_give
from qwen3_core.settings import ModelKind

__all__ = [
    "TOKENIZER",
    "Dense",
    "Description",
    "Head",
    "describe",
    "tokenizer_source",
    "trained_labels",
]


def describe(name: str, kind: ModelKind, revision: str | None = None) -> Description:
    """Read a checkpoint's own settings.

    Args:
        name: Hub name, local folder, or "tiny" for the bundled pair.
        kind: Its intended use.
        revision: Branch, tag or commit on the hub.

    Raises:
        OSError: If a file cannot be found, downloaded or read.
        ValueError: If the checkpoint is not supported; names the file, the value and the fix.
    """
    try:
        return _describe(open_checkpoint(name, kind, revision))
    except (AttributeError, LookupError, TypeError) as error:
        msg = (
            f"a setting of the {kind} model {name!r} has an unexpected form "
            f"({type(error).__name__}: {error}): download it again"
        )
        raise ValueError(msg) from error
    except OSError as error:
        msg = f"could not load the {kind} model {name!r}: {sentence(error)}\n{what_to_give(kind)}"
        raise OSError(msg) from error


def tokenizer_source(name: str, kind: ModelKind, revision: str | None = None) -> Source:
    """The source of a checkpoint's tokenizer; arguments and errors as in `describe`."""
    adapter, base, _ = places(name, kind, revision)
    return adapter if adapter is not None and adapter.path(TOKENIZER_JSON) else base


def _describe(checkpoint: Checkpoint) -> Description:
    architecture = architecture_of(checkpoint)
    hidden_size = checkpoint.config.get("hidden_size")
    if not is_count(hidden_size):
        checkpoint.refuse(
            f"has no valid hidden_size in config.json (got {hidden_size!r})", checkpoint.advice
        )
    modules = modules_of(checkpoint)
    settings = checkpoint.json(PROMPTS) or {}
    max_length = max_length_of(checkpoint)
    wanted = {"embedding": "SentenceTransformer", "reranker": "CrossEncoder"}[checkpoint.kind]
    if (model_type := settings.get("model_type", wanted)) != wanted:
        checkpoint.refuse(f"is a {model_type} according to its {PROMPTS}", checkpoint.advice)
    named = (checkpoint.name, checkpoint.kind, checkpoint.base, checkpoint.adapter)
    if checkpoint.kind == "reranker":
        head = head_of(checkpoint, architecture, modules)
        check_activation(checkpoint, settings)
        return Description(
            *named,
            *(hidden_size, hidden_size, hidden_size),
            instruction=instruction_of(checkpoint, settings, modules),
            head=head,
            max_length=max_length,
        )
    check_modality(checkpoint, modules)
    after = after_pooling(checkpoint, modules, hidden_size)
    check_similarity(checkpoint, settings, modules, after)
    query, document = prompts_of(checkpoint, settings)
    dense = [step for step in after if isinstance(step, Dense)]
    full = dense[-1].out_features if dense else hidden_size
    return Description(
        *named,
        hidden_size,
        full,
        min(full, truncation_of(checkpoint, settings) or full),
        # Without Dense modules, the final normalisation is enough.
        after_pooling=after if dense else (),
        query_prompt=query,
        document_prompt=document,
        max_length=max_length,
    )
