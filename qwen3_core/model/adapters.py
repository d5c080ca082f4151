"""Merges an adapter (LoRA, or another kind that peft can merge) into its base weights."""

from dataclasses import fields
from typing import Any

from qwen3_core.common.extras import how_to_install
from qwen3_core.model.files import ADAPTER, ADAPTER_WEIGHTS
from qwen3_core.model.source import Source, foreign_weights, in_short

_ERRORS = (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""Errors that peft and torch raise for an adapter that does not fit."""

_HEAD = "base_model.model.lm_head."
_INNER = "base_model.model.model."
"""Prefix of weight names in an adapter of a model with a head."""


def merge_adapter(loaded: Any, name: str, adapter: Source) -> Any:
    """Merge an adapter into a model, as peft's `merge_and_unload` does.

    Args:
        loaded: The base model, with its head if it is a reranker.
        name: The adapter as the user named it.
        adapter: The adapter's files.

    Returns:
        The merged model.

    Raises:
        ImportError: If peft is not installed.
        OSError: If the adapter's weights are missing or cannot be read.
        ValueError: If its kind cannot be merged, or it was trained on another base.
    """
    try:
        import peft
    except ImportError as error:
        msg = f"{name!r} is an adapter, which needs the peft package: {how_to_install('adapters')}"
        raise ImportError(msg) from error
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = adapter.fetch(ADAPTER_WEIGHTS)
    if path is None:
        if reason := foreign_weights(adapter, adapter=True):
            raise ValueError(reason)
        msg = (
            f"could not load the adapter {name!r}: it has no {ADAPTER_WEIGHTS}, or cannot be "
            "reached"
        )
        raise OSError(msg)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        msg = f"could not load the adapter {name!r}: {path} is damaged ({error})"
        raise OSError(msg) from error
    config = _config(peft, name, adapter.json(ADAPTER))
    with_head = hasattr(loaded, "model")
    in_head = any(key.startswith(_INNER) for key in weights)
    root = loaded
    if in_head and not with_head:
        # Trained within a model with a head, which embedding does not use.
        weights = {k: w for k, w in weights.items() if not k.startswith(_HEAD)}
        root = _as_inner(loaded)
    elif with_head and not in_head:
        root = loaded.model
    both = [key for key in weights if "embed_tokens.lora" in key or "lm_head.lora" in key]
    if both and hasattr(loaded, "lm_head") and loaded.config.tie_word_embeddings:
        msg = (
            f"the adapter {name!r} changes the token embeddings ({both[0]}), which the head of "
            "this reranker shares, and merging would change both: merge it with peft yourself and "
            "use the merged checkpoint"
        )
        raise ValueError(msg)
    classifies = config.task_type == "SEQ_CLS" and root is loaded
    wrap = peft.PeftModelForSequenceClassification if classifies else peft.PeftModel
    surplus: list[str] = []
    missing: list[str] = []
    try:
        wrapped = wrap(root, config)
        result: Any = peft.set_peft_model_state_dict(wrapped, weights)
        surplus = sorted(result.unexpected_keys)
        expected = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        missing = sorted(set(expected) - set(weights))
        merged = None if surplus or missing else wrapped.merge_and_unload(safe_merge=True)
    except _ERRORS as error:
        short = in_short(error)
        msg = (
            f"the adapter {name!r} ({config.peft_type.value}) cannot be merged into this base "
            f"({short:.300}): use the base that it was trained on, or merge it with peft yourself"
        )
        raise ValueError(msg) from error
    if merged is None:
        what = "has weights for parts that the base lacks" if surplus else "lacks weights"
        msg = (
            f"the adapter {name!r} is not for this base, or damaged: it {what} (first: "
            f"{[*surplus, *missing][0]}); use the base that it was trained on"
        )
        raise ValueError(msg)
    if root is loaded:
        return merged
    if with_head:
        loaded.model = merged
        return loaded
    return merged.model


def _as_inner(model: Any) -> Any:
    """Wrap the model in a module as its `model`, so that weight names have the same prefix."""
    import torch

    outer: Any = torch.nn.Module()
    outer.model = model
    outer.is_gradient_checkpointing = False  # peft reads it
    return outer


def _config(peft: Any, name: str, own: dict[str, Any]) -> Any:
    """The adapter's config; raises ValueError if its kind cannot be merged."""
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(own.get("peft_type"))
    if kind is None:
        msg = (
            f"the adapter {name!r} has peft_type {own.get('peft_type')!r} in its {ADAPTER}, which "
            f"peft {peft.__version__} does not know: update peft, or merge it where it was trained"
        )
        raise ValueError(msg)
    known = {field.name for field in fields(kind)}
    # Settings of a later peft that this adapter does not use are ignored.
    given = {key: value for key, value in own.items() if key in known or value}
    unknown = sorted(given.keys() - known - {"peft_version"})
    if unknown:
        msg = (
            f"the adapter {name!r} has {unknown[0]}={given[unknown[0]]!r} in its {ADAPTER}, which "
            f"peft {peft.__version__} does not know: update peft"
        )
        raise ValueError(msg)
    config = kind(**{key: value for key, value in given.items() if key in known})
    config.inference_mode = True
    reason = None
    if config.is_prompt_learning:
        reason = f"{config.peft_type.value} is a prompt-learning method, with nothing to merge"
    elif getattr(config, "alora_invocation_tokens", None):
        reason = "it is an aLoRA, active only after its invocation tokens (alora_invocation_tokens)"
    if reason:
        msg = (
            f"the adapter {name!r} cannot be merged into its base: {reason} ({ADAPTER}). Use one "
            "that peft can merge, such as LoRA"
        )
        raise ValueError(msg)
    return config
