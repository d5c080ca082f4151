"""A reranker's score head: whose rows give the log-odds."""

from typing import Any

from qwen3_core.common.validation import is_count
from qwen3_core.model.description.checkpoint import CORRECT, ELSEWHERE, MODULES, PROMPTS, Checkpoint
from qwen3_core.model.description.modules import Module, module_config
from qwen3_core.model.description.result import Head
from qwen3_core.model.files import ADAPTER_WEIGHTS
from qwen3_core.model.source import Source

_YES = {"yes", "relevant", "true", "positive", "1"}
_NO = {"no", "irrelevant", "not relevant", "not_relevant", "false", "negative", "0"}


def head_of(checkpoint: Checkpoint, architecture: str, modules: list[Module]) -> Head:
    """The rows whose product with the last hidden state is the log-odds."""
    if architecture == "Qwen3ForSequenceClassification":
        if modules:
            checkpoint.refuse(
                f"has a module {modules[0].kind} after its classifier ({MODULES})",
                ELSEWHERE,
            )
        return _classifier(checkpoint)
    if not modules:
        if checkpoint.json(MODULES, list) is not None:
            checkpoint.refuse(
                f"has no LogitScore after the Transformer in its {MODULES}, and so no score",
                "add a LogitScore module there, or delete the file if it scores yes and no",
            )
        return Head()
    names = [module.kind for module in modules]
    if names != ["LogitScore"]:
        checkpoint.refuse(
            f"has modules after the transformer ({MODULES}: {', '.join(names)}) where only "
            "LogitScore is supported",
            ELSEWHERE,
        )
    file = f"{modules[0].path}/config.json"
    config = module_config(checkpoint, modules[0].path)
    if (taken := config.get("module_input_name", "causal_logits")) != "causal_logits":
        checkpoint.refuse(
            f"has a LogitScore whose input is {taken!r} ({file}); only causal_logits is supported",
            CORRECT,
        )
    true: Any
    false: Any
    true, false = config.get("true_token_id"), config.get("false_token_id")
    rows = (true,) if false is None else (true, false)
    vocabulary = checkpoint.config.get("vocab_size", 0)
    if not all(is_count(row, 0) and row < vocabulary for row in rows) or true == false:
        checkpoint.refuse(
            f"scores by the tokens {true!r} and {false!r} ({file}), which are not two ids "
            f"below vocab_size={vocabulary}",
            "download it again",
        )
    return Head("lm_head", rows)


def _classifier(checkpoint: Checkpoint) -> Head:
    """The head of a model converted to sequence classification, from its labels."""
    labels = checkpoint.config.get("id2label")
    said = checkpoint.config.get("num_labels")
    if (
        checkpoint.adapter is not None
        and (trained := trained_labels(checkpoint.adapter)) is not None
    ):
        labels, said = None, trained
    if isinstance(labels, dict) and said is not None and said != len(labels):
        checkpoint.refuse(
            f"contradicts itself in config.json: num_labels is {said!r}, id2label has "
            f"{len(labels)}",
            "remove the wrong one",
        )
    count = said if said is not None else len(labels) if isinstance(labels, dict) else 2
    if count == 1:
        only = next(iter(labels.values()), None) if isinstance(labels, dict) else None
        if isinstance(only, str) and only.casefold() in _NO - {"0"}:
            checkpoint.refuse(
                f"has one label, {only!r} (id2label in config.json), which does not mean relevant",
                "name it 'yes' there if it does",
            )
        return Head("score", (0,))
    if count != 2:
        checkpoint.refuse(
            f"is a classifier with {count!r} labels (id2label in config.json), and a reranker "
            "has one or two",
            checkpoint.advice,
        )
    kind = checkpoint.config.get("problem_type")
    if kind not in (None, "single_label_classification"):
        checkpoint.refuse(
            f"has two labels and problem_type={kind!r} (config.json), so that the difference "
            "of their logits is not the log-odds",
            "run it with transformers",
        )
    if not isinstance(labels, dict):
        return Head("score", (1, 0))
    first, second = (str(labels.get(str(i), "")).casefold() for i in (0, 1))
    plain = (first, second) == ("label_0", "label_1") or (first in _NO and second in _YES)
    if not plain and not (first in _YES and second in _NO):
        checkpoint.refuse(
            "has labels that do not say which one means relevant (id2label in "
            f"config.json: {labels})",
            "name them 'no' and 'yes' there",
        )
    return Head("score", (1, 0) if plain else (0, 1))


def check_activation(checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Refuse scores that are not the sigmoid of the log-odds."""
    own = checkpoint.config.get("sentence_transformers")
    for file, value in (
        (PROMPTS, settings.get("activation_fn")),
        ("config.json", own.get("activation_fn") if isinstance(own, dict) else None),
        ("config.json", checkpoint.config.get("sbert_ce_default_activation_function")),
    ):
        activation = str(value or "").rsplit(".", 1)[-1]
        if activation not in ("", "Sigmoid", "Identity", "Softmax"):
            checkpoint.refuse(
                f"has activation_fn {activation!r} ({file}); scores are log-odds and their "
                "sigmoid here",
                ELSEWHERE,
            )


def trained_labels(adapter: Source) -> int | None:
    """Number of rows of an adapter's own score head; None if it has none."""
    from safetensors import SafetensorError, safe_open

    path = adapter.fetch(ADAPTER_WEIGHTS)
    if path is None:
        return None
    try:
        with safe_open(path, "np") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                if name.endswith("score.weight"):
                    return int(opened.get_slice(name).get_shape()[0])
    except SafetensorError as error:
        msg = f"{path} is damaged ({error}): download it again"
        raise OSError(msg) from error
    return None
