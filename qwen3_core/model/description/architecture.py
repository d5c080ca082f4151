"""The architecture in config.json: a plain Qwen3 model, neither quantised nor bidirectional."""

from typing import Any

from qwen3_core.model.description.checkpoint import Checkpoint


def architecture_of(checkpoint: Checkpoint) -> str:
    """Refuse a config.json that is not of a plain Qwen3 model; returns the architecture."""
    config = checkpoint.config
    advice = checkpoint.advice
    _check_quantisation(checkpoint)
    for key, value in config.items():
        # transformers takes null as false.
        both_ways = ("bidirectional" in key and value) or (
            key in ("is_causal", "causal", "use_causal_mask") and not value
        )
        if both_ways:
            checkpoint.refuse(
                f"is a bidirectional model ({key} is {value!r} in its config.json), and only "
                "causal attention is supported",
                f"{advice}, or run it with sentence-transformers",
            )
    if code := config.get("auto_map"):
        named = ", ".join(map(str, code.values())) if isinstance(code, dict) else code
        checkpoint.refuse(
            "requires custom code (trust_remote_code; auto_map in its config.json: "
            f"{named}), and code that comes with a checkpoint is never run here",
            f"{advice}, or remove auto_map if the model is a plain Qwen3",
        )
    model_type = config.get("model_type")
    if model_type != "qwen3":
        images = " that reads images" if "_vl" in str(model_type) else ""
        checkpoint.refuse(
            f"is a {model_type} model{images}, not a Qwen3 one (model_type is {model_type!r} "
            "in its config.json)",
            advice,
        )
    named = config.get("architectures") or [None]
    architecture = named[0] if isinstance(named, list) else named
    if architecture not in ("Qwen3ForCausalLM", "Qwen3Model", "Qwen3ForSequenceClassification"):
        checkpoint.refuse(
            f"is a {architecture} (architectures in its config.json), whose head or attention "
            "is not supported",
            advice,
        )
    architecture = str(architecture)
    classifies = architecture == "Qwen3ForSequenceClassification"
    if checkpoint.adapter is not None and checkpoint.adapter_config.get("task_type") == "SEQ_CLS":
        classifies, architecture = True, "Qwen3ForSequenceClassification"
    if checkpoint.kind == "embedding" and classifies:
        checkpoint.refuse(f"is a reranker or a classifier ({architecture})", advice)
    if checkpoint.kind == "reranker" and architecture == "Qwen3Model":
        checkpoint.refuse("has no language-model head, whose rows score yes and no", advice)
    return architecture


def _check_quantisation(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    method: Any = None
    if isinstance(config.get("quantization"), dict):
        method = "MLX"
    elif found := config.get("quantization_config") or config.get("compression_config"):
        found = found if isinstance(found, dict) else {}
        method = str(found.get("quant_method", "")).upper() or "an unnamed method"
        if found.get("load_in_4bit") or found.get("load_in_8bit"):
            method = "BITSANDBYTES"
    if method is not None:
        # vLLM serves these, except MLX.
        served = "mlx-lm" if method == "MLX" else "vLLM"
        checkpoint.refuse(
            f"is quantised with {method} (config.json)",
            "use the original checkpoint (with dtype='int8' to save memory), or serve this one "
            f"with {served} and give its base_url",
        )
