"""Checkpoints that are not computed here: refused in one sentence, by the file and the value."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank
from qwen3_core.model.description import describe
from qwen3_core.model.loading import load
from qwen3_core.settings import ModelKind
from tests.checkpoints.kinds import (
    CHATML_UNNAMED,
    LOGITS,
    REFUSED,
    STATES,
    ZERANK,
    Refused,
    adapter,
    config,
    dense,
    edit,
    every,
    logit_score,
    lower_case,
    modules,
    only,
    pooling,
    template,
    tokenizer,
)
from tests.conftest import TINY, naming


@pytest.fixture
def copy(tmp_path: Path):
    """Makes a copy of a bundled model that a test may change."""
    return lambda kind: shutil.copytree(TINY / kind, tmp_path / kind)


def refusal(folder: Path, kind: ModelKind) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        load(folder, kind)
    return str(caught.value)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.what)
def test_a_kind_that_is_not_computed(case: Refused, copy, capfd):
    folder = copy(case.kind)
    case.make(folder)
    text = refusal(folder, case.kind)
    assert re.search(case.says, text, re.DOTALL), text
    assert "download it again" not in text  # the file is as it should be
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


LONGROPE = {
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 32,
    "long_factor": [2.0] * 32,
}


def steps_of(data: dict[str, Any]) -> list[Any]:
    """What the post-processor of a tokenizer.json puts around a single text."""
    found: list[Any] = data["post_processor"]["processors"][-1]["single"]
    return found


def ends_in(token: str, number: int) -> Callable[[dict[str, Any]], None]:
    """Texts end in another token, though the template still says `<|endoftext|>`."""

    def change(data: dict[str, Any]) -> None:
        special = data["post_processor"]["processors"][-1]["special_tokens"]
        special["<|endoftext|>"] |= {"ids": [number], "tokens": [token]}

    return change


BY_POSITION = (
    "<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n"
    "<|im_start|>user\n{{ messages[1].content }}<|im_end|>\n"
)
"""A reranker's template that reads no roles."""

VARIANTS = [
    ("embedding", pooling(pooling_mode_mean_tokens=True), "pools by 'mean' and 'lasttoken'"),
    ("embedding", pooling(pooling_mode_lasttoken=False), r"pools by 'mean' \(1_Pooling"),
    (
        "embedding",
        lambda f: (f / "1_Pooling" / "config.json").write_text(
            '{"embedding_dimension": 256, "pooling_mode": "weightedmean"}'
        ),
        "pools by 'weightedmean'",
    ),
    (
        "embedding",
        lambda f: (f / "1_Pooling" / "config.json").write_text(
            '{"embedding_dimension": 256, "pooling_mode": ["cls", "lasttoken"]}'
        ),
        "pools by 'cls' and 'lasttoken'",
    ),
    (
        "embedding",
        every(lambda f: (f / "modules.json").unlink(), pooling(pooling_mode_lasttoken=False)),
        "pools by 'mean'",
    ),
    ("embedding", dense(use_residual=True), "Dense module with use_residual True"),
    ("embedding", dense(module_input_name="token_embeddings"), "module_input_name 'token_emb"),
    ("embedding", modules("Pooling", "WordWeights"), "module WordWeights"),
    ("embedding", modules("Normalize"), "Normalize where Pooling is expected"),
    (
        "embedding",
        lambda f: (f / "modules.json").write_text('[{"type": "own.Transformer", "path": ""}]'),
        r"a custom module in modules.json \(own.Transformer\)",
    ),
    (
        "embedding",
        lambda f: (f / "modules.json").write_text(
            '[{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]'
        ),
        r"Transformer in '0_Transformer'\): load it with sentence-transformers and save it anew",
    ),
    (
        "embedding",
        every(
            modules("Pooling"),
            edit("config_sentence_transformers.json", similarity_fn_name="dot"),
        ),
        "'dot' .* and its modules.json does not end in Normalize",
    ),
    (
        "embedding",
        edit("sentence_bert_config.json", processing_kwargs={"text": {"max_length": 8}}),
        "processing_kwargs=",
    ),
    ("embedding", config(use_bidirectional_attention=True), "use_bidirectional_attention is True"),
    ("embedding", config(architectures=None), r"is a None \(architectures"),
    ("embedding", only("model.gguf"), "GGUF"),
    ("embedding", only("weights.pt"), r"a pickle \(weights.pt\)"),
    ("embedding", only("openvino/openvino_model.xml"), "an OpenVINO export"),
    ("embedding", only("tf_model.h5"), "TensorFlow's"),
    ("embedding", modules("LogitScore"), "is a reranker according to its modules.json"),
    ("reranker", modules("Pooling"), "is an embedding model according to its modules.json"),
    (
        "embedding",
        edit("config_sentence_transformers.json", model_type="SparseEncoder"),
        "is a SparseEncoder according to its config_sentence_transformers.json",
    ),
    ("embedding", modules(), r"no Pooling after the Transformer in its modules.json"),
    (
        "embedding",
        edit("sentence_bert_config.json", tokenizer_args={"truncation_side": "left"}),
        r"truncation_side='left' to transformers \(tokenizer_args in sentence_bert_config.json\)",
    ),
    (
        "embedding",
        edit("sentence_bert_config.json", config_kwargs={"num_hidden_layers": 1}),
        "passes num_hidden_layers=1 to transformers",
    ),
    (
        "embedding",
        edit("sentence_bert_config.json", tokenizer_name_or_path="acme/Other"),
        r"tokenizer_name_or_path='acme/Other' \(sentence_bert_config.json\)",
    ),
    (
        "embedding",
        edit("sentence_bert_config.json", transformer_task="text-generation"),
        "transformer_task 'text-generation'",
    ),
    (
        "embedding",
        edit("sentence_bert_config.json", modality_config={"image": {}}),
        r"has modality_config\['text'\] = None in sentence_bert_config.json",
    ),
    (
        "embedding",
        edit(
            "sentence_bert_config.json",
            modality_config={"text": STATES},
            module_output_name="sentence_embedding",
        ),
        r"has module_output_name='sentence_embedding' in sentence_bert_config.json",
    ),
    (
        "embedding",
        edit("sentence_roberta_config.json", do_lower_case=True),
        r"do_lower_case=True \(sentence_roberta_config.json\)",
    ),
    (
        "embedding",
        edit("tokenizer_config.json", truncation_side="left"),
        r"truncation_side='left' \(tokenizer_config.json\)",
    ),
    (
        "embedding",
        edit("tokenizer_config.json", add_prefix_space=True),
        r"add_prefix_space=True \(tokenizer_config.json\)",
    ),
    ("embedding", dense(activation_function="my.Identity"), "'my.Identity' .* not torch's"),
    ("embedding", config(is_causal=None), "is_causal is None in its config.json"),
    ("embedding", config(hidden_act="gelu"), "hidden_act='gelu' in its config.json"),
    (
        "embedding",
        config(use_sliding_window=True, sliding_window=16, max_window_layers=1, layer_types=None),
        "sliding-window or other attention .*'sliding_attention'.* in its config.json",
    ),
    (
        "embedding",
        config(rope_parameters={**LONGROPE, "rope_type": "longrope"}),
        "rotary embeddings of type 'longrope'",
    ),
    (
        "embedding",
        config(rope_parameters={"rope_theta": 1e6, "rope_type": "unheard of"}),
        "rotary embeddings of type 'unheard of'",
    ),
    (
        "embedding",
        config(
            rope_parameters={
                "rope_theta": 1e6,
                "rope_type": "linear",
                "factor": 2.0,
                "partial_rotary_factor": 0.5,
            }
        ),
        r"partial rotary embeddings \(32 of head_dim=64;",
    ),
    (
        "embedding",
        tokenizer(lower_case),
        r"another normalizer than Qwen3's.*'Qwen2Tokenizer' \(tokenizer_config.json\): write 'Pre",
    ),
    (
        "embedding",
        tokenizer(lambda data: data["pre_tokenizer"]["pretokenizers"].pop(0)),
        "another pre_tokenizer than Qwen3's",
    ),
    (
        "embedding",
        tokenizer(lambda data: data["model"].update(dropout=0.1)),
        "another model than Qwen3's",
    ),
    ("embedding", tokenizer(ends_in("<|im_end|>", 17405)), r"appends \('<\|im_end\|>',\)"),
    (
        "embedding",
        tokenizer(lambda data: steps_of(data).insert(0, steps_of(data)[-1])),
        r"puts \('<\|endoftext\|>',\) before a text and appends \('<\|endoftext\|>',\)",
    ),
    (
        "embedding",
        edit("tokenizer_config.json", added_tokens_decoder={"17400": {"content": "<drug>"}}),
        "'<drug>' is token 17400 in added_tokens_decoder of .*, and no added token",
    ),
    (
        "embedding",
        edit("tokenizer_config.json", pad_token="data"),
        r"the ordinary token 'data' a special one \(pad_token in tokenizer_config.json",
    ),
    ("embedding", config(rms_norm_eps=-1.0), "rms_norm_eps=-1.0 in its config.json"),
    ("embedding", config(model_type="Qwen3"), r"model_type is 'Qwen3' in its config.json"),
    (
        "embedding",
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"weights"),
        "holds adapter_model.safetensors, an adapter's weights, without its adapter_config.json",
    ),
    (
        "reranker",
        config(sentence_transformers={"activation_fn": "torch.nn.modules.activation.Tanh"}),
        r"activation_fn 'Tanh' \(config.json\)",
    ),
    (
        "reranker",
        config(
            architectures=["Qwen3ForSequenceClassification"],
            id2label={"0": "no", "1": "yes"},
            problem_type="multi_label_classification",
        ),
        r"problem_type='multi_label_classification' \(config.json\)",
    ),
    ("reranker", template(ZERANK), "another prompt template"),
    (
        "reranker",
        lambda f: (f / "chat_template.jinja").write_text(
            # What vLLM's example is: one newline short at its end.
            (f / "chat_template.jinja").read_text().replace("</think>\\n\\n'", "</think>\\n'")
        ),
        r"another prompt template .*</think>",
    ),
    (
        "reranker",
        lambda f: (f / "chat_template.jinja").write_text(
            (f / "chat_template.jinja").read_text().replace("'system'", "'instruction'")
        ),
        "another prompt template",  # it takes no instruction
    ),
    *(
        (
            "reranker",
            lambda f, change=change: (f / "chat_template.jinja").write_text(
                (f / "chat_template.jinja").read_text().replace("ns.document +", change)
            ),
            rf"another prompt template .*{re.escape(says)}",
        )
        for change, says in (
            ("ns.document|trim +", "Two  Words"),
            ("ns.document[:50] +", "long lon<|im_end|>"),
            ("ns.document|lower +", "a document 92"),
            ("ns.document|replace('Milvus', 'X') +", "by the filter 'replace'"),
            ("('L: ' if 'Milvus' in ns.document else '') + ns.document +", "with 'Milvus'"),
            ("ns.document.strip() +", "by strip()"),
            ("('L: ' if ns.document == 'x' else '') + ns.document +", "with 'x'"),
        )
    ),
    *(
        ("reranker", template(BY_POSITION.replace("system", role)), "another prompt template")
        for role in ("system", "user")
    ),
    ("reranker", template(CHATML_UNNAMED.replace("'user'", "'query'")), "another prompt template"),
    (
        "reranker",
        every(logit_score(870, 783), lambda f: (f / "chat_template.jinja").unlink()),
        "without a chat template",
    ),
    (
        "reranker",
        every(logit_score(870, 783), edit("1_LogitScore/config.json", module_input_name="x")),
        "input is 'x' .*; only causal_logits is supported",
    ),
    ("reranker", modules("LogitScore", "Dense"), "LogitScore, Dense"),
    (
        "reranker",
        edit(
            "config_sentence_transformers.json",
            prompts={"law": "Find<|im_end|>"},
            default_prompt_name="law",
        ),
        r"control token <\|im_end\|> in its default instruction",
    ),
    ("reranker", modules(), "has no LogitScore after the Transformer in its modules.json"),
    (
        "reranker",
        every(
            logit_score(870, 783),
            edit("sentence_bert_config.json", modality_config={"text": LOGITS}),
        ),
        r"without a prompt \(no 'message' in modality_config of sentence_bert_config.json\)",
    ),
    (
        "reranker",
        config(architectures=["Qwen3ForSequenceClassification"], id2label={"0": "irrelevant"}),
        r"one label, 'irrelevant' \(id2label in config.json\)",
    ),
    (
        "reranker",
        every(
            logit_score(870, 783),
            edit("config_sentence_transformers.json", activation_fn="torch.nn.Tanh"),
        ),
        "activation_fn 'Tanh'",
    ),
]


@pytest.mark.parametrize(("kind", "make", "says"), VARIANTS, ids=[says for *_, says in VARIANTS])
def test_others_of_these_kinds(kind: ModelKind, make, says: str, copy):
    folder = copy(kind)
    make(folder)
    text = refusal(folder, kind)
    assert re.search(says, text, re.DOTALL), text


def test_a_gguf_file(tmp_path: Path):
    file = tmp_path / "Qwen3-Embedding-0.6B-Q8_0.gguf"
    file.write_bytes(b"GGUF")
    assert re.search(r"Q8_0.gguf'.*\(GGUF\): serve it with llama.cpp", refusal(file, "embedding"))
    (tmp_path / "model.bin").write_bytes(b"GGUF")
    assert "(GGUF)" in refusal(tmp_path / "model.bin", "embedding")
    (tmp_path / "config.json").write_text("{}")
    assert "is a file: give the folder" in refusal(tmp_path / "config.json", "embedding")


def test_a_folder_of_gguf_files(tmp_path: Path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert re.search(r"\(GGUF\) \(a.gguf\): serve it", refusal(tmp_path, "reranker"))


def test_both_frameworks_say_so(copy):
    folder = copy("embedding")
    pooling(pooling_mode_lasttoken=False, pooling_mode_mean_tokens=True)(folder)
    with pytest.raises(ValueError, match="pools by 'mean'"):
        Qwen3Embeddings(model=folder).embed_query("a query")
    with pytest.raises(ValueError, match="pools by 'mean'"):
        Qwen3Embedding(model=folder).get_query_embedding("a query")
    folder = copy("reranker")
    template(ZERANK)(folder)
    with pytest.raises(ValueError, match="another prompt template"):
        Qwen3Reranker(model=folder).rerank(["a document"], "a query")
    with pytest.raises(ValueError, match="another prompt template"):
        Qwen3Rerank(model=folder).reranker.rerank(["a document"], "a query")


# Damaged and contradicting files


FILES = [
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "1_LogitScore/config.json",
    "2_Dense/config.json",
]


@pytest.mark.parametrize("text", ["", "{", "\udcff", "3", '"a"'], ids=repr)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named(file: str, text: str, copy):
    kind: ModelKind = "reranker" if file == "1_LogitScore/config.json" else "embedding"
    folder = copy(kind)
    if file == "1_LogitScore/config.json":
        logit_score(870, 783)(folder)
    if file == "2_Dense/config.json":
        dense()(folder)
    (folder / file).write_bytes(text.encode(errors="surrogateescape"))
    assert str(folder / file) in refusal(folder, kind)


CONTRADICTIONS = [
    ("embedding", pooling(word_embedding_dimension=128), "is 128 in 1_Pooling/config.json"),
    ("embedding", pooling(pooling_mode="mean"), r"contradicts itself in 1_Pooling/config.json"),
    (
        "embedding",
        dense(in_features=128),
        "the Dense module in 2_Dense/config.json maps 128",
    ),
    ("embedding", dense(out_features=32), r"2_Dense/model.safetensors holds .*\(64, 256\)"),
    ("embedding", dense(bias=True), r"2_Dense/model.safetensors holds .*linear.bias"),
    (
        "embedding",
        every(dense(), lambda f: (f / "2_Dense" / "model.safetensors").unlink()),
        "2_Dense/model.safetensors, the weights of a Dense module, is missing",
    ),
    (
        "embedding",
        every(
            dense(),
            lambda f: (f / "2_Dense" / "model.safetensors").rename(
                f / "2_Dense" / "pytorch_model.bin"
            ),
        ),
        r"a Dense module in a pickle \(2_Dense/pytorch_model.bin\)",
    ),
    ("embedding", modules("Pooling", "Dense"), "2_Dense/config.json, which modules.json names"),
    (
        "embedding",
        edit("config_sentence_transformers.json", prompts={"query": 3}),
        "prompts in config_sentence_transformers.json that are not texts",
    ),
    ("embedding", edit("tokenizer_config.json", model_max_length=0), "an invalid token limit, 0"),
    (
        "embedding",
        edit("config_sentence_transformers.json", default_prompt_name="none"),
        "default_prompt_name is 'none' in config_sentence_transformers.json",
    ),
    (
        "embedding",
        edit("config_sentence_transformers.json", truncate_dim="64"),
        r"truncate_dim='64' \(config_sentence_transformers.json\)",
    ),
    (
        "embedding",
        edit("sentence_bert_config.json", max_seq_length="64"),
        r"an invalid token limit, '64' \(max_seq_length in sentence_bert_config.json\)",
    ),
    (
        "embedding",
        edit("sentence_bert_config.json", model_args=["a"]),
        r"model_args=\['a'\] in sentence_bert_config.json",
    ),
    ("reranker", logit_score(10**6, 783), r"tokens 1000000 and 783 \(1_LogitScore/config.json\)"),
    ("reranker", logit_score(783, 783), r"tokens 783 and 783"),
    (
        "reranker",
        every(
            logit_score(870, 783),
            edit("config_sentence_transformers.json", default_prompt_name="none"),
        ),
        "default_prompt_name is 'none'",
    ),
    (
        "reranker",
        config(
            architectures=["Qwen3ForSequenceClassification"],
            num_labels=1,
            id2label={"0": "a", "1": "b"},
        ),
        "num_labels is 1, id2label has 2",
    ),
]


@pytest.mark.parametrize(
    ("kind", "make", "says"), CONTRADICTIONS, ids=[says for *_, says in CONTRADICTIONS]
)
def test_files_that_contradict_each_other(kind: ModelKind, make, says: str, copy):
    folder = copy(kind)
    make(folder)
    text = refusal(folder, kind)
    assert re.search(says, text, re.DOTALL), text


# Adapters


def alone(folder: Path, base: object) -> Path:
    """The adapter of a folder without the base weights beside it."""
    for file in [*folder.iterdir()]:
        if file.name not in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    edit("adapter_config.json", base_model_name_or_path=base)(folder)
    return folder


@pytest.fixture
def lora(copy) -> Path:
    folder: Path = copy("embedding")
    adapter()(folder)
    return folder


def test_an_adapter_without_peft(lora: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        ImportError, match=naming("peft", 'pip install "qwen3-retrieval[adapters]"')
    ):
        load(lora, "embedding")


def test_an_adapter_that_names_no_base(lora: Path):
    assert "base_model_name_or_path" in refusal(alone(lora, None), "embedding")


def test_an_adapter_whose_base_is_not_there(lora: Path):
    text = refusal(alone(lora, "/no/where"), "embedding")
    assert re.search(r"is an adapter for '/no/where' .*there is no such folder", text)


def test_an_adapter_whose_base_is_on_a_hub_out_of_reach(lora: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = refusal(alone(lora, "acme/Base"), "embedding")
    assert re.search(r"is an adapter for 'acme/Base' \(base_model_name_or_path", text)
    assert "outgoing traffic has been disabled" in text


def test_an_adapter_of_an_adapter(lora: Path, tmp_path: Path):
    second = shutil.copytree(lora, tmp_path / "second")
    alone(lora, str(second))
    assert "which has an adapter itself" in refusal(lora, "embedding")
    alone(second, str(lora))
    assert "which has an adapter itself" in refusal(lora, "embedding")
    alone(lora, str(lora))
    assert "which has an adapter itself" in refusal(lora, "embedding")


def test_an_adapter_for_another_base(lora: Path, random_checkpoints):
    folder = alone(lora, str(random_checkpoints["embedding"]))
    assert "use the base that it was trained on" in refusal(folder, "embedding")


def test_an_adapter_of_more_layers(lora: Path):
    file = lora / "adapter_model.safetensors"
    weights = load_file(file)
    more = {k.replace("layers.1.", "layers.7."): w.clone() for k, w in weights.items()}
    save_file(weights | more, file)
    assert re.search("not for this base, or damaged: .*layers.7.", refusal(lora, "embedding"))
    save_file({k: w for k, w in weights.items() if "layers.1." not in k}, file)
    assert re.search("not for this base, or damaged: .*layers.1.", refusal(lora, "embedding"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, "a prompt-learning method"),
        ({"peft_type": "UNHEARD_OF"}, "peft_type 'UNHEARD_OF'"),
        ({"use_unheard_of": True}, "use_unheard_of=True"),
        ({"target_modules": ["none_such"]}, "cannot be merged into this base|not for this base"),
    ],
    ids=repr,
)
def test_an_adapter_of_another_kind(change, says: str, lora: Path):
    if change.get("peft_type") == "PROMPT_TUNING":
        (lora / "adapter_config.json").write_text(json.dumps({"task_type": "FEATURE_EXTRACTION"}))
    edit("adapter_config.json", **change)(lora)
    text = refusal(lora, "embedding")
    assert re.search(says, text), text


def test_adapters_in_folders_within_are_told_of(lora: Path, caplog):
    base = shutil.copytree(TINY / "embedding", lora.parent / "base")
    alone(lora, str(base)).rename(base / "legal")
    for _ in range(3):
        describe(str(base), "embedding")
    assert caplog.text.count("adapters in subfolders (legal), which are ignored") == 1
    (base / "config.json").unlink()
    assert "but adapters in legal: use one of these" in refusal(base, "embedding")


def test_a_trainers_checkpoints_beside_merged_weights_are_not_told_of(lora: Path, caplog):
    base = shutil.copytree(TINY / "embedding", lora.parent / "base")
    alone(lora, str(base)).rename(base / "checkpoint-5")
    describe(str(base), "embedding")
    assert not caplog.text
    (base / "config.json").unlink()
    assert "but adapters in checkpoint-5: use one of these" in refusal(base, "embedding")


def test_a_pickled_adapter(lora: Path):
    (lora / "adapter_model.safetensors").rename(lora / "adapter_model.bin")
    assert "a pickle (adapter_model.bin)" in refusal(lora, "embedding")


def test_a_damaged_adapter(lora: Path):
    (lora / "adapter_model.safetensors").write_bytes(b"")
    assert "adapter_model.safetensors is damaged" in refusal(lora, "embedding")


def test_a_classifying_adapter_without_its_head(copy):
    folder = copy("reranker")
    adapter(task_type="SEQ_CLS")(folder)
    assert "has no score.weight, and its base has none" in refusal(folder, "reranker")
