"""No key or token shows in what is composed of components, or in a run that fills a collection.

The components themselves: tests/remote/test_secrets.py.
"""

import logging
import pickle
import sys
import traceback
from dataclasses import asdict
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.llms.openai_like import OpenAILike
from pydantic import SecretStr

from langchain_qwen3 import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
)
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, two_stage_query_engine
from qwen3_core import Ranked, Stats
from qwen3_core.batch import Qwen3EmbedBatch
from qwen3_core.milvus.collection import check_uri
from qwen3_core.remote import RemoteEmbedder, Server, ServerError
from qwen3_retrieval.ingest.__main__ import main
from qwen3_retrieval.ingest.settings import IngestSettings
from tests.conftest import naming
from tests.remote.fake_server import FakeServer
from tests.security.corpus import DOCUMENT, QUERY

KEY = "sk-5ecret-0f-the-h0use"
SERVER = Server(kind="vllm", retries=0)
TEXTS = [DOCUMENT, "Milvus stores data in object storage.", "Bread is baked."]


@pytest.fixture
def locked():
    """A server that wants the key."""
    with FakeServer(key=KEY) as server:
        yield server


def options(url: str) -> dict[str, Any]:
    return {"model": "tiny", "base_url": url, "api_key": KEY, "server": SERVER}


def retriever(url: str) -> tuple[Any, Any]:
    store = InMemoryVectorStore.from_texts(TEXTS, Qwen3Embeddings(**options(url)))
    found = Qwen3TwoStageRetriever(vectorstore=store, reranker=Qwen3Reranker(**options(url)))
    return found, lambda: found.invoke(QUERY)


def chain(url: str) -> tuple[Any, Any]:
    llm = ChatOpenAI(model="x", base_url=url, api_key=SecretStr(KEY), max_retries=0)
    found = create_rag_chain(retriever(url)[0], llm)
    return found, lambda: found.steps[1].invoke({"question": QUERY})  # type: ignore[attr-defined]


def query_engine(url: str) -> tuple[Any, Any]:
    model = Qwen3Embedding(**options(url))
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=model)
    llm = OpenAILike(model="x", api_base=url, api_key=KEY, is_chat_model=True, max_retries=0)
    engine = two_stage_query_engine(index, llm, reranker=Qwen3Rerank(**options(url)))
    from llama_index.core import QueryBundle

    return engine, lambda: engine.retrieve(QueryBundle(QUERY))


def embed_batch(url: str) -> tuple[Any, Any]:
    import pyarrow as pa

    batch = Qwen3EmbedBatch(**options(url))
    return batch, lambda: batch(pa.table({"text": TEXTS}))


def fingerprint(url: str) -> tuple[Any, Any]:
    embedder = RemoteEmbedder(**options(url))
    return embedder.fingerprint, embedder.fingerprint.to_json


@pytest.mark.parametrize("make", [retriever, chain, query_engine, embed_batch, fingerprint])
def test_no_form_log_result_or_error_of_a_composition_shows_the_key(make, locked, caplog):
    caplog.set_level(1)
    for name in ("openai", "httpx", "httpcore"):
        caplog.set_level(1, logger=name)
    thing, use = make(locked.url)
    shown = [repr(use()), repr(thing), str(thing), f"{thing}", repr([thing, {"x": thing}])]
    if make in (retriever, chain):
        shown.append(dumps(thing))
    if make in (embed_batch, fingerprint):
        shown.append(pickle.dumps(thing).decode("latin-1"))
    if make is fingerprint:
        shown.append(repr(asdict(thing)))
    else:
        locked.key = "another"  # now it is refused
        with pytest.raises(ServerError, match="answered 401") as caught:
            use()
        shown += traceback.format_exception(caught.value)
    assert caplog.records
    shown += [record.getMessage() + repr(record.args) for record in caplog.records]
    assert not [text for text in shown if KEY in text]


def test_public_results_hold_no_settings():
    # What else is public holds no key, because it holds none of the settings.
    for kind in (Ranked, Stats):
        assert not {"api_key", "token", "server", "base_url"} & set(kind.__annotations__)
    assert not {"api_key", "token"} & set(Server.__dataclass_fields__)
    assert "api_key" not in Document.model_fields


# Milvus's token


def test_the_settings_of_an_ingest_do_not_show_the_token(tmp_path):
    settings = IngestSettings(corpus=tmp_path, token=KEY)
    assert settings.token == KEY
    assert KEY not in repr(settings) + str(settings) + f"{settings}"


def test_an_address_that_holds_a_password_is_refused_without_being_shown():
    with pytest.raises(ValueError, match=naming("uri", "token='user:password'")) as caught:
        check_uri(f"http://root:{KEY}@localhost:19530")
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("origin", ["argument", "environment"])
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_no_output_log_journal_or_error_of_an_ingest_shows_the_token(
    origin, ends, tmp_path, monkeypatch, capfd, caplog
):
    caplog.set_level(logging.DEBUG)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.md").write_text("# Milvus\n\nIt stores data.\n")
    monkeypatch.chdir(tmp_path)
    database = tmp_path / "milvus.db"
    if ends == "badly":
        database.write_text("no database")
    arguments = ["--corpus", str(corpus), "--uri", str(database), "--model", "tiny"]
    if origin == "argument":
        arguments += ["--token", KEY]
    else:
        monkeypatch.setenv("MILVUS_TOKEN", KEY)
    assert main([*arguments, "--debug"] if ends == "well" else arguments) == (ends == "badly")
    out, err = capfd.readouterr()
    assert "chunks" in out or "ingest:" in err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    shown = [out, err, *(record.getMessage() for record in caplog.records)]
    assert not [text for text in shown if KEY in text]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    if "pymilvus" in sys.modules and database.is_dir():
        from tests.ingest.conftest import release

        release(str(database))
