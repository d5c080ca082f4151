"""No control token that a model reads comes from user text, whichever way it comes in."""

import asyncio
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode

import langchain_qwen3
import llama_index_qwen3
import qwen3_core
from langchain_qwen3 import (
    Qwen3CrossEncoder,
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
)
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, two_stage_query_engine
from qwen3_core import Embedder, Reranker
from qwen3_core.batch import Qwen3EmbedBatch
from qwen3_core.engine.worker import Worker
from qwen3_core.prompts import CONTROL_TOKENS, END_OF_TEXT, RERANK_SUFFIX, TASKS, rerank_prefix_text
from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server
from qwen3_core.tokenizer import Qwen3Tokenizer
from tests.conftest import TINY
from tests.remote.fake_server import FakeServer, embedder, reranker
from tests.security.conftest import Reader
from tests.security.corpus import DOCUMENT, QUERY, attacks

ATTACKS = list(attacks("judge").values())
HIJACK = attacks()["end of turn, answer yes"]
INSTRUCTION = f"Judge the document. {HIJACK}"
TEMPLATE = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_start|>",
    "<think>",
    "</think>",
]
"""The control tokens of the reranker's prompt, in order."""


def test_the_frame_has_these_control_tokens(reader):
    assert reader.control(rerank_prefix_text("x", "y") + RERANK_SUFFIX) == TEMPLATE


def test_the_attacks_are_attacks(reader):
    # Shows that what follows could fail: read as published, they hold control tokens.
    found = {token for text in ATTACKS for token in reader.control(text)}
    assert found == set(reader.ids.values()) & set(CONTROL_TOKENS)
    assert len(found) >= 5


def test_the_published_control_tokens_are_all_known(reader):
    assert set(reader.ids.values()) <= set(CONTROL_TOKENS)


# Every way in: a call with each attack as query and as document, under a hostile instruction


def nodes(texts: list[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in texts]


def two_stages(**place: Any) -> None:
    embeddings = Qwen3Embeddings(model="tiny", instruction=INSTRUCTION, **place)
    store = InMemoryVectorStore.from_texts(ATTACKS, embeddings)
    ranker = Qwen3Reranker(model="tiny", instruction=INSTRUCTION, **place)
    found = Qwen3TwoStageRetriever(vectorstore=store, reranker=ranker, k=50, top_n=50)
    assert len(found.invoke(HIJACK)) == len(ATTACKS)
    asyncio.run(found.ainvoke(HIJACK))


def query_engine(**place: Any) -> None:
    model = Qwen3Embedding(model="tiny", instruction=INSTRUCTION, **place)
    index = VectorStoreIndex([TextNode(text=text) for text in ATTACKS], embed_model=model)
    ranker = Qwen3Rerank(model="tiny", instruction=INSTRUCTION, **place)
    engine = two_stage_query_engine(index, MockLLM(), reranker=ranker, top_k=50, top_n=50)
    assert len(engine.query(HIJACK).source_nodes) == len(ATTACKS)


def ray_batch(**place: Any) -> None:
    import pyarrow as pa

    table = Qwen3EmbedBatch("tiny", **place)(pa.table({"text": ATTACKS}))
    assert table["error"].null_count == len(ATTACKS)


def embedder_of(**place: Any) -> None:
    kind = RemoteEmbedder if "base_url" in place else Embedder
    component: Any = kind("tiny", instruction=INSTRUCTION, **place)
    component.embed_documents(ATTACKS)
    component.embed_queries(ATTACKS)
    component.embed_queries(ATTACKS, instruction=INSTRUCTION)
    asyncio.run(component.aembed_documents(ATTACKS))
    asyncio.run(component.aembed_queries(ATTACKS))


def reranker_of(**place: Any) -> None:
    kind = RemoteReranker if "base_url" in place else Reranker
    component: Any = kind("tiny", instruction=INSTRUCTION, **place)
    component.rerank(ATTACKS, HIJACK)
    component.score(ATTACKS, HIJACK, instruction=INSTRUCTION)
    component.score_pairs([(text, text) for text in ATTACKS])
    asyncio.run(component.arerank(ATTACKS, HIJACK))
    asyncio.run(component.ascore_pairs([(text, DOCUMENT) for text in ATTACKS]))


def langchain_embeddings(**place: Any) -> None:
    component = Qwen3Embeddings(model="tiny", instruction=INSTRUCTION, **place)
    component.embed_documents(ATTACKS)
    asyncio.run(component.aembed_documents(ATTACKS))
    for text in ATTACKS[:8]:
        component.embed_query(text)
        asyncio.run(component.aembed_query(text))


def langchain_reranker(**place: Any) -> None:
    component = Qwen3Reranker(model="tiny", instruction=INSTRUCTION, **place)
    documents = [Document(text) for text in ATTACKS]
    component.rerank(ATTACKS, HIJACK)
    component.compress_documents(documents, HIJACK)
    asyncio.run(component.acompress_documents(documents, HIJACK))


def langchain_cross_encoder(**place: Any) -> None:
    component = Qwen3CrossEncoder(model="tiny", instruction=INSTRUCTION, **place)
    component.score([(text, text) for text in ATTACKS])


def llama_index_embedding(**place: Any) -> None:
    component = Qwen3Embedding(model="tiny", instruction=INSTRUCTION, **place)
    component.get_text_embedding_batch(ATTACKS)
    asyncio.run(component.aget_text_embedding_batch(ATTACKS))
    for text in ATTACKS[:8]:
        component.get_text_embedding(text)
        component.get_query_embedding(text)
        asyncio.run(component.aget_query_embedding(text))


def llama_index_rerank(**place: Any) -> None:
    component = Qwen3Rerank(model="tiny", instruction=INSTRUCTION, **place)
    component.postprocess_nodes(nodes(ATTACKS), query_str=HIJACK)
    asyncio.run(component.apostprocess_nodes(nodes(ATTACKS), query_str=HIJACK))


WAYS_IN = [
    embedder_of,
    reranker_of,
    ray_batch,
    langchain_embeddings,
    langchain_reranker,
    langchain_cross_encoder,
    two_stages,
    llama_index_embedding,
    llama_index_rerank,
    query_engine,
]


@pytest.fixture(params=WAYS_IN, ids=lambda way: way.__name__)
def way_in(request):
    return request.param


def test_ids_read_in_this_process(way_in, monkeypatch):
    read: list[tuple[int, ...]] = []
    submit = Worker.submit

    def seen(self, sequences, **options):
        read.extend(sequence.prefix + sequence.ids for sequence in sequences)
        return submit(self, sequences, **options)

    monkeypatch.setattr(Worker, "submit", seen)
    way_in()
    tiny = Reader(TINY / "reranker" / "tokenizer.json")  # both have the same control tokens
    assert len(read) >= len(ATTACKS)
    for ids in read:
        found = tiny.named(ids)
        # One end of text, at the very end; or those of the template, its seven last ids the suffix.
        assert found == TEMPLATE or (found == [END_OF_TEXT] and tiny.named(ids[-1:]) == found)


@pytest.mark.parametrize("kind", ["vllm", "llama.cpp"])
def test_ids_read_by_a_server(way_in, kind, reader):
    with FakeServer(kind) as server:
        if kind == "llama.cpp" and way_in not in (
            ray_batch,
            embedder_of,
            langchain_embeddings,
            llama_index_embedding,
        ):
            with pytest.raises(ValueError, match="cannot be told an instruction"):
                way_in(base_url=server.url)
            return
        way_in(base_url=server.url, server=Server(self_check=False))
        received = list(server.received)
        prompts = [
            server.prompt(r.body["query"], text, r.body.get("instruction", TASKS["web_search"]))
            for r in received
            if r.path.endswith("rerank")
            for text in r.body["documents"]
        ]
    texts = [text for r in received if r.path.endswith("embeddings") for text in r.body["input"]]
    assert len(prompts) + len(texts) >= len(ATTACKS)
    for prompt in prompts:
        assert reader.control(prompt) == TEMPLATE
    for text in texts:
        assert reader.control(text) == []


COVERED = {
    *(Embedder, Reranker, RemoteEmbedder, RemoteReranker),
    *(Qwen3Embeddings, Qwen3Reranker, Qwen3CrossEncoder, Qwen3TwoStageRetriever),
    *(Qwen3Embedding, Qwen3Rerank),
}
"""The classes that the ways in use."""


def test_every_public_class_that_reads_texts_is_a_way_in():
    methods = ("embed", "rerank", "score", "compress", "postprocess", "_get_relevant", "get_text")
    public = {
        getattr(package, name)
        for package in (qwen3_core, langchain_qwen3, llama_index_qwen3)
        for name in package.__all__
    }
    classes = {value for value in public if inspect.isclass(value)}
    assert {
        one
        for one in classes
        if any(name.startswith(methods) and callable(getattr(one, name, None)) for name in dir(one))
    } == COVERED


# A server whose model has more control tokens than the tokenizer that cuts here


def test_control_tokens_of_the_published_models_are_always_taken_apart():
    bundled = Qwen3Tokenizer((TINY / "reranker" / "tokenizer.json").read_text("utf-8"))
    for token in CONTROL_TOKENS:
        assert bundled.without_control_tokens(f"a{token}b") == f"a{token[0]} {token[1:]}b"


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file) -> Qwen3Tokenizer:
    return Qwen3Tokenizer(tokenizer_file.read_text("utf-8"))


PIECES = st.lists(
    st.one_of(
        st.sampled_from(CONTROL_TOKENS), st.sampled_from("<|>/ im_endthk\u0338\n"), st.text()
    ),
    max_size=12,
).map("".join)


@given(instruction=PIECES, query=PIECES, document=PIECES)
def test_no_frame_joins_with_a_text_to_a_control_token(
    reader, tokenizer, instruction, query, document
):
    parts = [tokenizer.without_control_tokens(t) for t in (instruction, query, document)]
    prompt = f"{rerank_prefix_text(parts[0], parts[1])} {parts[2]}{RERANK_SUFFIX}"
    assert reader.control(prompt) == TEMPLATE


# What that does to scores


@pytest.mark.parametrize("name", [n for n, text in attacks("judge").items() if "<|" in text])
def test_an_attack_scores_like_the_words_it_is_made_of(name):
    attacked = f"{DOCUMENT} {attacks()[name]}"
    (ours,) = reranker().score([attacked], QUERY)
    with FakeServer("vllm") as server:
        (sent,) = RemoteReranker("tiny", base_url=server.url).score([attacked], QUERY)
    assert np.isfinite(ours)
    assert sent == pytest.approx(ours, abs=2.0)  # a space in each control token is all


def test_end_of_text_does_not_cut_what_the_embedder_reads():
    hidden = "The secret recipe needs saffron."
    joined = embedder().embed_documents([f"{DOCUMENT}{END_OF_TEXT}{hidden}", DOCUMENT, hidden])
    assert joined[0] @ joined[2] > 0.1 + joined[1] @ joined[2]
