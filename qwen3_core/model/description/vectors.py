"""From the last hidden state to an embedding model's vectors: pooling, Dense layers, length."""

from typing import Any

from qwen3_core.common.validation import MIN_DIMENSIONS, is_count
from qwen3_core.model.description.checkpoint import CORRECT, ELSEWHERE, MODULES, PROMPTS, Checkpoint
from qwen3_core.model.description.modules import Module, module_config
from qwen3_core.model.description.result import Dense, Step
from qwen3_core.model.source import PUBLISHED


def after_pooling(
    checkpoint: Checkpoint, modules: list[Module], hidden_size: int
) -> tuple[Step, ...]:
    """The layers after the pooling; refuses another pooling than the last token's."""
    if not modules:
        # Without modules.json nothing refers to this folder, but it is there for a purpose.
        if checkpoint.json("1_Pooling/config.json") is not None:
            _check_pooling(checkpoint, "1_Pooling", hidden_size)
        return ()
    first = modules[0]
    if first.kind != "Pooling":
        checkpoint.refuse(
            f"has a {MODULES} with {first.kind} where Pooling is expected",
            ELSEWHERE,
        )
    _check_pooling(checkpoint, first.path, hidden_size)
    after: list[Step] = []
    length = hidden_size
    for kind, path in modules[1:]:
        if kind == "Normalize":
            after.append("normalize")
        elif kind == "Dense":
            dense = _dense(checkpoint, path, length)
            after.append(dense)
            length = dense.out_features
        else:
            checkpoint.refuse(
                f"has a module {kind} after the pooling ({MODULES}); only linear Dense and "
                "Normalize are supported",
                ELSEWHERE,
            )
    return tuple(after)


def _check_pooling(checkpoint: Checkpoint, path: str, hidden_size: int) -> None:
    file = f"{path}/config.json"
    config = module_config(checkpoint, path)
    flags = {
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token"): value
        for key, value in config.items()
        if key.startswith("pooling_mode_")
    }
    old = [mode for mode, value in flags.items() if value] or (["mean"] if flags else [])
    new = config.get("pooling_mode")
    new = [new] if isinstance(new, str) else list(new or [])
    if new and flags and any(flags.values()) and new != old:
        checkpoint.refuse(
            f"contradicts itself in {file}: pooling_mode is {new}, the flags say {old}",
            "remove the wrong one",
        )
    modes = new or old or ["mean"]
    if modes != ["lasttoken"]:
        checkpoint.refuse(
            f"pools by {' and '.join(map(repr, modes))} ({file}), and only the last token's "
            "state is supported",
            f"use a model with last-token pooling such as {PUBLISHED['embedding']!r}, or run "
            "this one with sentence-transformers",
        )
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if config.get(key, hidden_size) != hidden_size:
            checkpoint.refuse(
                f"contradicts itself: {key} is {config[key]!r} in {file}, hidden_size is "
                f"{hidden_size} in config.json",
                "the files belong to two models, download it again",
            )


def _dense(checkpoint: Checkpoint, path: str, length: int) -> Dense:
    file = f"{path}/config.json"
    config = module_config(checkpoint, path)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not str(activation).startswith("torch."):  # sentence-transformers takes Tanh instead
        checkpoint.refuse(
            f"has a Dense module with activation_function {activation!r} ({file}), which is "
            "not torch's",
            ELSEWHERE,
        )
    inputs = config.get("module_input_name", "sentence_embedding")
    outputs = config.get("module_output_name") or inputs
    for what, value, plain in (
        ("activation_function", str(activation).rsplit(".", 1)[-1], "Identity"),
        ("use_residual", bool(config.get("use_residual", False)), False),
        ("module_input_name", inputs, "sentence_embedding"),
        ("module_output_name", outputs, "sentence_embedding"),
    ):
        if value != plain:
            checkpoint.refuse(
                f"has a Dense module with {what} {value!r} ({file}); only {plain!r} is "
                "computed here",
                ELSEWHERE,
            )
    before, after = config.get("in_features"), config.get("out_features")
    if before != length or not is_count(after):
        checkpoint.refuse(
            f"contradicts itself: the Dense module in {file} maps {before!r} dimensions to "
            f"{after!r}, but its input has {length}",
            "the files belong to two models, download it again",
        )
    return Dense(path, length, after, bool(config.get("bias", True)))


def truncation_of(checkpoint: Checkpoint, settings: dict[str, Any]) -> int | None:
    """The checkpoint's own length of vectors; None if it does not truncate them."""
    length = settings.get("truncate_dim")
    if length is not None and not is_count(length, MIN_DIMENSIONS):
        checkpoint.refuse(
            f"truncates vectors to truncate_dim={length!r} ({PROMPTS}), which is not an "
            f"integer from {MIN_DIMENSIONS} on",
            CORRECT,
        )
    return length


def check_similarity(
    checkpoint: Checkpoint,
    settings: dict[str, Any],
    modules: list[Module],
    after: tuple[Step, ...],
) -> None:
    """Refuse a similarity other than the cosine of the vectors."""
    similarity = settings.get("similarity_fn_name") or "cosine"
    normalised = not modules or after[-1:] == ("normalize",)
    if similarity == "cosine" or (similarity in ("dot", "dot_product") and normalised):
        return
    reason = "" if normalised else f", and its {MODULES} does not end in Normalize"
    checkpoint.refuse(
        f"compares vectors by {similarity!r} (similarity_fn_name in {PROMPTS}){reason}; "
        "vectors have length 1 here, for which only the cosine is supported",
        ELSEWHERE,
    )
