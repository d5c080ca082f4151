"""Variants of the bundled pair that are refused: how each is made, and what is said of it.

`docs/howto/checkpoints.md` shows them in a table that `test_table.py` compares with this list.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from qwen3_core.settings import ModelKind

WAY_ST = "run it with sentence-transformers"
WAY_INT8 = 'the original checkpoint (with `dtype="int8"` to save memory)'
WAY_SERVE = f"{WAY_INT8}; or this one on vLLM, by `base_url`"
WAY_SAFE = "the original checkpoint with `*.safetensors`"
WAY_OTHER = "a Qwen3 model of the right kind"


class Refused(NamedTuple):
    """A kind of checkpoint that is not computed here."""

    what: str
    """In the table."""
    remedy: str
    """In the table."""
    kind: ModelKind
    make: Callable[[Path], object]
    """Changes a copy of the bundled model of that kind."""
    says: str
    """A regular expression that the error matches: the file or value, and the remedy."""


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / file
        old = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(old | changes), encoding="utf-8")

    return make


def config(**changes: Any) -> Callable[[Path], None]:
    return edit("config.json", **changes)


def pooling(**changes: Any) -> Callable[[Path], None]:
    return edit("1_Pooling/config.json", **changes)


def modules(*names: str) -> Callable[[Path], None]:
    """Modules of sentence-transformers, in folders of their numbers and names."""

    def make(folder: Path) -> None:
        data = [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{n}" if i else "",
                "type": PACKAGES.get(n, PACKAGE) + n,
            }
            for i, n in enumerate(("Transformer", *names))
        ]
        (folder / "modules.json").write_text(json.dumps(data))

    return make


PACKAGE = "sentence_transformers.models."
PACKAGES = {"LogitScore": "sentence_transformers.cross_encoder.modules.logit_score."}


def every(*makers: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


def dense(**changes: Any) -> Callable[[Path], None]:
    """A Dense module of 64 dimensions after the pooling."""

    def weights(folder: Path) -> None:
        save_file({"linear.weight": torch.eye(64, 256)}, folder / "2_Dense" / "model.safetensors")

    settings = {
        "in_features": 256,
        "out_features": 64,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    return every(
        modules("Pooling", "Dense"), edit("2_Dense/config.json", **(settings | changes)), weights
    )


STATES = {"method": "forward", "method_output_name": "last_hidden_state"}
LOGITS = {"method": "forward", "method_output_name": "logits"}
GENERATION = {
    "transformer_task": "text-generation",
    "modality_config": {"text": LOGITS, "message": LOGITS | {"format": "flat"}},
    "module_output_name": "causal_logits",
}
"""As sentence-transformers saves a reranker that answers by a token."""


def logit_score(true: int, false: int | None) -> Callable[[Path], None]:
    ids = {"true_token_id": true, "false_token_id": false}
    return every(
        modules("LogitScore"),
        edit("1_LogitScore/config.json", **ids),
        edit("config_sentence_transformers.json", model_type="CrossEncoder"),
        edit("sentence_bert_config.json", **GENERATION),
    )


def template(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text)

    return make


def only(*files: str) -> Callable[[Path], None]:
    """Weights of other formats in the place of ours."""

    def make(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(b"weights")

    return make


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes the contents of tokenizer.json."""

    def make(folder: Path) -> None:
        path = folder / "tokenizer.json"
        data = json.loads(path.read_text("utf-8"))
        change(data)
        path.write_text(json.dumps(data), encoding="utf-8")

    return make


def lower_case(data: dict[str, Any]) -> None:
    steps = [{"type": "NFC"}, {"type": "Lowercase"}]
    data["normalizer"] = {"type": "Sequence", "normalizers": steps}


@tokenizer
def without_end(data: dict[str, Any]) -> None:
    data["post_processor"] = data["post_processor"]["processors"][0]


def end_unknown(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace("<|endoftext|>", "<|end|>"), encoding="utf-8")


def adapter(**changes: Any) -> Callable[[Path], None]:
    """A LoRA adapter beside the weights."""

    def make(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        found = {}
        for name, weight in weights.items():
            if "q_proj" in name:
                stem = "base_model.model." + name.removesuffix(".weight")
                rows, columns = weight.shape
                found[f"{stem}.lora_A.weight"] = torch.ones(4, columns)
                found[f"{stem}.lora_B.weight"] = torch.ones(rows, 4)
        save_file(found, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(settings | changes))

    return make


ZERANK = """{%- set ns = namespace(query='', document='') -%}
{%- for m in messages -%}
{%- if m.role == 'query' -%}{%- set ns.query = m.content -%}
{%- elif m.role == 'document' -%}{%- set ns.document = m.content -%}{%- endif -%}
{%- endfor -%}
{{- '<|im_start|>system\\n' + ns.query + '<|im_end|>\\n<|im_start|>user\\n' + ns.document -}}
{{- '<|im_end|>\\n<|im_start|>assistant\\n' -}}"""
"""The query in the system turn, as in zerank-2."""

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

CHATML_UNNAMED = """{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>user
{{ m['content'] }}<|im_end|>
{% elif m['role'] == 'assistant' %}<|im_start|>assistant
{{ m['content'] }}<|im_end|>
{% else %}<|im_start|>system
{{ m['content'] }}<|im_end|>
{% endif %}{% endfor %}"""
"""Any other role is the system's, as in unsloth's template `chatml`."""

IMAGES = {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]}

REFUSED = [
    Refused("GGUF", f"the file on llama.cpp, by `base_url`; or {WAY_INT8}",
            "embedding", only("Qwen3-Embedding-0.6B-Q8_0.gguf"),
            r"llama.cpp's format \(GGUF\) \(Qwen3.*gguf\): serve it with llama.cpp .* base_url"),
    Refused("GPTQ", WAY_SERVE, "embedding",
            config(quantization_config={"quant_method": "gptq", "bits": 4}),
            r"quantised with GPTQ \(config.json\): .*dtype='int8'.* vLLM .*base_url"),
    Refused("AWQ", WAY_SERVE, "reranker",
            config(quantization_config={"quant_method": "awq", "bits": 4, "version": "gemm"}),
            r"quantised with AWQ \(config.json\): .*dtype='int8'.* vLLM .*base_url"),
    Refused("FP8", WAY_SERVE, "embedding", config(quantization_config={"quant_method": "fp8"}),
            r"quantised with FP8 \(config.json\): .*dtype='int8'.* vLLM .*base_url"),
    Refused("bitsandbytes", WAY_SERVE, "reranker",
            config(quantization_config={"load_in_4bit": True}),
            r"quantised with BITSANDBYTES \(config.json\): .*dtype='int8'"),
    Refused("other `quantization_config`", WAY_SERVE, "embedding",
            config(quantization_config={"quant_method": "compressed-tensors"}),
            r"quantised with COMPRESSED-TENSORS \(config.json\): .*dtype='int8'"),
    Refused("MLX, quantised", WAY_INT8, "embedding",
            config(quantization={"group_size": 64, "bits": 4}),
            r"quantised with MLX \(config.json\): .*dtype='int8'"),
    Refused("ONNX, OpenVINO, TensorFlow or Flax without `*.safetensors`", WAY_SAFE, "embedding",
            only("onnx/model.onnx"), r"an ONNX export \(onnx/model.onnx\): .*safetensors"),
    Refused("pickles (`*.bin`, `*.pt`)", WAY_SAFE, "reranker", only("pytorch_model.bin"),
            r"a pickle \(pytorch_model.bin\), which can run any code .*: use the original"),
    Refused("custom code (`auto_map`)", WAY_OTHER, "embedding",
            config(auto_map={"AutoModel": "modeling.Own"}),
            r"auto_map in its config.json: modeling.Own.*never run here: use a Qwen3 embedding"),
    Refused("bidirectional attention", WAY_ST, "embedding", config(is_causal=False),
            r"bidirectional model \(is_causal is False in its config.json\).*sentence-transf"),
    Refused("vision-language models", WAY_OTHER, "embedding", config(**IMAGES),
            r"is a qwen3_vl model that reads images, not a Qwen3 one .*: use a Qwen3 embedding"),
    Refused("other architectures", WAY_OTHER, "reranker",
            config(model_type="gemma3_text", architectures=["Gemma3TextModel"]),
            r"is a gemma3_text model, not a Qwen3 one .*: use a Qwen3 reranker"),
    Refused("other heads of Qwen3", WAY_OTHER, "embedding",
            config(architectures=["Qwen3ForTokenClassification"]),
            r"is a Qwen3ForTokenClassification \(architectures in its config.json\)"),
    Refused("a reranker as embedding model, or the other way round", WAY_OTHER, "embedding",
            config(architectures=["Qwen3ForSequenceClassification"]),
            r"a reranker or a classifier .*: use a Qwen3 embedding model"),
    Refused("pooling by mean, first token, maximum ...", WAY_ST, "embedding",
            pooling(pooling_mode_lasttoken=False, pooling_mode_cls_token=True),
            r"pools by 'cls' \(1_Pooling/config.json\).*last-token pooling .*sentence-transfo"),
    Refused("a `Dense` module with an activation or a residual", WAY_ST, "embedding",
            dense(activation_function="torch.nn.modules.activation.Tanh"),
            r"activation_function 'Tanh' \(2_Dense/config.json\).*sentence-transformers"),
    Refused("unsupported or custom modules after pooling", WAY_ST, "embedding",
            modules("Pooling", "LayerNorm"), r"a module LayerNorm .*modules.json.*: run it with"),
    Refused("similarity other than cosine, or dot product of vectors that are not normalised",
            WAY_ST, "embedding",
            edit("config_sentence_transformers.json", similarity_fn_name="manhattan"),
            r"'manhattan' \(similarity_fn_name in config_sentence_transformers.json\)"),
    Refused("texts in lower case, query expansion", WAY_ST, "embedding",
            edit("sentence_bert_config.json", do_lower_case=True),
            r"do_lower_case=True \(sentence_bert_config.json\).*: run it with"),
    Refused("texts rendered through a chat template (`message` in `modality_config`)", WAY_ST,
            "embedding",
            every(edit("sentence_bert_config.json", module_output_name="token_embeddings",
                       modality_config={"text": STATES, "message": STATES}),
                  template(CHATML)),
            r"chat template \(sentence_bert_config.json: modality_config .*: run it with"),
    Refused("a tokenizer that does not end texts in `<|endoftext|>`", WAY_OTHER, "embedding",
            without_end, r"appends nothing to a text.*tokenizer.json\): use a Qwen3 embedding"),
    Refused("a tokenizer without `<|endoftext|>`", WAY_OTHER, "reranker", end_unknown,
            r"the tokenizer has no <\|endoftext\|>"),
    Refused("a reranker with another prompt (zerank-2)", f"{WAY_ST}, or vLLM, by `base_url`",
            "reranker", every(logit_score(870, None), template(ZERANK)),
            r"another prompt template .*chat_template.jinja.*: run it with .*vLLM .*base_url"),
    Refused("a `LogitScore` folder without a chat template for query and document", WAY_ST,
            "reranker", every(logit_score(870, 783), template(CHATML)),
            r"\(1_LogitScore/config.json\) without a chat template .*: run it with"),
    Refused("a classifier with more than two labels", WAY_OTHER, "reranker",
            config(architectures=["Qwen3ForSequenceClassification"],
                   id2label={"0": "a", "1": "b", "2": "c"}),
            r"classifier with 3 labels \(id2label in config.json\).*: use a Qwen3 reranker"),
    Refused("two labels that do not say which one means relevant",
            "name them `no` and `yes` in `config.json`", "reranker",
            config(architectures=["Qwen3ForSequenceClassification"],
                   id2label={"0": "a", "1": "b"}),
            r"do not say which one means relevant \(id2label in config.json.*'no' and 'yes'"),
    Refused("an adapter that peft cannot merge (prompt tuning, aLoRA)",
            "one that it can, such as LoRA", "embedding",
            adapter(alora_invocation_tokens=[1, 2]),
            r"cannot be merged .*alora_invocation_tokens\) \(adapter_config.json\)"),
    Refused("an adapter of tied token embeddings, for a reranker",
            "merge it with peft, and use the result", "reranker",
            every(adapter(target_modules=["embed_tokens"]), lambda folder: save_file(
                {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 17408),
                 "base_model.model.model.embed_tokens.lora_embedding_B": torch.ones(304, 4)},
                folder / "adapter_model.safetensors")),
            r"changes the token embeddings \(.*embed_tokens.*merge it with peft yourself"),
]  # fmt: skip


def table() -> str:
    """What is refused, in Markdown, as `docs/howto/checkpoints.md` shows it."""
    rows = [f"| {case.what} | {case.remedy} |" for case in REFUSED]
    return "\n".join(["| checkpoint | what works instead |", "| --- | --- |", *rows, ""])
