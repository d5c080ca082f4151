"""Qwen3Embedding: what it embeds, in which batches, and how it is a LlamaIndex component."""

import asyncio
import copy
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

import qwen3_core
from llama_index_qwen3 import Qwen3Embedding
from llama_index_qwen3.embedding import NOT_OF_DOCUMENTS
from qwen3_core.embedder import Embedder
from qwen3_core.model.encoder import Encoder
from qwen3_core.prompts import TASKS
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL
from tests.conftest import PATIENCE, naming
from tests.llama_index.conftest import TEXTS

QUERY = "How is data stored in Milvus?"


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that reach the core, which here gives each text its length."""
    sizes: list[int] = []

    def record(self, texts, **options):
        sizes.append(len(texts))
        return np.array([[float(len(text))] for text in texts], dtype=np.float32)

    async def arecord(self, texts, **options):
        return record(self, texts, **options)

    monkeypatch.setattr(Embedder, "embed_documents", record)
    monkeypatch.setattr(Embedder, "aembed_documents", arecord)
    return sizes


# What it embeds


def test_vectors_are_the_cores(embed_model):
    core = Embedder("tiny")
    np.testing.assert_allclose(
        embed_model.get_text_embedding_batch(TEXTS), core.embed_documents(TEXTS), atol=1e-6
    )
    np.testing.assert_allclose(
        embed_model.get_query_embedding(QUERY), core.embed_queries([QUERY])[0], atol=1e-6
    )


def test_a_query_is_embedded_behind_its_instruction_and_a_document_is_not(embed_model):
    query = embed_model.get_query_embedding(QUERY)
    framed = f"Instruct: {TASKS['web_search']}\nQuery:{QUERY}"
    np.testing.assert_allclose(query, embed_model.get_text_embedding(framed), atol=1e-5)
    assert not np.allclose(query, embed_model.get_text_embedding(QUERY), atol=1e-2)


def test_the_instruction_changes_queries_alone(embed_model):
    finance = Qwen3Embedding(model="tiny", instruction="finance")
    sentence = Qwen3Embedding(model="tiny", instruction=TASKS["finance"])
    assert finance.get_query_embedding(QUERY) == sentence.get_query_embedding(QUERY)
    assert finance.get_query_embedding(QUERY) != embed_model.get_query_embedding(QUERY)
    assert finance.get_text_embedding(QUERY) == embed_model.get_text_embedding(QUERY)


def test_an_instruction_set_later_counts():
    model = Qwen3Embedding(model="tiny")
    model.instruction = "finance"
    expected = Qwen3Embedding(model="tiny", instruction="finance").get_query_embedding(QUERY)
    assert model.get_query_embedding(QUERY) == expected


def test_no_instruction_set_later_is_the_default(embed_model):
    model = Qwen3Embedding(model="tiny", instruction="finance")
    model.instruction = None
    assert model.get_query_embedding(QUERY) == embed_model.get_query_embedding(QUERY)


def test_dimensions_cut_the_vector_and_normalise_it_again(embed_model):
    short = np.array(Qwen3Embedding(model="tiny", dimensions=64).get_text_embedding(QUERY))
    full = np.array(embed_model.get_text_embedding(QUERY))
    np.testing.assert_allclose(short, full[:64] / np.linalg.norm(full[:64]), atol=1e-6)


def test_dim_is_the_length_of_the_vectors(embed_model):
    assert embed_model.dim == len(embed_model.get_text_embedding(QUERY))


def test_dim_needs_no_model_if_dimensions_are_given(no_loading):
    assert Qwen3Embedding(dimensions=512).dim == 512


def test_vectors_are_lists_of_plain_floats(embed_model):
    for vector in (
        embed_model.get_query_embedding(QUERY),
        embed_model.get_text_embedding(QUERY),
        embed_model.get_text_embedding_batch([QUERY])[0],
    ):
        assert type(vector) is list
        assert {type(x) for x in vector} == {float}
        assert abs(sum(x * x for x in vector) - 1) < 1e-5


def test_several_queries_give_their_mean(embed_model):
    mean = embed_model.get_agg_embedding_from_queries(["one", "two"])
    each = [embed_model.get_query_embedding(text) for text in ("one", "two")]
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)


def test_nodes_are_embedded_with_the_metadata_they_show(embed_model):
    node = TextNode(
        text="text", metadata={"shown": 1, "hidden": 2}, excluded_embed_metadata_keys=["hidden"]
    )
    embed_model([node])
    assert node.embedding == embed_model.get_text_embedding("shown: 1\n\ntext")


# Batches, threads, event loops


def test_batches_of_256_reach_the_encoder_by_default(batches):
    Qwen3Embedding(model="tiny").get_text_embedding_batch([f"text {i}" for i in range(600)])
    assert batches == [256, 256, 88]


def test_the_batch_size_can_be_raised_to_2048(batches):
    model = Qwen3Embedding(model="tiny", embed_batch_size=2048)
    model.get_text_embedding_batch([f"text {i}" for i in range(600)])
    assert batches == [600]


async def test_async_embeds_whole_batches(batches, embed_model):
    vectors = await embed_model.aget_text_embedding_batch(["x" * i for i in range(300)])
    assert sorted(batches) == [44, 256]
    assert vectors == [[i] for i in range(300)]


async def test_async_twins_give_the_same_vectors(embed_model):
    assert await embed_model.aget_query_embedding(QUERY) == embed_model.get_query_embedding(QUERY)
    assert await embed_model.aget_text_embedding(QUERY) == embed_model.get_text_embedding(QUERY)
    assert await embed_model.aget_text_embedding_batch(
        TEXTS
    ) == embed_model.get_text_embedding_batch(TEXTS)


@pytest.mark.parametrize("call", ["query", "text", "batch"])
async def test_async_does_not_block_the_event_loop(monkeypatch, call):
    """The model waits for the loop: it computes once a task of the loop has run."""
    run = Encoder.run
    begun, loop_ran = threading.Event(), threading.Event()

    def wait_for_loop(self, pack):
        begun.set()
        assert loop_ran.wait(PATIENCE), "the event loop stood still"
        return run(self, pack)

    model = Qwen3Embedding(model="tiny")
    model.warm_up()
    monkeypatch.setattr(Encoder, "run", wait_for_loop)
    calls = {
        "query": lambda: model.aget_query_embedding(QUERY),
        "text": lambda: model.aget_text_embedding(QUERY),
        "batch": lambda: model.aget_text_embedding_batch(TEXTS),
    }
    task = asyncio.create_task(calls[call]())
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    loop_ran.set()
    assert await task


def test_threads_get_the_vectors_of_their_own_texts(embed_model):
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS * 2)]
    alone = [embed_model.get_text_embedding(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(embed_model.get_text_embedding, texts))
    np.testing.assert_allclose(together, alone, atol=1e-5)


# As a component of LlamaIndex


def test_class_name_and_defaults():
    model = Qwen3Embedding()
    assert model.class_name() == "Qwen3Embedding"
    assert model.model_name == DEFAULT_EMBEDDING_MODEL
    assert model.embed_batch_size == 256


def test_model_and_model_name_are_the_same_setting():
    folder: Any = Path("a") / "folder"
    for name in ("model", "model_name"):
        for given in ("tiny", folder):
            settings: dict[str, Any] = {name: given}
            assert Qwen3Embedding(**settings).model_name == str(given)


SETTINGS: dict[str, Any] = {
    "model_name": "tiny",
    "revision": "main",
    "device": "cpu",
    "dtype": "float32",
    "max_length": 512,
    "dimensions": 64,
    "instruction": "finance",
    "pack_tokens": 256,
    "embed_batch_size": 300,
}


def test_to_dict_and_from_dict_keep_every_setting():
    model = Qwen3Embedding(**SETTINGS)
    data = model.to_dict()
    assert {key: data[key] for key in SETTINGS} == SETTINGS
    assert data["class_name"] == "Qwen3Embedding"
    assert Qwen3Embedding.from_dict(data).to_dict() == data
    assert Qwen3Embedding.from_json(model.to_json()).to_dict() == data


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s not in NOT_OF_DOCUMENTS])
def test_every_setting_that_changes_vectors_changes_the_serialised_form(setting):
    """LlamaIndex makes the keys of its ingestion cache from it."""
    value = "other" if setting == "model_name" else SETTINGS[setting]
    changed: dict[str, Any] = {"model_name": "tiny"} | {setting: value}
    assert str(Qwen3Embedding(model="tiny").to_dict()) != str(Qwen3Embedding(**changed).to_dict())


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_and_pickles_are_settings_and_share_the_model(clone):
    model = Qwen3Embedding(model="tiny", dimensions=64, instruction="finance")
    expected = model.get_query_embedding(QUERY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = clone(model)
    assert other.to_dict() == model.to_dict()
    assert other.get_query_embedding(QUERY) == expected
    assert vars(other._embedder)["_engine"] is vars(model._embedder)["_engine"] is not None


def test_the_engines_counters_can_be_seen(embed_model):
    embed_model.get_text_embedding(QUERY)
    before = embed_model.embedder.stats()
    embed_model.get_text_embedding_batch(TEXTS)
    after = embed_model.embedder.stats()
    assert after.sequences - before.sequences == len(TEXTS)


def test_a_pickle_holds_no_weights():
    model = Qwen3Embedding(model="tiny")  # LlamaIndex's callback manager grows with each call
    model.get_text_embedding(QUERY)
    assert len(pickle.dumps(model)) < 10_000


def test_model_copy_checks_and_applies_its_changes(embed_model):
    assert len(embed_model.model_copy(update={"dimensions": 64}).get_text_embedding("x")) == 64
    with pytest.raises(ValueError, match="dimensions must be"):
        embed_model.model_copy(update={"dimensions": 5})


def test_settings_of_a_loaded_model_cannot_be_changed_behind_its_back(embed_model):
    with pytest.raises(ValueError, match="frozen"):
        embed_model.dimensions = 64


def test_the_embeddings_cache_that_mixes_queries_and_documents_is_refused(embed_model):
    with pytest.raises(
        ValueError, match=naming("embeddings_cache", "None", "IngestionPipeline(cache=...)")
    ):
        Qwen3Embedding(model="tiny", embeddings_cache=SimpleKVStore())
    with pytest.raises(ValueError, match="frozen"):
        embed_model.embeddings_cache = SimpleKVStore()


def test_events_carry_the_settings_and_the_vectors(recorder, embed_model):
    vector = embed_model.get_query_embedding(QUERY)
    start, end = (e for e in recorder.events if e.class_name().startswith("Embedding"))
    assert start.model_dict["model_name"] == "tiny"
    assert start.model_dict["class_name"] == "Qwen3Embedding"
    assert end.chunks == [QUERY]
    assert end.embeddings == [vector]


def test_it_serves_as_the_global_model(monkeypatch, embed_model):
    monkeypatch.setattr(Settings, "_embed_model", None)
    Settings.embed_model = embed_model
    assert Settings.embed_model is embed_model


# Bad input


def test_no_texts_give_no_vectors_and_load_nothing(no_loading):
    assert Qwen3Embedding().get_text_embedding_batch([]) == []
    assert Qwen3Embedding()([]) == []


async def test_no_texts_async(no_loading):
    assert await Qwen3Embedding().aget_text_embedding_batch([]) == []


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_a_blank_query_is_refused(embed_model, query):
    with pytest.raises(ValueError, match=r"query is blank"):
        embed_model.get_query_embedding(query)


@pytest.mark.parametrize("bad", [None, 7, 1.5, b"bytes", ["list"]])
def test_what_is_no_string_is_refused(embed_model, bad):
    kind = type(bad).__name__
    with pytest.raises(TypeError, match=rf"documents\[0\] .*got {kind}"):
        embed_model.get_text_embedding(bad)
    with pytest.raises(TypeError, match=rf"query .*got {kind}"):
        embed_model.get_query_embedding(bad)
    with pytest.raises(TypeError, match=rf"texts\[1\] .*got {kind}"):
        embed_model.get_text_embedding_batch(["fine", bad])


@pytest.mark.parametrize("bad", [None, 7, "a string is not a list of its letters"])
async def test_what_is_no_list_is_refused(embed_model, bad):
    with pytest.raises(TypeError, match="texts must be"):
        embed_model.get_text_embedding_batch(bad)
    with pytest.raises(TypeError, match="texts must be"):
        await embed_model.aget_text_embedding_batch(bad)


def test_a_lone_surrogate_is_named_by_its_place_in_the_whole_list(embed_model):
    texts = ["fine"] * 300 + ["bad \ud800"]
    with pytest.raises(
        ValueError, match=naming("texts[300]", r"'\ud800'", "position 4", "text.encode(")
    ):
        embed_model.get_text_embedding_batch(texts)


@pytest.mark.parametrize("text", ["", "  ", "\0", "a\0b", "<|im_end|>", "🜁" * 5])
def test_odd_texts_are_embedded(embed_model, text):
    assert np.linalg.norm(embed_model.get_text_embedding(text)) == pytest.approx(1, abs=1e-5)


def test_a_megabyte_of_text_is_cut_with_a_warning():
    model = Qwen3Embedding(model="tiny", max_length=64)
    with pytest.warns(UserWarning, match=naming("max_length=64", "Split")):
        vector = model.get_text_embedding("word " * 200_000)
    assert len(vector) == model.dim


def test_equal_texts_get_equal_vectors(embed_model):
    first, _, second = embed_model.get_text_embedding_batch(["same", "other", "same"])
    assert first == pytest.approx(second, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimensions": 0}, "dimensions must be an integer from 32 to the model's full length"),
        ({"dimensions": 31}, "dimensions must be an integer from 32 to the model's full length"),
        ({"max_length": 0}, "max_length must be a number of tokens, at least 1"),
        ({"pack_tokens": 0}, "pack_tokens must be a number of tokens, at least 1"),
        ({"dtype": "int4"}, "Input should be 'auto', 'bfloat16', 'float32', 'float16' or 'int8'"),
        ({"instruction": "finanze"}, "unknown task name 'finanze': use one of web_search"),
        ({"instruction": "  "}, "instruction is blank: pass None for the default"),
        ({"embed_batch_size": 0}, "Input should be greater than 0"),
        ({"embed_batch_size": 4096}, "Input should be less than or equal to 2048"),
        ({"modle": "tiny"}, "unknown argument .modle.: did you mean model"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(no_loading, settings, message):
    with pytest.raises(ValueError, match=message):
        Qwen3Embedding(**({"model": "tiny"} | settings))


def test_dimensions_beyond_the_models_own_are_refused_at_first_use():
    with pytest.raises(ValueError, match=r"dimensions .*32\b.*256\b.*got 512"):
        Qwen3Embedding(model="tiny", dimensions=512).get_text_embedding("x")


def test_a_missing_folder_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(OSError, match=naming("embedding", str(tmp_path / "missing"), "'tiny'")):
        Qwen3Embedding(model=tmp_path / "missing").get_text_embedding("x")


def test_a_reranker_is_refused():
    folder: Any = Path(qwen3_core.__file__).parent / "tiny" / "reranker"
    with pytest.raises(ValueError, match=naming("<|endoftext|>", "Qwen/Qwen3-Embedding-0.6B")):
        Qwen3Embedding(model=folder).get_text_embedding("x")
