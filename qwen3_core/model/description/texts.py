"""How texts are prepared: settings of the Transformer module and the tokenizer; the token limit."""

from typing import Any

from qwen3_core.common.validation import is_count
from qwen3_core.model.description.checkpoint import (
    CORRECT,
    ELSEWHERE,
    TOKENIZER,
    TRANSFORMER,
    UNSUPPORTED,
    Checkpoint,
)
from qwen3_core.model.description.modules import Module

_OLD_TRANSFORMERS = tuple(
    f"sentence_{name}_config.json"
    for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Older names of `TRANSFORMER`, which sentence-transformers still reads."""

_KWARGS = tuple(
    f"{what}_{how}"
    for what in ("model", "config", "processor", "tokenizer")
    for how in ("kwargs", "args")
)
"""Settings of the Transformer module that sentence-transformers passes to transformers."""

_HARMLESS = {
    *("attn_implementation", "cache_dir", "device_map", "dtype", "local_files_only"),
    *("low_cpu_mem_usage", "padding_side", "token", "torch_dtype", "trust_remote_code"),
    *("use_cache", "use_fast", "use_safetensors"),
}
"""Arguments of transformers that do not change results."""

_TRANSFORMER_KEYS = {
    *("max_seq_length", "unpad_inputs", "transformer_task", "modality_config"),
    *("module_output_name", *_KWARGS),
}
"""Settings of the Transformer module that are applied, or checked one by one."""

_TASKS = {
    "embedding": (("feature-extraction",), "last_hidden_state", ("token_embeddings",)),
    "reranker": (
        ("text-generation", "sequence-classification"),
        "logits",
        ("causal_logits", "scores"),
    ),
}
"""For each kind: tasks, transformers' output and names of it in the Transformer module."""


def max_length_of(checkpoint: Checkpoint) -> int | None:
    """The checkpoint's own token limit; also checks how its texts are prepared."""
    file, config = transformer_of(checkpoint)
    _check_transformer(checkpoint, file, config)
    tokenizer = checkpoint.json(TOKENIZER) or {}
    for key, plain in (("truncation_side", "right"), ("add_prefix_space", False)):
        if (found := tokenizer.get(key) or plain) != plain:
            checkpoint.refuse(
                f"prepares texts with {key}={found!r} ({TOKENIZER}), {UNSUPPORTED}",
                ELSEWHERE,
            )
    own = config.get("processor_kwargs") or config.get("tokenizer_args") or {}
    said = {
        f"model_max_length in {file}": own.get("model_max_length"),
        f"max_seq_length in {file}": config.get("max_seq_length"),
        f"model_max_length in {TOKENIZER}": tokenizer.get("model_max_length"),
        f"max_len in {TOKENIZER}": tokenizer.get("max_len"),
    }
    where, limit = next(((k, v) for k, v in said.items() if v is not None), ("", None))
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        checkpoint.refuse(f"has an invalid token limit, {limit!r} ({where})", CORRECT)
    positions = checkpoint.config.get("max_position_embeddings")
    return None if not is_count(positions) or limit >= positions else int(limit)


def transformer_of(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """The settings of sentence-transformers' Transformer module, and the name of their file."""
    for file in (TRANSFORMER, *_OLD_TRANSFORMERS):
        if found := checkpoint.json(file):
            return file, found
    return TRANSFORMER, {}


def _check_transformer(checkpoint: Checkpoint, file: str, config: dict[str, Any]) -> None:
    """Refuse settings of the Transformer module that would change results."""
    for key, value in config.items():
        used = any(value.values()) if isinstance(value, dict) else value
        if key not in _TRANSFORMER_KEYS and used:
            checkpoint.refuse(
                f"prepares texts with {key}={value!r} ({file}), {UNSUPPORTED}", ELSEWHERE
            )
    for name in _KWARGS:
        given = config.get(name) or {}
        if not isinstance(given, dict):
            checkpoint.refuse(f"has {name}={given!r} in {file}, which is not an object", CORRECT)
        for key, value in given.items():
            if key not in _HARMLESS and key != "model_max_length":
                checkpoint.refuse(
                    f"passes {key}={value!r} to transformers ({name} in {file}), {UNSUPPORTED}",
                    ELSEWHERE,
                )
    task, outputs, output = _TASKS[checkpoint.kind]
    if (found := config.get("transformer_task") or task[0]) not in task:
        checkpoint.refuse(f"has the transformer_task {found!r} ({file})", checkpoint.advice)
    if modalities := config.get("modality_config"):
        text = modalities.get("text") if isinstance(modalities, dict) else None
        plain = {"method": "forward", "method_output_name": outputs}
        if not isinstance(text, dict) or text | plain != text:
            checkpoint.refuse(
                f"has modality_config['text'] = {text!r} in {file}; only {plain} is supported",
                ELSEWHERE,
            )
        if (found := config.get("module_output_name")) not in output:
            checkpoint.refuse(
                f"has module_output_name={found!r} in {file}; only {output[0]!r} is supported",
                ELSEWHERE,
            )


def check_modality(checkpoint: Checkpoint, modules: list[Module]) -> None:
    """Refuse an embedding model whose texts sentence-transformers renders as chat messages."""
    modalities = transformer_of(checkpoint)[1].get("modality_config") or {}
    if modules and "message" in modalities and checkpoint.template() is not None:
        checkpoint.refuse(
            f"renders texts through its chat template ({TRANSFORMER}: modality_config has "
            "'message'), which is not supported",
            "run it with sentence-transformers, or delete 'message' there if the model was "
            "trained on plain texts",
        )
