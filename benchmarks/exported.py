"""A model exported to OpenVINO or ONNX Runtime, in the environment that `make` sets up for it.

    python benchmarks/exported.py {openvino,onnx} {embedding,reranker} FOLDER PRECISION BATCH

benchmarks/servers.py calls it. It reads a list of whole prompts as a line of JSON, and answers with
a line: vectors of length 1, or log-odds. It exports the checkpoint once, beside its folder. The
reranker is exported as the sequence classification whose one label is the log-odds of "yes" against
"no", so that no logits of the vocabulary are computed. PRECISION is bfloat16, float32 or int8.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 8192
"""Tokens of a prompt at most."""

DYNAMIC_GROUP = "128"
"""Columns of the activations that share a scale in OpenVINO's dynamic quantisation."""


def one_label(folder: str) -> str:
    """Write a reranker as a sequence classification beside its folder, once; its folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    target = Path(f"{folder}-one-label")
    if not (target / "tokenizer_config.json").exists():
        load: Any = AutoTokenizer.from_pretrained
        tokenizer = load(folder)
        original: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        tokens = tokenizer.convert_tokens_to_ids(["yes", "no"])
        yes, no = original.get_output_embeddings().weight[tokens].float()
        make: Any = AutoModelForSequenceClassification.from_pretrained
        model = make(folder, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype="auto")
        with torch.no_grad():
            model.score.weight.copy_((yes - no)[None])
        model.save_pretrained(target)
        # Transformers 4 reads rope_theta, which 5 does not write.
        config = model.config.to_dict()
        theta = config.get("rope_parameters", config)["rope_theta"]
        settings = json.loads((target / "config.json").read_text(encoding="utf-8"))
        settings["rope_theta"] = theta
        (target / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        tokenizer.save_pretrained(target)
    return str(target)


def openvino(kind: str, folder: str, precision: str) -> Any:
    """The model in OpenVINO, exported beside its folder at the first time, and compiled."""
    from optimum.intel import (
        OVModelForFeatureExtraction,
        OVModelForSequenceClassification,
        OVWeightQuantizationConfig,
    )

    reranks = kind == "reranker"
    load = OVModelForSequenceClassification if reranks else OVModelForFeatureExtraction
    target = Path(f"{folder}-openvino-{'int8' if precision == 'int8' else 'as-it-is'}")
    if not (target / "config.json").exists():
        source = one_label(folder) if reranks else folder
        # Left to itself, optimum-intel stores large models in 8 bits.
        options: dict[str, Any] = {"load_in_8bit": False}
        if precision == "int8":
            options = {"quantization_config": OVWeightQuantizationConfig(bits=8)}
        load.from_pretrained(source, export=True, compile=False, **options).save_pretrained(target)
    hint = "f32" if precision == "float32" else "bf16"
    config = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if precision == "int8":
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = DYNAMIC_GROUP
    return load.from_pretrained(target, ov_config=config)


def onnx(kind: str, folder: str, precision: str) -> Any:
    """The model in ONNX Runtime, exported and quantised beside its folder at the first time."""
    from optimum.onnxruntime import (
        ORTModelForFeatureExtraction,
        ORTModelForSequenceClassification,
        ORTQuantizer,
    )
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    reranks = kind == "reranker"
    load = ORTModelForSequenceClassification if reranks else ORTModelForFeatureExtraction
    target = Path(f"{folder}-onnx-{precision}")
    if not (target / "config.json").exists():
        source = one_label(folder) if reranks else folder
        if "rope_theta" not in json.loads(Path(source, "config.json").read_text(encoding="utf-8")):
            msg = f"{source}/config.json has no rope_theta, which transformers 4 needs"
            raise ValueError(msg)
        model = load.from_pretrained(source, export=True)
        if precision == "int8":
            how = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
            ORTQuantizer.from_pretrained(model).quantize(how, save_dir=target)
        else:
            model.save_pretrained(target)
    return load.from_pretrained(target)


def answers(
    model: Any, tokenizer: Any, texts: list[str], batch: int, *, reranks: bool
) -> Iterator[np.ndarray]:
    """Vectors or log-odds, a batch at a time."""
    for start in range(0, len(texts), batch):
        inputs = tokenizer(
            texts[start : start + batch],
            add_special_tokens=not reranks,
            padding=True,
            truncation=True,
            max_length=LONGEST,
            return_tensors="np",
        )
        if "position_ids" in getattr(model, "input_names", ()):  # optimum-onnx makes none itself
            mask = inputs["attention_mask"]
            inputs["position_ids"] = np.maximum(mask.cumsum(axis=1) - 1, 0)
        output = model(**inputs)
        if reranks:
            yield output["logits"][:, 0]
        else:
            states = np.asarray(output["last_hidden_state"][:, -1], dtype=np.float32)
            yield states / np.linalg.norm(states, axis=1, keepdims=True)


def main() -> None:
    runtime, kind, folder, precision, batch = sys.argv[1:]
    from transformers import AutoTokenizer

    with redirect_stdout(sys.stderr):
        model = {"openvino": openvino, "onnx": onnx}[runtime](kind, folder, precision)
        reranks = kind == "reranker"
        load: Any = AutoTokenizer.from_pretrained
        tokenizer = load(folder, padding_side="left")
    for line in sys.stdin:
        texts = json.loads(line)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # as its users' libraries
        longest_first = [texts[i] for i in order]
        batches = answers(model, tokenizer, longest_first, int(batch), reranks=reranks)
        found = np.concatenate(list(batches))
        result = np.empty_like(found)
        result[order] = found
        print(json.dumps(result.tolist()), flush=True)


if __name__ == "__main__":
    main()
