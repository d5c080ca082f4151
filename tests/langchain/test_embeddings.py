"""Qwen3Embeddings: instruction on queries only, async beside sync, settings, bad input."""

import asyncio
import copy
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from pydantic import ValidationError

from langchain_qwen3 import Qwen3Embeddings
from qwen3_core import Embedder
from tests.conftest import PATIENCE, TINY
from tests.langchain.conftest import QUESTION, TEXTS, call

NOWHERE = "/no/such/folder"
"""A model that cannot be loaded: whatever works with it has not tried to."""


def close(a, b) -> bool:
    return np.allclose(a, b, atol=1e-5)


# What it computes


def test_vectors_are_lists_of_float_of_length_one(embeddings):
    vectors = [*embeddings.embed_documents(TEXTS), embeddings.embed_query(QUESTION)]
    assert all(type(x) is float for x in vectors[0])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_query_carries_the_instruction_and_a_document_does_not(embeddings):
    core = Embedder("tiny")
    framed = f"Instruct: {core.instruction}\nQuery:{QUESTION}"
    as_query = embeddings.embed_query(QUESTION)
    (as_document,) = embeddings.embed_documents([QUESTION])
    assert close(as_query, embeddings.embed_documents([framed])[0])
    assert close(as_query, core.embed_queries([QUESTION])[0])
    assert not close(as_query, as_document)


def test_the_instruction_can_be_a_task_or_a_sentence(embeddings):
    by_task = Qwen3Embeddings(model="tiny", instruction="fact_check").embed_query(QUESTION)
    sentence = "Given a claim, retrieve documents that support or refute the claim"
    by_sentence = Qwen3Embeddings(model="tiny", instruction=sentence).embed_query(QUESTION)
    assert by_task == by_sentence
    assert not close(by_task, embeddings.embed_query(QUESTION))


def test_newlines_are_kept(embeddings):
    one, two = embeddings.embed_documents(["a\nb\n\nc", "a b  c"])
    assert not close(one, two)


def test_dimensions_cuts_the_vectors_and_normalises_again(embeddings):
    full = np.array(embeddings.embed_documents(TEXTS))[:, :64]
    cut = Qwen3Embeddings(model="tiny", dimensions=64).embed_documents(TEXTS)
    assert close(cut, full / np.linalg.norm(full, axis=1, keepdims=True))


def test_equal_texts_have_equal_vectors_wherever_they_stand(embeddings):
    vectors = embeddings.embed_documents(["same", *TEXTS, "same"])
    assert close(vectors[0], vectors[-1])


def test_the_query_finds_its_documents(embeddings):
    scores = np.array(embeddings.embed_documents(TEXTS)) @ embeddings.embed_query(QUESTION)
    assert set(np.argsort(-scores)[:2]) == {1, 3}


# Async


@pytest.mark.parametrize(
    ("method", "argument"), [("embed_documents", TEXTS), ("embed_query", QUESTION)]
)
async def test_async_equals_sync(embeddings, method, argument):
    assert await getattr(embeddings, f"a{method}")(argument) == getattr(embeddings, method)(
        argument
    )


@pytest.mark.parametrize(
    ("method", "argument"), [("aembed_documents", TEXTS), ("aembed_query", QUESTION)]
)
async def test_async_leaves_the_event_loop_free(embeddings, monkeypatch, method, argument):
    begun, loop_ran = threading.Event(), threading.Event()
    encoder = embeddings.embedder.engine.encoder
    run = encoder.run

    def wait_for_loop(pack):
        begun.set()
        assert loop_ran.wait(PATIENCE), "the event loop stood still"
        return run(pack)

    monkeypatch.setattr(encoder, "run", wait_for_loop)
    task = asyncio.create_task(getattr(embeddings, method)(argument))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    loop_ran.set()
    assert await task


async def test_many_concurrent_calls_give_the_same_vectors(embeddings):
    expected = [embeddings.embed_query(text) for text in TEXTS]
    found = await asyncio.gather(*(embeddings.aembed_query(text) for text in TEXTS * 3))
    assert all(close(a, b) for a, b in zip(found, expected * 3, strict=True))


# Settings


def test_an_assignment_keeps_the_loaded_model(tmp_path):
    folder = shutil.copytree(TINY / "embedding", tmp_path / "model")
    embeddings = Qwen3Embeddings(model=folder)
    embeddings.embed_query(QUESTION)
    shutil.rmtree(folder)
    embeddings.instruction = "fact_check"
    embeddings.embed_query(QUESTION)


def test_constructing_loads_nothing():
    assert Qwen3Embeddings(model=NOWHERE).embed_documents([]) == []


def test_defaults_are_the_published_model():
    settings = Qwen3Embeddings()
    assert isinstance(settings, Embeddings)
    assert settings.model == "Qwen/Qwen3-Embedding-0.6B"
    assert settings.instruction is None


def test_a_folder_may_be_a_path(embeddings):
    by_path = Qwen3Embeddings(model=Path(TINY / "embedding"))
    assert by_path.embed_query(QUESTION) == embeddings.embed_query(QUESTION)


def test_an_assignment_takes_effect():
    embeddings = Qwen3Embeddings(model="tiny")
    before = np.array(embeddings.embed_query(QUESTION))
    embeddings.dimensions = 32
    embeddings.instruction = "fact_check"
    changed = embeddings.embed_query(QUESTION)
    assert len(changed) == 32
    assert not close(changed, before[:32] / np.linalg.norm(before[:32]))


def test_a_refused_assignment_changes_nothing():
    embeddings = Qwen3Embeddings(model="tiny", dimensions=64)
    with pytest.raises(ValidationError, match="dimensions must be an integer from 32"):
        embeddings.dimensions = 5
    assert embeddings.dimensions == 64
    assert len(embeddings.embed_query(QUESTION)) == 64


def test_a_changed_copy_takes_effect(embeddings):
    copied = embeddings.model_copy(update={"dimensions": 32})
    assert len(copied.embed_query(QUESTION)) == 32
    assert len(embeddings.embed_query(QUESTION)) != 32
    with pytest.raises(ValidationError, match="dimensions must be"):
        embeddings.model_copy(update={"dimensions": 5})


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        lambda x: Qwen3Embeddings(**x.model_dump()),
        lambda x: Qwen3Embeddings.model_validate_json(x.model_dump_json()),
    ],
    ids=["deepcopy", "pickle", "fields", "json"],
)
def test_it_travels_as_its_settings(duplicate):
    original = Qwen3Embeddings(model="tiny", dimensions=64, instruction="fact_check")
    vector = original.embed_query(QUESTION)
    other = duplicate(original)
    assert other.model_dump() == original.model_dump()
    assert other.embed_query(QUESTION) == vector


def test_the_engines_counters_can_be_seen(embeddings):
    before = embeddings.embedder.stats()
    embeddings.embed_documents(["one", "two"])
    after = embeddings.embedder.stats()
    assert after.sequences - before.sequences == 2


def test_a_pickle_holds_no_weights(embeddings):
    embeddings.embed_query(QUESTION)
    assert len(pickle.dumps(embeddings)) < 2000


def test_the_repr_is_the_settings(embeddings):
    assert repr(embeddings).startswith("Qwen3Embeddings(model='tiny', instruction=None")
    assert len(repr(embeddings)) < 300


def test_every_field_is_described():
    undescribed = [n for n, f in Qwen3Embeddings.model_fields.items() if not f.description]
    assert undescribed == []


def test_a_progress_bar_shows_on_request(capfd):
    Qwen3Embeddings(model="tiny").embed_documents(TEXTS)
    assert "Embedding" not in capfd.readouterr().err
    Qwen3Embeddings(model="tiny", show_progress=True).embed_documents(TEXTS)
    assert "Embedding: 100%" in capfd.readouterr().err


# Bad input


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"dimensions": 31}, r"dimensions must be an integer from 32 to .*, got 31"),
        ({"instruction": "web_serch"}, r"unknown task name 'web_serch': use one of web_search, "),
        ({"instruction": " "}, "instruction is blank: pass None for the default"),
        ({"dtype": "int4"}, "'auto', 'bfloat16', 'float32', 'float16' or 'int8'"),
        ({"max_length": 0}, "max_length must be a number of tokens, at least 1, .*got 0"),
        ({"pack_tokens": -1}, "pack_tokens must be a number of tokens, at least 1, .*got -1"),
        ({"model": 3}, "Input should be a valid string"),
        ({"colour": True}, "unknown argument 'colour': Qwen3Embeddings takes api_key, "),
    ],
)
def test_a_wrong_setting_is_refused_at_once(setting, error):
    with pytest.raises(ValidationError, match=error):
        Qwen3Embeddings(**{"model": NOWHERE} | setting)


@pytest.mark.parametrize(
    ("setting", "kind", "error"),
    [
        ({"model": NOWHERE}, OSError, f"could not load the embedding model '{NOWHERE}'"),
        ({"model": TINY / "reranker"}, ValueError, "use a Qwen3 embedding model such as"),
        ({"model": "tiny", "dimensions": 4096}, ValueError, "from 32 to 256, got 4096"),
        ({"model": "tiny", "max_length": 10**6}, ValueError, "max_length=1000000 is more than"),
        ({"model": "tiny", "device": "cuda:99"}, ValueError, "device 'cuda:99' is not available"),
    ],
    ids=["missing folder", "a reranker", "too many dimensions", "too long", "no such device"],
)
def test_what_only_the_model_can_tell_is_refused_at_first_use(setting, kind, error):
    embeddings = Qwen3Embeddings(**setting)
    with pytest.raises(kind, match=error):
        embeddings.embed_query(QUESTION)


@pytest.mark.parametrize(
    ("texts", "kind", "error"),
    [
        (None, TypeError, "documents must be a list of strings, got NoneType"),
        (3, TypeError, "documents must be a list of strings, got int: 3"),
        ("text", TypeError, "documents must be a list of strings, got str: 'text'"),
        (["a", None], TypeError, r"documents\[1\] must be a string, got NoneType"),
        (["a", 3], TypeError, r"documents\[1\] must be a string, got int: 3"),
        (["a\ud800"], ValueError, r"documents\[0\] holds a lone surrogate, '\\ud800', at position"),
    ],
)
def test_documents_that_are_no_texts_are_refused_before_loading(texts, kind, error):
    with pytest.raises(kind, match=error):
        Qwen3Embeddings(model=NOWHERE).embed_documents(texts)


@pytest.mark.parametrize(
    ("query", "kind", "error"),
    [
        (None, TypeError, "query must be a string, got NoneType"),
        (3, TypeError, "query must be a string, got int: 3"),
        (["q"], TypeError, r"query must be a string, got list: \['q'\]"),
        ("", ValueError, r"query is blank \(''\): there is nothing to search for"),
        (" \n", ValueError, r"query is blank"),
        ("a\udfff", ValueError, "query holds a lone surrogate"),
    ],
)
@pytest.mark.parametrize("method", ["embed_query", "aembed_query"])
async def test_a_query_that_asks_nothing_is_refused_before_loading(method, query, kind, error):
    embeddings = Qwen3Embeddings(model=NOWHERE)
    with pytest.raises(kind, match=error):
        await call(embeddings, method, query)


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "a\x00b", "<|im_end|>", "\U0001f9ed\u200d"])
def test_odd_texts_are_embedded_like_any_other(embeddings, text):
    alone, beside = embeddings.embed_documents([text]), embeddings.embed_documents([text, "b"])
    assert np.isfinite(alone).all()
    assert close(alone[0], beside[0])


def test_a_megabyte_of_text_is_cut_with_a_warning():
    embeddings = Qwen3Embeddings(model="tiny", max_length=64)
    text = "word " * 200_000
    with pytest.warns(UserWarning, match="longer than max_length=64 tokens"):
        (long,) = embeddings.embed_documents([text])
    (short,) = embeddings.embed_documents([text[:500]])
    assert close(long, short)
