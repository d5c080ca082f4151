"""What a checkpoint says of itself is done: equal to the library that defines it, in float32."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from transformers import AutoModelForSequenceClassification, Qwen3ForCausalLM, Qwen3Model

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank
from qwen3_core import Embedder, Reranker
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.model.description import describe
from qwen3_core.model.loading import load, vector_length
from tests.checkpoints.kinds import (
    CHATML_UNNAMED,
    config,
    dense,
    edit,
    every,
    logit_score,
    lower_case,
    modules,
)
from tests.checkpoints.kinds import tokenizer as changed_tokenizer
from tests.conftest import TINY, naming

pytestmark = pytest.mark.filterwarnings("ignore::qwen3_core.tokenizer.TruncationWarning")

TEXTS = [
    "Milvus keeps inserted data in object storage.",
    " a space first",
    "1 number",
    "'s",
    "\nnew line",
    "国内 数据 émigré",
    "\u0301combining",
]
QUERY = "How is inserted data stored?"
PAIRS = [(QUERY, text) for text in TEXTS]
FLOAT32 = {"dtype": torch.float32}


@pytest.fixture
def copy(tmp_path: Path):
    """Makes a copy of a bundled model that a test may change."""
    return lambda kind: shutil.copytree(TINY / kind, tmp_path / kind)


def embedder(folder: Path, **settings: Any) -> Embedder:
    return Embedder(folder, dtype="float32", device="cpu", **settings)


def reranker(folder: Path, **settings: Any) -> Reranker:
    return Reranker(folder, dtype="float32", device="cpu", **settings)


def close(found: Any, expected: Any, limit: float = 1e-5) -> None:
    """Equal within a limit; log-odds above 1 within that part of the largest."""
    found, expected = np.asarray(found), np.asarray(expected)
    limit *= max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


def equals_sentence_transformers(folder: Path, texts: list[str] = TEXTS) -> None:
    reference = SentenceTransformer(str(folder), device="cpu", model_kwargs=FLOAT32)
    found = embedder(folder)
    documents = reference.encode_document(texts, normalize_embeddings=True)
    close(found.embed_documents(texts), documents)
    close(found.embed_queries(texts), reference.encode_query(texts, normalize_embeddings=True))


# Prompts


PROMPTS: list[dict[str, str]] = [
    {"query": "query: ", "document": "passage: "},
    {"query": "Instruct: find it\nQuery: ", "document": ""},
    {"query": "", "document": "<|im_start|>doc\n"},
    {"query": "search_query", "document": "título:  "},
    {"query": "Query", "document": "'"},
    {"query": "[Q]"},
    {"document": "text:\n\n"},
    {},
]


@pytest.mark.parametrize("prompts", PROMPTS, ids=repr)
def test_a_checkpoints_own_prompts(prompts: dict[str, str], copy):
    folder = copy("embedding")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    equals_sentence_transformers(folder)


def test_an_instruction_wins_over_the_checkpoints_prompt(copy):
    folder = copy("embedding")
    edit("config_sentence_transformers.json", prompts={"query": "query: "})(folder)
    plain = embedder(folder)
    expected = Embedder("tiny", dtype="float32").embed_queries([QUERY], instruction="finance")
    for found in (
        plain.embed_queries([QUERY], instruction="finance"),
        embedder(folder, instruction="finance").embed_queries([QUERY]),
    ):
        close(found, expected)
    own = plain.embed_queries([QUERY])
    close(own, plain.embed_documents([f"query: {QUERY}"]))
    assert plain.fingerprint.document_prompt == "none"


def test_both_frameworks_take_the_checkpoints_prompts(copy):
    folder = copy("embedding")
    prompts = {"query": "query: ", "document": "passage: "}
    edit("config_sentence_transformers.json", prompts=prompts)(folder)
    reference = SentenceTransformer(str(folder), device="cpu", model_kwargs=FLOAT32)
    document = reference.encode_document(TEXTS[0], normalize_embeddings=True)
    query = reference.encode_query(QUERY, normalize_embeddings=True)
    langchain = Qwen3Embeddings(model=folder, dtype="float32", device="cpu")
    llama_index = Qwen3Embedding(model=str(folder), dtype="float32", device="cpu")
    close(langchain.embed_documents([TEXTS[0]])[0], document)
    close(langchain.embed_query(QUERY), query)
    close(llama_index.get_text_embedding(TEXTS[0]), document)
    close(llama_index.get_query_embedding(QUERY), query)
    for model in (langchain, llama_index):
        assert model.embedder.fingerprint.document_prompt == "passage: "


def test_a_passage_prompt_is_not_used_and_that_is_said(copy, caplog):
    folder = copy("embedding")
    edit("config_sentence_transformers.json", prompts={"passage": "passage: "})(folder)
    equals_sentence_transformers(folder)
    assert "'document' to put it before documents" in caplog.text


def test_the_number_of_tokens_that_a_checkpoint_reads(copy):
    folder = copy("embedding")
    edit("tokenizer_config.json", model_max_length=40)(folder)
    equals_sentence_transformers(folder, ["word " * 100, *TEXTS])
    assert embedder(folder).max_length == embedder(folder).fingerprint.max_length == 40
    assert embedder(folder, max_length=100).max_length == 100
    edit("sentence_bert_config.json", max_seq_length=30)(folder)
    assert embedder(folder).max_length == 30


@pytest.mark.parametrize(
    ("tokenizer", "transformer"),
    [
        (40, {"max_seq_length": 80}),  # which wins
        (80, {"max_seq_length": 60, "processor_kwargs": {"model_max_length": 40}}),
        (None, {"tokenizer_args": {"model_max_length": 40}, "model_args": {"dtype": "float32"}}),
    ],
    ids=repr,
)
def test_where_the_number_of_tokens_is_said(tokenizer, transformer, copy):
    folder = copy("embedding")
    edit("tokenizer_config.json", model_max_length=tokenizer)(folder)
    edit("sentence_bert_config.json", **transformer)(folder)
    equals_sentence_transformers(folder, ["word " * 100, TEXTS[0]])


def test_vectors_that_a_checkpoint_truncates(copy):
    folder = copy("embedding")
    edit("config_sentence_transformers.json", truncate_dim=64)(folder)
    equals_sentence_transformers(folder)
    assert embedder(folder).dimensions == embedder(folder).fingerprint.dimensions == 64
    assert vector_length(folder) == 64
    assert vector_length(folder, 128) == 128
    full = Embedder("tiny", dtype="float32").embed_documents(TEXTS)
    close(embedder(folder, dimensions=256).embed_documents(TEXTS), full)
    edit("config_sentence_transformers.json", truncate_dim=1000)(folder)
    assert vector_length(folder) == 256


def test_a_tokenizer_of_its_own(copy):
    folder = copy("embedding")
    changed_tokenizer(lower_case)(folder)
    edit("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")(folder)
    equals_sentence_transformers(folder, ["UPPER Case", *TEXTS])


def test_words_that_a_checkpoint_adds(copy):
    """The published models have room for them in their embedding matrix."""
    folder = copy("embedding")
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if "embed_tokens" in key)
    torch.manual_seed(0)
    weights[key] = torch.cat([weights[key], torch.randn(8, 256, dtype=weights[key].dtype)])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config(vocab_size=17416)(folder)
    word = {"id": 17408, "content": "<drug>", "special": False, "normalized": False}
    word |= {"single_word": False, "lstrip": False, "rstrip": False}
    changed_tokenizer(lambda data: data["added_tokens"].append(word))(folder)
    with pytest.raises(
        ValueError, match=naming("'<drug>'", "added_tokens_decoder", "17408", "tokenizer.json")
    ):
        load(folder, "embedding")
    file = folder / "tokenizer_config.json"
    decoder = json.loads(file.read_text("utf-8"))["added_tokens_decoder"]
    edit("tokenizer_config.json", added_tokens_decoder=decoder | {"17408": word})(folder)
    edit("config_sentence_transformers.json", prompts={"query": "<drug>: "})(folder)
    equals_sentence_transformers(folder, ["a <drug> b", "x<drug>y", TEXTS[0]])


# Modules


def saved(modules: list[Any], folder: Path) -> Path:
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.mark.parametrize(
    ("bias", "normalised_first"), [(True, False), (False, False), (True, True)]
)
@pytest.mark.parametrize("width", [64, 300])
def test_a_dense_module(bias: bool, normalised_first: bool, width: int, tmp_path: Path):
    transformer, pooling, _ = SentenceTransformer(str(TINY / "embedding"), device="cpu")
    torch.manual_seed(0)
    linear = Dense(256, width, bias=bias, activation_function=torch.nn.Identity())
    first = [Normalize()] if normalised_first else []
    folder = saved([transformer, pooling, *first, linear, Normalize()], tmp_path / "dense")
    equals_sentence_transformers(folder)
    found = embedder(folder, dimensions=32)
    expected = embedder(folder).embed_documents(TEXTS)[:, :32]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    close(found.embed_documents(TEXTS), expected, 1e-6)
    assert embedder(folder).dimensions == width


def test_two_dense_modules_of_random_weights(random_checkpoints, tmp_path: Path):
    folder = shutil.copytree(random_checkpoints["embedding"], tmp_path / "random")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    tokenizer.pop("chat_template", None)  # else sentence-transformers renders texts through it
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    transformer, _ = SentenceTransformer(str(folder), device="cpu", model_kwargs=FLOAT32)
    first = Dense(64, 48, activation_function=torch.nn.Identity())
    second = Dense(48, 40, bias=False, activation_function=torch.nn.Identity())
    whole = [transformer, Pooling(64, "lasttoken"), first, second]
    equals_sentence_transformers(saved(whole, tmp_path / "two"))


def test_a_folder_that_sentence_transformers_saved(tmp_path: Path):
    SentenceTransformer(str(TINY / "embedding"), device="cpu").save(str(tmp_path / "saved"))
    equals_sentence_transformers(tmp_path / "saved")
    expected = Embedder("tiny", dtype="float32").embed_queries([QUERY])
    found = embedder(tmp_path / "saved").embed_queries([QUERY])
    close(found, expected, 1e-6)


def test_the_vectors_length_is_known_without_weights(copy):
    folder = copy("embedding")
    dense()(folder)
    (folder / "model.safetensors").unlink()
    assert vector_length(folder) == 64


# Rerankers converted to sequence classification


def converted(folder: Path, target: Path, labels: int) -> Path:
    """The conversion that vLLM and others use: the head is W[yes] - W[no], or both rows."""
    causal = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = load(folder, "reranker").tokenizer
    rows = causal.lm_head.weight[[tokenizer.word_id("no"), tokenizer.word_id("yes")]].detach()
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=labels, dtype=torch.float32
    )
    model.score.weight.data = rows if labels == 2 else rows[1:] - rows[:1]
    model.save_pretrained(target)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (folder / file).exists():
            shutil.copyfile(folder / file, target / file)
    return target


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("source", ["tiny", "reranker", "untied"])
def test_a_conversion_scores_as_the_original(source, labels, random_checkpoints, tmp_path: Path):
    original = TINY / "reranker" if source == "tiny" else random_checkpoints[source]
    folder = converted(original, tmp_path / "converted", labels)
    expected = reranker(original).score(TEXTS, QUERY)
    found = reranker(folder)
    close(found.score(TEXTS, QUERY), expected, 1e-6)
    # And as transformers, on the same ids.
    tokenizer = found.engine.tokenizer
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.end_of_text
    prefix = tokenizer.rerank_prefix(found.instruction, QUERY)
    rows, _ = tokenizer.rerank_documents(TEXTS, 10**6)
    with torch.inference_mode():
        logits = [model(torch.tensor([[*prefix, *row]])).logits[0] for row in rows]
    theirs = [float(x[1] - x[0]) if labels == 2 else float(x[0]) for x in logits]
    close(found.score(TEXTS, QUERY), theirs)


def test_labels_the_other_way_round(tmp_path: Path):
    folder = converted(TINY / "reranker", tmp_path / "converted", 2)
    plain = reranker(folder).score(TEXTS, QUERY)
    config(id2label={"0": "no", "1": "yes"})(folder)
    np.testing.assert_array_equal(reranker(folder).score(TEXTS, QUERY), plain)
    config(id2label={"0": "relevant", "1": "irrelevant"})(folder)
    np.testing.assert_array_equal(reranker(folder).score(TEXTS, QUERY), -plain)


def test_both_frameworks_take_a_conversion(tmp_path: Path):
    folder = converted(TINY / "reranker", tmp_path / "converted", 1)
    expected = [r.score for r in Reranker("tiny", dtype="float32").rerank(TEXTS, QUERY)]
    langchain = Qwen3Reranker(model=folder, dtype="float32", device="cpu")
    found = [r.score for r in langchain.rerank(TEXTS, QUERY)]
    close(found, expected, 1e-6)
    llama_index = Qwen3Rerank(model=str(folder), dtype="float32", device="cpu")
    found = [r.score for r in llama_index.reranker.rerank(TEXTS, QUERY)]
    close(found, expected, 1e-6)


def test_a_conversion_is_one_dot_product(tmp_path: Path):
    """It runs as every other reranker: packed, without a matrix of labels."""
    folder = converted(TINY / "reranker", tmp_path / "converted", 2)
    loaded = load(folder, "reranker", dtype="bfloat16")
    assert type(loaded.model) is Qwen3Model
    assert loaded.head is not None
    assert loaded.head.shape == (304,)
    assert loaded.head.dtype == np.float32


# LogitScore


def equals_cross_encoder(folder: Path, **settings: Any) -> None:
    reference = CrossEncoder(str(folder), device="cpu", model_kwargs=FLOAT32)
    expected = reference.predict(PAIRS, activation_fn=torch.nn.Identity())
    found = reranker(folder, **settings).score(TEXTS, QUERY)
    close(found, expected)


@pytest.mark.parametrize("tokens", [(870, 783), (900, 12), (900, None)], ids=repr)
def test_a_logit_score_folder(tokens, copy):
    folder = copy("reranker")
    logit_score(*tokens)(folder)
    equals_cross_encoder(folder)


def test_a_logit_score_folder_that_sentence_transformers_saved(tmp_path: Path):
    CrossEncoder(str(TINY / "reranker"), device="cpu").save(str(tmp_path / "saved"))
    equals_cross_encoder(tmp_path / "saved")


def test_a_rerankers_own_instruction(copy):
    folder = copy("reranker")
    every(
        logit_score(870, 783),
        edit(
            "config_sentence_transformers.json",
            prompts={"law": "Given a case, retrieve the statutes that it turns on", "a": "law"},
            default_prompt_name="law",
        ),
    )(folder)
    equals_cross_encoder(folder)
    word = shutil.copytree(folder, folder.parent / "word")
    edit("config_sentence_transformers.json", default_prompt_name="a")(word)
    assert reranker(word).score(TEXTS, QUERY).shape == (len(TEXTS),)
    assert load(word, "reranker").description.instruction == "law"
    found = reranker(folder)
    given = found.score(TEXTS, QUERY, instruction="finance")
    expected = Reranker("tiny", dtype="float32").score(TEXTS, QUERY, instruction="finance")
    close(given, expected)
    assert found.instruction.startswith("Given a case")
    in_langchain = Qwen3Reranker(model=folder, dtype="float32", device="cpu")
    own = {r.index: r.log_odds for r in in_langchain.rerank(TEXTS, QUERY)}
    close([own[i] for i in range(len(TEXTS))], found.score(TEXTS, QUERY))


def test_a_chat_templates_own_instruction(copy):
    folder = copy("reranker")
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("Given a web search query", "Given a case"))
    equals_cross_encoder(folder)


def test_a_chat_models_template_that_names_no_unknown_role(copy):
    folder = copy("reranker")
    (folder / "chat_template.jinja").write_text(CHATML_UNNAMED)
    assert describe(str(folder), "reranker").instruction is None


@pytest.mark.parametrize(
    "compared", ["m.type == 'image'", "m['role'] == 'image'", "m.type in ['image', 'video']"]
)
def test_a_chat_template_that_refuses_parts_of_other_types(compared: str, copy):
    folder = copy("reranker")
    file = folder / "chat_template.jinja"
    branch = "{%- if X -%}{{ raise_exception('no images') }}{%- endif -%}".replace("X", compared)
    loop = "{%- for m in messages -%}" + branch + "{%- endfor -%}"
    own = file.read_text()
    file.write_text(loop + own)
    assert describe(str(folder), "reranker").instruction is None
    file.write_text(loop.replace("m.type", "m.content").replace("m['role']", "m.content") + own)
    with pytest.raises(ValueError, match="it compares something with 'image'"):
        describe(str(folder), "reranker")


# Adapters


def tuned(model: Any, kind: str, folder: Path, base: object, **settings: Any) -> tuple[Path, Any]:
    """A folder with a random adapter of a model, and what peft makes of the two."""
    torch.manual_seed(0)
    made = {"r": 4, "target_modules": ["q_proj", "down_proj"]} | settings
    wrapped = peft.get_peft_model(model, getattr(peft, kind)(**made))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            assert "nan" not in name
    wrapped.save_pretrained(str(folder))
    edit("adapter_config.json", base_model_name_or_path=str(base))(folder)
    return folder, wrapped.merge_and_unload()


def merged(model: Any, source: Path, folder: Path) -> Path:
    """What peft merged, as a checkpoint of its own."""
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / file, folder / file)
    return folder


ADAPTERS: list[tuple[str, dict[str, Any]]] = [
    ("LoraConfig", {}),
    ("LoraConfig", {"use_dora": True}),
    ("LoraConfig", {"use_rslora": True, "lora_alpha": 16, "rank_pattern": {"q_proj": 2}}),
    ("LoraConfig", {"layers_to_transform": [1]}),
    ("LoraConfig", {"modules_to_save": ["norm"]}),
    ("LoHaConfig", {}),
    ("LoKrConfig", {}),
]


@pytest.mark.parametrize(("kind", "settings"), ADAPTERS, ids=repr)
@pytest.mark.parametrize("trained_as", [Qwen3Model, Qwen3ForCausalLM])
def test_an_adapter_of_an_embedding_model(trained_as, kind, settings, tmp_path: Path):
    if trained_as is Qwen3Model and (kind, settings) != ADAPTERS[0]:
        pytest.skip("one is enough: only the names of weights differ")
    base = TINY / "embedding"
    model = trained_as.from_pretrained(base, dtype=torch.float32)
    folder, whole = tuned(model, kind, tmp_path / "adapter", base, **settings)
    whole = whole if trained_as is Qwen3Model else whole.model
    expected = embedder(merged(whole, base, tmp_path / "merged")).embed_documents(TEXTS)
    close(embedder(folder).embed_documents(TEXTS), expected, 1e-6)
    assert not np.allclose(expected, Embedder("tiny").embed_documents(TEXTS), atol=1e-2)


@pytest.mark.parametrize(
    "settings",
    [{}, {"modules_to_save": ["lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}],
    ids=repr,
)
@pytest.mark.parametrize("source", ["tiny", "untied"])
def test_an_adapter_of_a_reranker(source, settings, random_checkpoints, tmp_path: Path):
    if source == "tiny" and "target_modules" in settings:
        pytest.skip("merging would change the embeddings too; see test_refused")
    base = TINY / "reranker" if source == "tiny" else random_checkpoints[source]
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    folder, whole = tuned(model, "LoraConfig", tmp_path / "adapter", base, **settings)
    head = load(base, "reranker").tokenizer
    rows = whole.get_output_embeddings().weight
    row = (rows[head.word_id("yes")] - rows[head.word_id("no")]).detach().numpy()
    found = load(folder, "reranker", dtype="float32")
    close(found.head, row, 1e-6)
    prefix = head.rerank_prefix(Reranker("tiny").instruction, QUERY)
    suffixed, _ = head.rerank_documents(TEXTS, 10**6)
    with torch.inference_mode():
        states = [
            whole.model(torch.tensor([[*prefix, *r]])).last_hidden_state[0, -1] for r in suffixed
        ]
    expected = torch.stack(states).numpy() @ row
    close(reranker(folder).score(TEXTS, QUERY), expected)


@pytest.mark.parametrize("labels", [1, 2])
def test_an_adapter_with_a_trained_score_head(labels: int, tmp_path: Path):
    base = TINY / "reranker"
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=labels, dtype=torch.float32
    )
    folder, whole = tuned(
        model, "LoraConfig", tmp_path / "adapter", base, task_type=peft.TaskType.SEQ_CLS
    )
    whole.save_pretrained(tmp_path / "merged")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / file, tmp_path / "merged" / file)
    expected = reranker(tmp_path / "merged").score(TEXTS, QUERY)
    close(reranker(folder).score(TEXTS, QUERY), expected, 1e-6)


def test_an_adapter_beside_its_base(tmp_path: Path):
    base = TINY / "embedding"
    model = Qwen3Model.from_pretrained(base, dtype=torch.float32)
    folder, _ = tuned(model, "LoraConfig", tmp_path / "adapter", base)
    beside = shutil.copytree(base, tmp_path / "beside")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(folder / file, beside / file)
    edit("adapter_config.json", base_model_name_or_path="/no/where")(beside)
    expected = embedder(folder).embed_documents(TEXTS)
    close(embedder(beside).embed_documents(TEXTS), expected, 1e-6)


def test_an_adapter_with_prompts_of_its_own(tmp_path: Path):
    """As sentence-transformers saves one: beside it lies all but config.json and base weights."""
    base = TINY / "embedding"
    model = Qwen3Model.from_pretrained(base, dtype=torch.float32)
    folder, whole = tuned(model, "LoraConfig", tmp_path / "adapter", base)
    modules("Pooling", "Normalize")(folder)
    shutil.copytree(base / "1_Pooling", folder / "1_Pooling")
    prompts = {"query": "query: ", "document": "passage: "}
    edit("config_sentence_transformers.json", prompts=prompts)(folder)
    complete = shutil.copytree(base, tmp_path / "complete")
    merged(whole, base, complete)
    edit("config_sentence_transformers.json", prompts=prompts)(complete)
    equals_sentence_transformers(complete)
    close(embedder(folder).embed_queries(TEXTS), embedder(complete).embed_queries(TEXTS), 1e-6)
    close(embedder(folder).embed_documents(TEXTS), embedder(complete).embed_documents(TEXTS), 1e-6)


def on_the_hub(cache: Path, name: str, folder: Path) -> None:
    """A folder in the hub's cache, as if it was downloaded."""
    commit, repo = "c0ffee" * 6 + "c0ff", cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)


def test_an_adapter_on_the_hub_offline(tmp_path: Path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = Qwen3Model.from_pretrained(TINY / "embedding", dtype=torch.float32)
    folder, _ = tuned(model, "LoraConfig", tmp_path / "adapter", "acme/Base")
    on_the_hub(cache, "acme/Adapter", folder)
    found = Embedder("acme/Adapter", dtype="float32", device="cpu")
    with pytest.raises(
        OSError, match=naming("'acme/Adapter'", "'acme/Base'", "base_model_name_or_path")
    ):
        found.embed_documents(TEXTS)
    on_the_hub(cache, "acme/Base", TINY / "embedding")
    edit("adapter_config.json", base_model_name_or_path=str(TINY / "embedding"))(folder)
    expected = embedder(folder).embed_documents(TEXTS)
    close(found.embed_documents(TEXTS), expected, 1e-6)


def test_fingerprints_tell_adapters_dense_modules_and_bases_apart(tmp_path: Path, copy):
    base = copy("embedding")
    model = Qwen3Model.from_pretrained(base, dtype=torch.float32)
    one, _ = tuned(model, "LoraConfig", tmp_path / "one", base)
    two = shutil.copytree(one, tmp_path / "two")
    weights = load_file(two / "adapter_model.safetensors")
    save_file({k: w + 0.01 for k, w in weights.items()}, two / "adapter_model.safetensors")
    third = shutil.copytree(base, tmp_path / "third")
    dense()(third)
    fourth = shutil.copytree(third, tmp_path / "fourth")
    linear = {"linear.weight": torch.eye(64, 256).flip(0).contiguous()}
    save_file(linear, fourth / "2_Dense" / "model.safetensors")
    folders = [base, one, two, third, fourth]
    prints = [embedder(folder, dimensions=32).fingerprint for folder in folders]
    for i, here in enumerate(prints):
        for j, there in enumerate(prints):
            assert ("model" in here.differences(there)) == (i != j), (folders[i], folders[j])


def test_a_fingerprint_tells_a_normalisation_before_a_dense_module(copy):
    folder = copy("embedding")
    dense()(folder)
    plain = embedder(folder).fingerprint
    modules("Pooling", "Dense", "Normalize")(folder)
    assert not embedder(folder).fingerprint.differences(plain)  # vectors have length 1 anyway
    data = json.loads((folder / "modules.json").read_text("utf-8"))
    (folder / "modules.json").write_text(json.dumps([*data[:2], data[3] | {"name": "n"}, data[2]]))
    found = embedder(folder).fingerprint.differences(plain)
    assert found == {"pooling": ("last_token normalize dense", "last_token")}
    assert Fingerprint.from_json(plain.to_json()) == plain


@pytest.mark.parametrize("opened", ["before", "by another component"])
def test_an_adapter_that_changes_after_it_was_loaded(opened: str, tmp_path: Path):
    model = Qwen3Model.from_pretrained(TINY / "embedding", dtype=torch.float32)
    folder, _ = tuned(model, "LoraConfig", tmp_path / "one", TINY / "embedding")
    asked = embedder(folder, dimensions=32)
    holder = asked if opened == "before" else embedder(folder)
    before = holder.embed_documents(TEXTS)
    edit("adapter_config.json", lora_alpha=99)(folder)
    says = rf"{folder}/adapter_config.json was written after .* was loaded .*: start again"
    if opened != "before":
        assert asked.fingerprint.dimensions == 32
    with pytest.raises(ValueError, match=says):
        asked.fingerprint.to_json() if opened == "before" else asked.embed_documents(TEXTS)
    np.testing.assert_array_equal(holder.embed_documents(TEXTS), before)


def test_fingerprints_of_one_adapter_under_other_words(tmp_path: Path):
    base = TINY / "embedding"
    model = Qwen3Model.from_pretrained(base, dtype=torch.float32)
    one, _ = tuned(model, "LoraConfig", tmp_path / "one", base)
    first = embedder(one, dimensions=32).fingerprint
    moved = shutil.copytree(base, tmp_path / "moved")
    two = shutil.copytree(one, tmp_path / "two")
    edit("adapter_config.json", base_model_name_or_path=str(moved), peft_version="0.1")(two)
    shutil.copyfile(base / "tokenizer.json", two / "tokenizer.json")
    assert not embedder(two, dimensions=32).fingerprint.differences(first)
    edit("adapter_config.json", lora_alpha=9)(two)
    assert "model" in embedder(two, dimensions=32).fingerprint.differences(first)


@pytest.mark.parametrize("key", ["max_position_embeddings", "rope_scaling"])
def test_fingerprints_tell_rotary_embeddings_apart(key: str, copy):
    folder = copy("embedding")
    yarn = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e6}
    config(rope_parameters=yarn)(folder)
    first = embedder(folder, dimensions=32).fingerprint
    config(**{key: 1024 if key.startswith("max") else yarn | {"factor": 4.0}})(folder)
    assert "model" in embedder(folder, dimensions=32).fingerprint.differences(first)


def test_an_unused_module_changes_nothing(copy):
    folder = copy("embedding")
    modules("Pooling")(folder)
    equals_sentence_transformers(folder)


def without(folder: Path, *tokens: str) -> Path:
    """A folder whose tokenizer has no such added tokens."""
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in tokens]
    file.write_text(json.dumps(data), encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    data = json.loads(settings.read_text(encoding="utf-8"))
    named = data.get("added_tokens_decoder", {}).items()
    kept = {number: token for number, token in named if token["content"] not in tokens}
    settings.write_text(json.dumps(data | {"added_tokens_decoder": kept}), encoding="utf-8")
    return folder


def test_an_embedding_model_without_control_tokens_of_rerankers(copy):
    """Qwen3-Embedding-4B and 8B have no token for `<think>`."""
    folder = without(
        copy("embedding"), "<think>", "</think>", "<tool_response>", "</tool_response>"
    )
    texts = [*TEXTS, "a <think> that is text"]
    expected = embedder(TINY / "embedding").embed_documents(texts)
    close(embedder(folder).embed_documents(texts), expected)


def test_a_reranker_needs_the_control_tokens_of_its_prompt(copy):
    with pytest.raises(ValueError, match="the tokenizer has no <think>"):
        load(str(without(copy("reranker"), "<think>")), "reranker")
