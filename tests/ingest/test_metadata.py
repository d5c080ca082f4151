"""`--metadata-keys`: what is embedded before each text, in both frameworks."""

import numpy as np
import pytest

from qwen3_core import Embedder
from tests.ingest.conftest import VECTOR_FIELDS, texts, write

pytestmark = pytest.mark.integration  # databases, of a second each

LICENCE = "All rights are reserved."


@pytest.fixture
def copies(corpus):
    """A text under one heading twice, and once under another."""
    for name, heading in (("a", "A"), ("b", "A"), ("c", "C")):
        write(corpus / f"{name}.md", f"---\ntitle: {heading}\n---\n{LICENCE}\n")
    return corpus


def test_titles_are_embedded_and_texts_stored(framework, ingest, rows):
    assert ingest(framework, "--metadata-keys", "title", "author") == 0
    found = rows(framework)
    plain = {row["text"]: row for row in found.values()}
    for text, read in (
        ("# Keys\n\nThe spare keys hang in the archive.", "title: Keys\n\n{}"),
        ("Beans are bought on Mondays.", "author: Ada\n\n{}"),
        ("Say it twice.", "{}"),
    ):
        (vector,) = Embedder("tiny").embed_documents([read.format(text)])
        stored = plain[text][VECTOR_FIELDS[framework]]
        assert np.dot(stored, vector) == pytest.approx(1, abs=1e-5)


def test_another_setting_is_refused(framework, ingest, rows, capsys):
    assert ingest(framework, "--metadata-keys", "title") == 0
    before = texts(rows(framework))
    for other in ((), ("--metadata-keys", "author")):
        assert ingest(framework, *other) == 1
        err = capsys.readouterr().err
        assert "ingest: --metadata-keys: " in err
        assert "metadata_keys ['title'], not" in err
    assert texts(rows(framework)) == before
    assert ingest(framework, "--metadata-keys", "title") == 0
    assert "0 written, 0 deleted" in capsys.readouterr().out


def test_equal_texts_under_other_titles_are_other_rows(framework, ingest, rows, copies, capsys):
    assert ingest(framework, "--metadata-keys", "title") == 0
    found = [row for row in rows(framework).values() if row["text"] == LICENCE]
    assert sorted((row["title"], row["sources"]) for row in found) == [
        ("A", ["a.md", "b.md"]),
        ("C", ["c.md"]),
    ]
    (copies / "b.md").unlink()
    assert ingest(framework, "--metadata-keys", "title", "--delete-missing") == 0
    again = [row for row in rows(framework).values() if row["text"] == LICENCE]
    assert sorted(row["sources"] for row in again) == [["a.md"], ["c.md"]]
    vectors = {row["title"]: row[VECTOR_FIELDS[framework]] for row in (*found, *again)}
    for title, vector in vectors.items():
        (expected,) = Embedder("tiny").embed_documents([f"title: {title}\n\n{LICENCE}"])
        assert np.dot(vector, expected) == pytest.approx(1, abs=1e-5)


def test_a_record_with_a_list_is_left_out_and_named(framework, ingest, rows, capsys):
    assert ingest(framework, "--metadata-keys", "tags") == 3
    err = capsys.readouterr().err
    assert "faq.jsonl: metadata that cannot be embedded (metadata 'tags' is a list" in err
    assert "Leave is asked for in writing." not in texts(rows(framework))
    assert "Say it twice." in texts(rows(framework))


@pytest.mark.parametrize("key", ["", " ", "sources", "places"])
def test_bad_keys_are_refused(ingest, key, capsys):
    with pytest.raises(SystemExit):
        ingest("langchain", "--metadata-keys", key)
    assert "--metadata-keys holds" in capsys.readouterr().err


def test_the_reranker_reads_what_was_embedded(framework, ingest, uri):
    assert ingest(framework, "--metadata-keys", "title") == 0
    question = "Where are the spare keys?"
    read = "title: Keys\n\n# Keys\n\nThe spare keys hang in the archive."
    if framework == "langchain":
        import langchain_qwen3 as langchain

        store = langchain.open_milvus(
            langchain.Qwen3Embeddings(model="tiny"), uri=uri, collection_name="handbook"
        )
        reranker = langchain.Qwen3Reranker(model="tiny")
        retriever = langchain.Qwen3TwoStageRetriever(
            vectorstore=store, reranker=reranker, k=50, top_n=50
        )
        documents = retriever.invoke(question)
        (score,) = [d.metadata["relevance_score"] for d in documents if "spare" in d.page_content]
        core = reranker.reranker
    else:
        import llama_index_qwen3 as llama_index

        embed_model = llama_index.Qwen3Embedding(model="tiny")
        rerank = llama_index.Qwen3Rerank(model="tiny")
        nodes = llama_index.Qwen3TwoStageRetriever(
            llama_index.open_milvus(embed_model, uri=uri, collection_name="handbook"),
            embed_model=embed_model,
            reranker=rerank,
            top_k=50,
            top_n=50,
        ).retrieve(question)
        (score,) = [n.score for n in nodes if "spare" in n.node.get_content()]
        core = rerank.reranker
    assert score == pytest.approx(core.rerank([read], question)[0].score, abs=1e-4)
