"""The command end to end, in both frameworks, on Milvus Lite with the bundled model."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient, MilvusException

from qwen3_core import Embedder
from qwen3_core.common.validation import ArgumentError
from qwen3_retrieval.command import in_one_line
from qwen3_retrieval.ingest import framework as framework_module
from qwen3_retrieval.ingest.__main__ import OPTIONS
from qwen3_retrieval.ingest.framework import FRAMEWORKS
from tests.conftest import ROOT, TINY
from tests.ingest.conftest import ID_FIELDS, VECTOR_FIELDS, release, texts, write

EVERYTHING = sorted(
    [
        "# Keys\n\nThe spare keys hang in the archive.",
        "# Opening hours\n\nThe office opens at eight.",
        "Pour in vinegar and water, then rinse twice.",
        "Beans are bought on Mondays.",
        "Leave is asked for in writing.",
        "Say it twice.",
    ]
)


def flat(found):
    """Texts without the white space that splitters treat in their own ways."""
    return sorted(" ".join(text.split()) for text in found)


# What is written


def test_every_text_becomes_a_row(framework, ingest, rows, capsys):
    assert ingest(framework) == 0
    assert flat(texts(rows(framework))) == flat(EVERYTHING)
    summary = capsys.readouterr().out
    assert "files     3: 3 read, 0 unchanged\n" in summary
    assert "chunks    6: 6 written, 0 deleted\n" in summary
    assert "failures  0\n" in summary
    tokens = int(summary.partition("tokens")[2].split()[0])
    assert tokens > 6 * 3


def test_a_database_of_its_own(framework, ingest, uri, capsys):
    assert ingest(framework, "--db-name", "tenant") != 0
    assert "there is no database 'tenant'" in capsys.readouterr().err
    MilvusClient(uri).create_database("tenant")
    assert ingest(framework, "--db-name", "tenant") == 0
    (found,) = MilvusClient(uri, db_name="tenant").query("handbook", output_fields=["count(*)"])
    assert found["count(*)"] == 6
    assert not MilvusClient(uri).has_collection("handbook")
    assert ingest(framework) == 0  # all anew, since the journal is another
    (found,) = MilvusClient(uri).query("handbook", output_fields=["count(*)"])
    assert found["count(*)"] == 6


def test_vectors_are_those_of_the_text_alone(framework, ingest, rows):
    ingest(framework, "--dtype", "float32", "--dimensions", "64")
    found = list(rows(framework).values())
    embedder = Embedder("tiny", dtype="float32", dimensions=64)
    expected = embedder.embed_documents([row["text"] for row in found])
    assert np.allclose([row[VECTOR_FIELDS[framework]] for row in found], expected, atol=1e-5)


def test_metadata(framework, ingest, rows):
    ingest(framework)
    found = {row["text"].split(maxsplit=2)[1]: row for row in rows(framework).values()}
    keys, beans, leave = found["Keys"], found["are"], found["is"]
    assert (keys["title"], keys["corpus"], keys["source"]) == ("Keys", "handbook", "office/keys.md")
    assert (beans["author"], beans["record_id"], beans["source"]) == ("Ada", 7, "faq.jsonl")
    assert leave["tags"] == ["hr", '"quoted"']
    assert "title" not in leave


NESTED = """A word before.

# Install

Two ways.

## TCP/IP ##

### Ports

Open 19530.

```sh
# no heading
ls
```

Then start it.

## Pip

Use pip.
"""
PLACES = {
    "Two ways.": "Install",
    "Open 19530.": "Install > TCP/IP > Ports",
    "Then start it.": "Install > TCP/IP > Ports",
    "Use pip.": "Install > Pip",
}


def places(found):
    """Titles of the rows in which the marked sentences stand."""
    return {text: row["title"] for row in found.values() for text in PLACES if text in row["text"]}


def test_a_title_is_the_path_of_headings(framework, ingest, rows, corpus):
    write(corpus / "install.md", NESTED)
    ingest(framework)
    found = rows(framework)
    assert places(found) == PLACES
    (before,) = (row for row in found.values() if row["text"].startswith("A word before."))
    assert "title" not in before


def test_a_second_run_has_nothing_to_do(framework, ingest, rows, capsys):
    ingest(framework)
    before = rows(framework)
    capsys.readouterr()
    assert ingest(framework) == 0
    assert "3: 0 read, 3 unchanged\nchunks    6: 0 written, 0 deleted\n" in capsys.readouterr().out
    assert rows(framework) == before


def test_the_same_weights_under_another_name_change_nothing(framework, ingest, tmp_path, capsys):
    assert ingest(framework) == 0
    capsys.readouterr()
    folder = shutil.copytree(TINY / "embedding", tmp_path / "Docs-Embedding-0___6B")
    assert ingest(framework, "--model", str(folder)) == 0
    assert "3: 0 read, 3 unchanged" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert ingest(framework, "--model", str(folder)) == 1
    assert "were made with model tiny (weights" in capsys.readouterr().err


@pytest.mark.integration
def test_a_run_with_nothing_to_do_loads_no_model(framework, ingest, corpus, uri):
    """In a process of its own, where torch, without which there are no weights, stays away."""
    assert ingest(framework) == 0
    release(uri)
    arguments = ["--corpus", str(corpus), "--uri", uri, "--collection", "handbook"]
    code = (
        "import sys\n"
        "from qwen3_retrieval.ingest.__main__ import main\n"
        "code = main()\n"
        "print(code, 'torch' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--model", "tiny", "--framework", framework],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert "3: 0 read, 3 unchanged\n" in result.stdout, result.stderr
    assert result.stdout.splitlines()[-1] == "0 False"


def test_a_run_with_nothing_to_do_asks_no_server(framework, ingest, capsys):
    """There is none at that address."""
    assert ingest(framework) == 0
    capsys.readouterr()
    assert ingest(framework, "--base-url", "http://localhost:1", "--dimensions", "256") == 0
    assert "3: 0 read, 3 unchanged\n" in capsys.readouterr().out


def test_a_model_that_cannot_be_loaded_leaves_no_collection(
    framework, ingest, tmp_path, uri, capsys
):
    broken = tmp_path / "broken"
    shutil.copytree(TINY / "embedding", broken)
    (broken / "model.safetensors").unlink()
    assert ingest(framework, "--model", str(broken)) == 1
    assert "could not load the embedding model" in capsys.readouterr().err
    assert not MilvusClient(uri).has_collection("handbook")


def test_langchain_opens_the_collection_unchanged(ingest, uri):
    milvus = pytest.importorskip("langchain_milvus")
    pytest.importorskip("langchain_milvus")
    from langchain_qwen3 import Qwen3Embeddings, milvus_kwargs

    ingest("langchain")
    store = milvus.Milvus(
        **milvus_kwargs(Qwen3Embeddings(model="tiny"), uri=uri, collection_name="handbook")
    )
    (best,) = store.similarity_search("Where are the spare keys?", k=1)
    assert "archive" in best.page_content
    assert best.metadata["source"] == "office/keys.md"
    (filtered,) = store.similarity_search("anything", k=5, expr='author == "Ada"')
    assert filtered.page_content == "Beans are bought on Mondays."


def test_llama_index_opens_the_collection_unchanged(ingest, uri):
    milvus = pytest.importorskip("llama_index.vector_stores.milvus")
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import MetadataMode

    from llama_index_qwen3 import Qwen3Embedding, milvus_kwargs

    ingest("llama-index")
    model = Qwen3Embedding(model="tiny")
    arguments = milvus_kwargs(model, uri=uri, collection_name="handbook", use_async_client=False)
    store = milvus.MilvusVectorStore(**arguments)
    index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    (best,) = index.as_retriever(similarity_top_k=1).retrieve("Where are the spare keys?")
    assert "archive" in best.text
    assert best.node.metadata["source"] == "office/keys.md"
    assert best.node.get_content(MetadataMode.EMBED) == best.text
    store.delete(str(best.node.ref_doc_id))  # all of the file, by LlamaIndex's own call
    left = index.as_retriever(similarity_top_k=9).retrieve("Where are the spare keys?")
    assert {node.node.metadata["source"] for node in left} == {"coffee.txt", "faq.jsonl"}


# What changes


def test_a_changed_file_replaces_its_chunks_and_only_those(framework, ingest, rows, corpus, capsys):
    ingest(framework)
    before = rows(framework)
    text = (corpus / "office" / "keys.md").read_text(encoding="utf-8")
    write(corpus / "office" / "keys.md", text.replace("eight", "nine"))
    capsys.readouterr()
    assert ingest(framework) == 0
    assert "3: 1 read, 2 unchanged\nchunks    6: 1 written, 1 deleted\n" in capsys.readouterr().out
    after = rows(framework)
    assert len(before.keys() & after.keys()) == 5
    assert flat(texts(after)) == flat(t.replace("eight", "nine") for t in EVERYTHING)


def test_changed_metadata_replaces_a_row(framework, ingest, rows, corpus):
    ingest(framework)
    records = corpus / "faq.jsonl"
    write(records, records.read_text(encoding="utf-8").replace('"Ada"', '"Grace"'))
    ingest(framework)
    assert {row.get("author") for row in rows(framework).values()} == {None, "Grace"}
    assert len(rows(framework)) == 6


def test_deleted_files_are_removed_on_request_alone(framework, ingest, rows, corpus, capsys):
    ingest(framework)
    (corpus / "coffee.txt").unlink()
    capsys.readouterr()
    assert ingest(framework) == 0
    assert "1 gone (kept, see --delete-missing)" in capsys.readouterr().out
    assert len(rows(framework)) == 6
    assert ingest(framework, "--delete-missing") == 0
    assert "1 gone (removed)" in capsys.readouterr().out
    assert flat(texts(rows(framework))) == [t for t in flat(EVERYTHING) if "vinegar" not in t]


def test_one_file_can_be_brought_up_to_date(framework, ingest, rows, corpus):
    ingest(framework)
    write(corpus / "coffee.txt", "Use lemon.")
    (corpus / "faq.jsonl").unlink()
    assert ingest(framework, "--corpus", str(corpus / "coffee.txt")) == 0
    assert len(rows(framework)) == 6
    assert "Use lemon." in texts(rows(framework))


def test_a_corpus_of_another_name_is_left_alone(framework, ingest, rows, corpus, tmp_path):
    ingest(framework)
    other = tmp_path / "other" / "handbook"
    write(other / "coffee.txt", "Tea is in the cupboard.")
    ingest(framework, "--corpus", str(other), "--name", "tea", "--delete-missing")
    assert len(rows(framework)) == 7


def test_another_splitter_replaces_the_chunks(framework, ingest, rows, capsys):
    ingest(framework)
    capsys.readouterr()
    assert ingest(framework, "--splitter", "none") == 0
    assert "chunks    5: 2 written, 3 deleted\n" in capsys.readouterr().out
    assert len(rows(framework)) == 5


def test_no_resume_embeds_everything_again(framework, ingest, rows, capsys):
    ingest(framework)
    before = rows(framework)
    capsys.readouterr()
    assert ingest(framework, "--no-resume") == 0
    assert "chunks    6: 0 written, 0 deleted, 6 updated\n" in capsys.readouterr().out
    assert rows(framework).keys() == before.keys()


def test_rows_that_milvus_lite_shows_twice_after_a_kill_are_mended(framework, ingest, rows, uri):
    """As if it had been killed after it wrote a segment and before it removed its log."""
    ingest(framework)
    expected = rows(framework)
    log = Path(uri) / "collections" / "handbook" / "wal"
    client = MilvusClient(uri)
    (row,) = client.query("handbook", ids=[min(expected)], output_fields=["*"])
    client.upsert("handbook", [dict(row)])
    kept = {path.name: path.read_bytes() for path in log.iterdir()}
    assert kept
    client.flush("handbook")
    release(uri)
    for name, data in kept.items():
        (log / name).write_bytes(data)
    client = MilvusClient(uri)
    client.load_collection("handbook")
    found = client.query("handbook", f'{ID_FIELDS[framework]} != ""', output_fields=["text"])
    if len(found) == len(expected):
        pytest.skip("this Milvus Lite tells the log from the segment by itself")
    assert ingest(framework) == 0
    assert rows(framework).keys() == expected.keys()


# The journal


def journal_of(uri):
    return Path(uri).with_name("milvus.handbook.ingest.jsonl")


@pytest.mark.parametrize("damage", ["lost", "torn", "garbage"])
def test_a_damaged_journal_costs_no_data(framework, ingest, rows, uri, damage, capsys):
    ingest(framework)
    before = rows(framework)
    journal = journal_of(uri)
    if damage == "lost":
        journal.unlink()
    elif damage == "torn":
        data = journal.read_bytes()
        journal.write_bytes(data[: data.index(b"\n", len(data) // 2) - 20])
    else:
        journal.write_bytes(b"\x00\xff{]\n[1]\n17\n")
    capsys.readouterr()
    assert ingest(framework) == 0
    assert "chunks    6: 0 written, 0 deleted\n" in capsys.readouterr().out
    assert rows(framework) == before
    assert ingest(framework) == 0  # what was added behind the damage is read again
    assert "3: 0 read, 3 unchanged" in capsys.readouterr().out


def test_a_journal_does_not_outweigh_the_collection(framework, ingest, rows, uri):
    ingest(framework)
    expected = rows(framework)
    client = MilvusClient(uri)
    client.delete("handbook", ids=sorted(expected)[:3])
    assert ingest(framework) == 0
    assert rows(framework).keys() == expected.keys()
    client.drop_collection("handbook")
    assert ingest(framework) == 0
    assert rows(framework).keys() == expected.keys()


def test_the_journal_holds_the_summary(framework, ingest, uri, tmp_path):
    path = tmp_path / "own.jsonl"
    ingest(framework, "--journal", str(path))
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    assert last["summary"]["written"] == 6
    assert last["summary"]["failures"] == []
    assert not journal_of(uri).exists()


# What cannot be read


def test_bad_files_are_reported_and_left_out(framework, ingest, rows, corpus, capsys):
    write(corpus / "latin.txt", "Schlüssel".encode("latin-1"))
    write(corpus / "empty.md", "")
    write(corpus / "broken.pdf", "%PDF-1.7 and then nothing")
    write(corpus / "lines.jsonl", '{"text": "Good."}\n{"text": \n[1]\n{"no": 1}\n{"text": " "}\n'
          '{"text": "\\ud800"}\n{"text": "x", "n": NaN}\n{"text": "x", "n": 1e400}\n'
          '{"text": "x", "n": 99999999999999999999}\n\n{"text": "Last."}\n')  # fmt: skip
    assert ingest(framework) == 3
    output = capsys.readouterr()
    for failure in (
        "latin.txt: not UTF-8 text (byte 0xfc at 4",
        "empty.md: no text, or headings alone",
        "broken.pdf: not a readable PDF (",
        "lines.jsonl: a bad line (line 2: not JSON (Expecting value",
        "lines.jsonl: a bad line (line 3: a JSON list, not an object",
        "a bad line (line 4: no string in the field 'text' (--text-field names another)",
        "lines.jsonl: a bad line (line 5: the field 'text' is blank",
        "lines.jsonl: a bad line (line 6: it spells a lone surrogate",
        "lines.jsonl: a bad line (line 7: NaN is no JSON number",
        "lines.jsonl: a bad line (line 8: the number 1e400 is out of range",
        "a bad line (line 9: the number 99999999999999999999 does not fit into 64 bits",
    ):
        assert output.err.count(failure) == 1
        assert failure not in output.out  # named once, and counted
    assert "failures  11\n  8 a bad line (.jsonl)\n" in output.out
    assert flat(texts(rows(framework))) == flat([*EVERYTHING, "Good.", "Last."])
    assert ingest(framework) == 3  # and again, until it is mended


def test_a_file_that_cannot_be_read_any_more_keeps_its_rows(framework, ingest, rows, corpus):
    ingest(framework)
    write(corpus / "coffee.txt", b"\xff\xff")
    assert ingest(framework, "--delete-missing") == 3
    assert len(rows(framework)) == 6


def test_a_folder_that_cannot_be_listed_deletes_nothing(ingest, rows, monkeypatch, capsys, corpus):
    pytest.importorskip("langchain_milvus")
    ingest("langchain")
    walk = os.walk

    def partly(top, onerror):
        for place, folders, names in walk(top):
            if "office" in folders:
                folders.remove("office")
                onerror(PermissionError(13, "Permission denied", str(corpus / "office")))
            yield place, folders, names

    monkeypatch.setattr(os, "walk", partly)
    assert ingest("langchain", "--delete-missing") == 3
    assert "left out: office: Permission denied" in capsys.readouterr().err
    assert len(rows("langchain")) == 6


def test_nothing_readable_at_all_is_exit_code_1(framework, ingest, tmp_path, capsys):
    write(tmp_path / "bad" / "a.txt", b"\xff")
    assert ingest(framework, "--corpus", str(tmp_path / "bad")) == 1
    assert "failures  1\n" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::qwen3_core.tokenizer.TruncationWarning")
def test_a_text_longer_than_a_row_can_hold_is_split_further(framework, ingest, rows, corpus):
    long = "é" * 40_000 + " " + "word " * 20_000
    write(corpus / "long.txt", long)
    assert ingest(framework, "--splitter", "none") == 0
    parts = [row["text"] for row in rows(framework).values() if row["source"] == "long.txt"]
    assert len(parts) >= 3
    assert max(len(part.encode()) for part in parts) <= 65_535
    assert sum(map(len, parts)) == len(long)


# The command


def test_a_dry_run_touches_nothing(framework, ingest, rows, corpus, uri, capsys, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert ingest(framework, "--dry-run") == 0
    assert "dry run: nothing was embedded or changed" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    ingest(framework)
    there, noted = rows(framework), journal_of(uri).read_bytes()
    write(corpus / "coffee.txt", "Use lemon.")
    (corpus / "faq.jsonl").unlink()
    capsys.readouterr()
    assert ingest(framework, "--dry-run", "--delete-missing") == 0
    assert "chunks    3: 1 to write, 4 to delete\n" in capsys.readouterr().out
    assert rows(framework) == there
    assert journal_of(uri).read_bytes() == noted


def test_a_dry_run_needs_the_tokenizer_and_no_weights(framework, ingest, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(TINY / "embedding", model)
    (model / "model.safetensors").unlink()
    assert ingest(framework, "--model", str(model), "--dry-run") == 0
    assert "chunks    6: 6 to write, 0 to delete\n" in capsys.readouterr().out
    (model / "tokenizer.json").unlink()
    assert ingest(framework, "--model", str(model), "--dry-run") == 1
    shown = capsys.readouterr().err
    assert "--dry-run needs no weights, but the tokenizer, to cut: could not load" in shown
    assert shown.count("\n") == 1


def test_progress_shows_rate_and_time_left(ingest, capsys):
    pytest.importorskip("langchain_milvus")
    assert ingest("langchain", "--progress", "--batch-size", "2") == 0
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "B/s" in shown
    assert "chunks=6" in shown
    assert "<" in shown  # time gone < time left
    assert ingest("langchain", "--no-progress") == 0
    assert capsys.readouterr().err == ""


def test_another_dimension_is_refused_before_anything_is_written(framework, ingest, rows, capsys):
    ingest(framework)
    assert ingest(framework, "--dimensions", "64") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("ingest: --dimensions: collection 'handbook' holds vectors of 256")
    assert "or use the model or the dimensions=256 that it was made with" in shown
    assert len(rows(framework)) == 6


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--corpus", "nowhere"], "there is no folder or file '"),
        (["--uri", ""], "--uri='' is neither an address"),
        (["--uri", "milvus"], "--uri='milvus' is neither an address"),
        (["--uri", "missing/milvus.db"], "the folder of uri='missing/milvus.db' does not exist"),
        (
            ["--uri", "http://me:secret@localhost"],
            "ingest: --uri holds a name or password: give token='user:password', which is never",
        ),
        (["--uri", "nope://x"], "no Milvus answers at --uri 'nope://x' (uri: nope://x is illegal"),
        (
            ["--dimensions", "5"],
            "ingest: --dimensions must be an integer from 32 to 256, got 5\n",
        ),
        (
            ["--base-url", "localhost:8000"],
            "ingest: --base-url must be like 'http://localhost:8000/v1', got 'localhost:8000'\n",
        ),
        (
            ["--base-url", "http://localhost:1", "--device", "cpu"],
            "--device='cpu' is about a model in this process; with base_url the server decides",
        ),
        (
            ["--model", "./no-such-folder"],
            "could not load the embedding model './no-such-folder': there is no such",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_option(
    framework, ingest, capsys, arguments, error, tmp_path
):
    before = sorted(tmp_path.rglob("*"))
    assert ingest(framework, *arguments) == 1
    shown = capsys.readouterr().err
    assert error in shown
    assert shown.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MilvusException(1, "disk full"), 1, "disk full"),
        (OSError("the model is gone"), 1, "the model is gone"),
    ],
)
def test_a_run_that_breaks_off_says_so_and_goes_on_later(
    framework, ingest, rows, monkeypatch, capsys, error, code, message
):
    batches = 0
    module = importlib.import_module(FRAMEWORKS[framework][1])
    write_batch = module.IngestFramework.write

    def write_two(self, chunks):
        nonlocal batches
        batches += 1
        if batches > 2:
            raise error
        write_batch(self, chunks)

    with monkeypatch.context() as patch:
        patch.setattr(module.IngestFramework, "write", write_two)
        assert ingest(framework, "--batch-size", "2") == code
    output = capsys.readouterr()
    kept = "4 chunks are written, and the same command goes on from there"
    assert output.err == f"ingest: {message}; {kept}\n"
    assert len(rows(framework)) == 4
    assert ingest(framework) == 0
    assert "chunks    6: 2 written, 0 deleted\n" in capsys.readouterr().out
    assert flat(texts(rows(framework))) == flat(EVERYTHING)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ArgumentError("base_url needs a path", "base_url"), "--base-url needs a path"),
        (ArgumentError("no\n name", "collection_name"), "--collection: no name"),
        (ArgumentError("k is too much", "k"), "k is too much"),  # not an argument of the command
        (ValueError("dimensions=1 and uri='a'"), "dimensions=1 and uri='a'"),
        (MilvusException(1, "disk\nfull"), "disk full"),
    ],
)
def test_an_error_about_an_argument_names_the_option(error, said):
    assert in_one_line(error, OPTIONS) == said


def test_of_several_invalid_settings_the_first_is_named():
    embeddings = pytest.importorskip("langchain_qwen3").Qwen3Embeddings
    with pytest.raises(ValueError, match="base_url") as refused:
        embeddings(model="tiny", base_url="nowhere")
    said = in_one_line(refused.value, OPTIONS)
    assert said == "--base-url must be like 'http://localhost:8000/v1', got 'nowhere'"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--chunk-overlap", "512"], "--chunk-overlap must be from 0 to chunk_size - 1 = 511"),
        (["--splitter", "other"], "argument --splitter: invalid choice: 'other'"),
        (["--collecton=x"], "unrecognized arguments: --collecton=x"),
    ],
)
def test_a_wrong_command_is_exit_code_2(ingest, arguments, error, capsys):
    with pytest.raises(SystemExit) as stopped:
        ingest("langchain", *arguments)
    assert stopped.value.code == 2
    assert error in capsys.readouterr().err


@pytest.mark.integration
def test_a_second_run_at_the_same_time_is_refused(ingest, corpus, uri):
    """Through the real command, in a process of its own, while this one has the database open."""
    pytest.importorskip("langchain_milvus")
    assert ingest("langchain") == 0
    command = [
        sys.executable,
        "-m",
        "qwen3_retrieval.ingest",
        "--corpus",
        str(corpus),
        "--uri",
        uri,
    ]
    result = subprocess.run(
        [*command, "--collection", "handbook", "--model", "tiny", "--framework", "langchain"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 1
    assert "most likely another process has it open" in result.stderr
    assert result.stderr.count("\n") == 1


def test_ids_do_not_depend_on_where_the_corpus_lies(framework, ingest, rows, corpus, tmp_path):
    ingest(framework)
    expected = rows(framework)
    moved = tmp_path / "elsewhere" / "handbook"
    moved.parent.mkdir()
    corpus.rename(moved)
    assert ingest(framework, "--corpus", str(moved), "--no-resume", "--delete-missing") == 0
    assert rows(framework).keys() == expected.keys()


# Another model


def test_another_model_of_the_same_length_is_refused(framework, ingest, rows, tmp_path, capsys):
    ingest(framework)
    before = rows(framework)
    other = tmp_path / "other"
    shutil.copytree(TINY / "embedding", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert ingest(framework, "--model", str(other)) == 1
    assert "model" in capsys.readouterr().err
    assert rows(framework) == before


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [
        ((), "langchain"),
        # langchain-core alone, which text splitters bring, does not count.
        (("langchain_milvus",), "llama-index"),
    ],
)
def test_the_framework_is_the_one_whose_store_is_installed(monkeypatch, missing, chosen):
    monkeypatch.setattr(
        framework_module, "find_spec", lambda name: None if name in missing else find_spec(name)
    )
    assert framework_module.first_installed() == chosen


def test_without_a_store_the_extras_are_named(monkeypatch):
    monkeypatch.setattr(framework_module, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"qwen3-retrieval\[llama-index,ingest\]"):
        framework_module.first_installed()
