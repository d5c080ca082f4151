"""Equal texts are one row with all their places, whatever is added, changed, deleted or killed."""

import importlib
import json

import pytest
from pymilvus import MilvusClient

from qwen3_retrieval.ingest.chunks import MAX_PLACES
from qwen3_retrieval.ingest.framework import FRAMEWORKS
from tests.ingest.conftest import write

LICENCE = "All rights are reserved."


@pytest.fixture
def copies(corpus):
    """Five files, three of which hold a text, one under another heading, one as a link."""
    write(corpus / "a.md", f"# A\n\n{LICENCE}\n")
    write(corpus / "b.md", f"# A\n\n{LICENCE}\n")
    (corpus / "c.md").symlink_to(corpus / "a.md")
    return corpus


def row_of(found, text=LICENCE):
    (row,) = (row for row in found.values() if text in row["text"])
    return row


def sources(found, text=LICENCE):
    return row_of(found, text)["sources"]


def test_copies_and_links_are_one_row(framework, ingest, rows, copies, capsys):
    assert ingest(framework) == 0
    out = capsys.readouterr().out
    assert "chunks    7: 7 written, 0 deleted; 1 stand in several places\n" in out
    row = row_of(rows(framework))
    assert (row["source"], row["title"], row["sources"]) == ("a.md", "A", ["a.md", "b.md", "c.md"])
    assert row["places"] == [{"source": f"{name}.md", "title": "A"} for name in "abc"]
    assert ingest(framework) == 0
    assert "6 unchanged\nchunks    7: 0 written, 0 deleted; 1 stand" in capsys.readouterr().out


def test_each_source_finds_the_row(framework, ingest, uri, copies):
    ingest(framework)
    client = MilvusClient(uri)
    client.load_collection("handbook")
    for name in "abc":
        found = client.query("handbook", f'json_contains(sources, "{name}.md")')
        assert len(found) == 1


def test_the_frameworks_own_filters_find_each_source(framework, ingest, uri, copies):
    ingest(framework)
    if framework == "langchain":
        from langchain_milvus import Milvus

        from langchain_qwen3 import Qwen3Embeddings, milvus_kwargs

        embeddings = Qwen3Embeddings(model="tiny")
        langchain = Milvus(**milvus_kwargs(embeddings, uri=uri, collection_name="handbook"))
        found = langchain.similarity_search("?", k=9, expr='json_contains(sources, "b.md")')
        texts = [document.page_content for document in found]
    else:
        from llama_index.core import VectorStoreIndex
        from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
        from llama_index.vector_stores.milvus import MilvusVectorStore

        import llama_index_qwen3 as ours

        model = ours.Qwen3Embedding(model="tiny")
        arguments = ours.milvus_kwargs(
            model, uri=uri, collection_name="handbook", use_async_client=False
        )
        store = MilvusVectorStore(**arguments)
        index = VectorStoreIndex.from_vector_store(store, embed_model=model)
        only = MetadataFilter(key="sources", value="b.md", operator=FilterOperator.CONTAINS)
        retriever = index.as_retriever(similarity_top_k=9, filters=MetadataFilters(filters=[only]))
        texts = [node.text for node in retriever.retrieve("?")]
    assert texts == [f"# A\n\n{LICENCE}"]


def test_a_place_more_or_less_keeps_the_others(framework, ingest, rows, copies, capsys):
    (copies / "b.md").unlink()
    (copies / "c.md").unlink()
    ingest(framework)
    (first,) = (id_ for id_, row in rows(framework).items() if LICENCE in row["text"])
    write(copies / "later.md", f"# A\n\n{LICENCE}\n")  # another run finds another place
    capsys.readouterr()
    assert ingest(framework) == 0
    assert "7: 0 written, 0 deleted, 1 updated; 1 stand in several" in capsys.readouterr().out
    found = rows(framework)
    assert sources(found) == ["a.md", "later.md"]
    assert row_of(found) is found[first]
    write(copies / "a.md", "# A\n\nSome rights are given up.\n")
    ingest(framework)
    found = rows(framework)
    assert sources(found) == ["later.md"]
    assert "places" not in row_of(found) or len(row_of(found)["places"]) == 1
    (copies / "later.md").unlink()
    ingest(framework, "--delete-missing")
    assert not any(LICENCE in row["text"] for row in rows(framework).values())


def test_a_place_of_its_own_in_one_file(framework, ingest, rows, corpus):
    """The same words below two headings, on two pages, are one row with both titles."""
    text = "word " * 50
    write(corpus / "a.txt", text)
    write(corpus / "b.html", f"<title>Page</title><p>{text}")
    ingest(framework)
    row = row_of(rows(framework), text.strip())
    assert row["places"] == [{"source": "a.txt"}, {"source": "b.html", "title": "Page"}]


def test_records_with_other_fields_stay_rows_of_their_own(framework, ingest, rows, corpus):
    lines = [{"text": LICENCE, "author": "Ada"}, {"text": LICENCE, "author": "Grace"}]
    write(corpus / "faq.jsonl", "\n".join(map(json.dumps, [*lines, *lines])))
    ingest(framework)
    found = [row for row in rows(framework).values() if row["text"] == LICENCE]
    assert sorted(row["author"] for row in found) == ["Ada", "Grace"]


def test_a_text_in_very_many_places_has_several_rows(framework, ingest, rows, corpus):
    count = 2 * MAX_PLACES + 3
    for number in range(count):
        write(corpus / f"{number:03}.txt", LICENCE)
    assert ingest(framework) == 0
    found = [row for row in rows(framework).values() if row["text"] == LICENCE]
    assert len(found) == 3
    assert sum(len(row["sources"]) for row in found) == count
    before = rows(framework)
    assert ingest(framework, "--no-resume") == 0
    assert rows(framework).keys() == before.keys()


def test_a_run_killed_before_the_places_are_written_goes_on(
    framework, ingest, rows, copies, monkeypatch
):
    (copies / "b.md").unlink()
    (copies / "c.md").unlink()
    ingest(framework)
    write(copies / "b.md", f"# A\n\n{LICENCE}\n")
    write(copies / "a.md", "# A\n\nAnother text.\n")
    module = importlib.import_module(FRAMEWORKS[framework][1])
    write_rows = module.IngestFramework.write

    def stop(self, chunks):
        if any(LICENCE in chunk.text for chunk in chunks):
            raise KeyboardInterrupt
        write_rows(self, chunks)

    with monkeypatch.context() as patch:
        patch.setattr(module.IngestFramework, "write", stop)
        assert ingest(framework) == 130
    assert sources(rows(framework)) == ["a.md"]  # as before
    assert ingest(framework) == 0
    assert sources(rows(framework)) == ["b.md"]


def test_a_collection_of_an_older_version_is_refused(framework, ingest, rows, uri, capsys):
    ingest(framework)
    client = MilvusClient(uri)
    found = rows(framework)
    key = "pk" if framework == "langchain" else "id"
    row = next(iter(found.values()))
    client.insert("handbook", [row | {key: row[key].replace("-", "-0123456789abcdef-")}])
    assert ingest(framework) == 1
    assert "an older version filled the collection 'handbook'" in capsys.readouterr().err
