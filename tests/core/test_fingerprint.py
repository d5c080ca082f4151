"""A collection says what its vectors were made with, and others are not mixed with them."""

import json
import logging
import re
import shutil
from dataclasses import replace

import pytest
import torch
from pymilvus import DataType, MilvusClient
from safetensors.torch import load_file, save_file

from qwen3_core import Embedder, RemoteEmbedder, __version__
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.milvus.collection import (
    FINGERPRINT_KEY,
    Found,
    check_collection,
    collection_properties,
)
from qwen3_core.model import files
from qwen3_core.model.files import old_digest, weights_digest
from tests.conftest import TINY, naming

HUB = Fingerprint(
    model="Qwen/Qwen3-Embedding-0.6B",
    revision="main",
    weights=None,
    dimensions=64,
    max_length=8192,
)


def test_what_it_says():
    embedder = Embedder("Qwen/Qwen3-Embedding-0.6B", dimensions=64)  # nothing is loaded
    assert embedder.fingerprint == HUB
    assert json.loads(HUB.to_json()) == {
        "model": "Qwen/Qwen3-Embedding-0.6B",
        "revision": "main",
        "weights": None,
        "dimensions": 64,
        "max_length": 8192,
        "pooling": "last_token",
        "document_prompt": "none",
        "package_version": __version__,
        "commit": None,
        "metadata_keys": None,
    }
    assert Fingerprint.from_json(HUB.to_json()) == HUB


def test_the_bundled_model_is_known_by_its_weights():
    fingerprint = Embedder("tiny").fingerprint
    assert fingerprint.model == "tiny"
    assert fingerprint.weights == weights_digest(TINY / "embedding")
    assert len(fingerprint.weights or "") == 32
    assert fingerprint.dimensions == 256


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"revision": "v2"}, "revision"),
        ({"dimensions": 32}, "dimensions"),
        ({"max_length": 512}, "max_length"),
        ({"pooling": "mean"}, "pooling"),
        ({"document_prompt": "passage: "}, "document_prompt"),
        ({"model": "Qwen/Qwen3-Embedding-4B"}, "model"),
    ],
)
def test_what_changes_vectors_differs(change, name):
    other = replace(HUB, **change)
    assert HUB.differences(other) == {name: (getattr(HUB, name), getattr(other, name))}


def test_the_packages_version_does_not_count():
    assert HUB.differences(replace(HUB, package_version="9.9")) == {}


def test_a_later_versions_fingerprint_is_read():
    assert Fingerprint.from_json(json.dumps(json.loads(HUB.to_json()) | {"new": 1})) == HUB


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '"x"', "{"])
def test_something_else_is_no_fingerprint(text):
    with pytest.raises(ValueError, match="not a fingerprint of vectors"):
        Fingerprint.from_json(text)


def test_a_server_has_the_model_of_the_same_name():
    remote = RemoteEmbedder(
        "/models/Qwen3-Embedding-0.6B", base_url="http://127.0.0.1:9/v1", dimensions=64
    ).fingerprint
    assert remote.revision is None
    assert HUB.differences(remote) == {}
    other = RemoteEmbedder("Qwen3-8B", base_url="http://127.0.0.1:9/v1", dimensions=64)
    assert list(HUB.differences(other.fingerprint)) == ["model"]


def test_a_folder_may_move_but_not_change(tmp_path):
    here = shutil.copytree(TINY / "embedding", tmp_path / "here")
    before = Embedder(here, dimensions=64).fingerprint
    there = here.rename(tmp_path / "there")
    assert before.differences(Embedder(there, dimensions=64).fingerprint) == {}
    assert before.differences(Embedder("tiny", dimensions=64).fingerprint) == {}

    path = there / "model.safetensors"
    weights = bytearray(path.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    ((name, (old, new)),) = before.differences(Embedder(there, dimensions=64).fingerprint).items()
    assert name == "model"
    assert str(before.weights) in str(old)
    assert str(before.weights) not in str(new)


COMMIT = "c0ffee" * 6 + "c0ff"
OTHER_COMMIT = "0ddba11" * 5 + "0ddba"
NAME = "acme/Docs-Embedding-0.6B"


def snapshot(cache, commit):
    """A copy of the bundled model as the hub's cache keeps it."""
    folder = cache / "models--acme--Docs-Embedding-0.6B" / "snapshots" / commit
    return shutil.copytree(TINY / "embedding", folder)


def point(cache, ref, commit):
    refs = cache / "models--acme--Docs-Embedding-0.6B" / "refs"
    refs.mkdir(parents=True, exist_ok=True)
    (refs / ref).write_text(commit)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache with a model in it, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot(cache, COMMIT)
    point(cache, "main", COMMIT)
    return cache


def change_a_number(folder, name="layers.1.mlp.up_proj.weight"):
    weights = load_file(folder / "model.safetensors")
    weights[name][3, 5] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("loaded", [False, True])
def test_one_model_under_its_many_names(cache, tmp_path, loaded):
    folder = cache / "models--acme--Docs-Embedding-0.6B" / "snapshots" / COMMIT
    point(cache, "v1", COMMIT)
    modelscope = shutil.copytree(folder, tmp_path / "ms" / "Docs-Embedding-0___6B")
    names = [(NAME, None), (NAME, COMMIT), (NAME, "v1"), (folder, None), (modelscope, None)]
    found = []
    for model, revision in names:
        embedder = Embedder(model, revision=revision, dimensions=64)
        if loaded:
            embedder.embed_documents(["a text"])
        found.append(embedder.fingerprint)
    assert [f.commit for f in found] == [COMMIT] * 4 + [None]
    for one in found:
        for other in (*found, Fingerprint.from_json(found[0].to_json())):
            assert one.differences(other) == {}
            assert one.compared_by(other) == "weights"


def test_a_branch_that_moved(cache):
    before = Embedder(NAME, dimensions=64).fingerprint
    folder = snapshot(cache, OTHER_COMMIT)
    point(cache, "main", OTHER_COMMIT)
    assert before.differences(Embedder(NAME, dimensions=64).fingerprint) == {}  # a new README
    change_a_number(folder)
    assert list(before.differences(Embedder(NAME, dimensions=64).fingerprint)) == ["model"]
    pinned = Embedder(NAME, revision=COMMIT, dimensions=64)
    assert before.differences(pinned.fingerprint) == {}


def test_weights_that_change_before_they_are_loaded_are_not_used(cache):
    embedder = Embedder(NAME, dimensions=64)
    assert embedder.fingerprint.commit == COMMIT
    change_a_number(snapshot(cache, OTHER_COMMIT))
    point(cache, "main", OTHER_COMMIT)
    with pytest.raises(ValueError, match=naming(f"'{NAME}'", "changed", "revision=")):
        embedder.embed_documents(["a text"])


def test_without_weights_the_commit_tells(cache):
    known = replace(HUB, commit=COMMIT)
    assert known.differences(replace(known, weights="0" * 32, revision=COMMIT)) == {}
    assert list(known.differences(replace(known, commit=OTHER_COMMIT))) == ["commit"]
    named = Embedder("Qwen/Qwen3-Embedding-0.6B", revision=COMMIT, dimensions=64).fingerprint
    assert named.commit == COMMIT


def test_the_files_that_weights_lie_in_do_not_count(tmp_path):
    digest = weights_digest(TINY / "embedding")
    folder = shutil.copytree(TINY / "embedding", tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1-of-2.safetensors": names[:5], "model-2-of-2.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({f"model.{name}": weights[name] for name in part}, folder / file)
    index = {"weight_map": {f"model.{n}": file for file, part in parts.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope["rope_theta"], "rope_scaling": None, "transformers_version": "4"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer |= {"padding": {"strategy": "BatchLongest"}, "truncation": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert weights_digest(folder) == digest
    (folder / "model-2-of-2.safetensors").unlink()
    assert weights_digest(folder) is None


@pytest.mark.parametrize("change", [{"rms_norm_eps": 1e-5}, {"rope_theta": 1e4}, {"head_dim": 32}])
def test_what_the_layers_compute_with_counts(tmp_path, change):
    folder = shutil.copytree(TINY / "embedding", tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if "rope_theta" in change:
        config["rope_parameters"] |= change
    else:
        config |= change
    (folder / "config.json").write_text(json.dumps(config))
    assert weights_digest(folder) != weights_digest(TINY / "embedding")


def test_the_tokenizer_counts(tmp_path):
    folder = shutil.copytree(TINY / "embedding", tmp_path / "copy")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": None}))
    assert weights_digest(folder) != weights_digest(TINY / "embedding")


def test_a_sample_of_each_tensor_tells_a_fine_tuned_model(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE_BYTES", 0)
    monkeypatch.setattr(files, "SAMPLE_BYTES", 64)
    # Digests are cached by path: of copies, so that no other test gets these.
    first, second = (shutil.copytree(TINY / "embedding", tmp_path / name) for name in "ab")
    digest = weights_digest(first)
    assert weights_digest(second) == digest
    weights = load_file(TINY / "embedding" / "model.safetensors")
    torch.manual_seed(0)
    for i, name in enumerate(("embed_tokens.weight", "layers.1.self_attn.k_proj.weight")):
        tuned = dict(weights)  # a low rank, as an adapter adds
        tuned[name] = weights[name] + torch.randn(len(weights[name]), 1).bfloat16()
        folder = shutil.copytree(TINY / "embedding", tmp_path / str(i))
        save_file(tuned, folder / "model.safetensors")
        assert weights_digest(folder) != digest


def test_a_damaged_file_has_no_digest(tmp_path):
    folder = shutil.copytree(TINY / "embedding", tmp_path / "copy")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(OSError, match=rf"{re.escape(str(path))} is damaged .*truncated"):
        _ = Embedder(folder, dimensions=64).fingerprint


def old_form(**fields):
    """A fingerprint as collections kept it until release 0.1."""
    data = json.loads(HUB.to_json()) | fields
    del data["commit"]
    return Fingerprint.from_json(json.dumps(data))


def test_an_old_collection_of_a_folder_is_compared_by_its_old_digest(tmp_path):
    old = old_form(model="tiny", revision=None, weights=old_digest(TINY / "embedding"))
    now = Embedder("tiny", dimensions=64).fingerprint
    assert old.differences(now) == {}
    assert old.compared_by(now) == "weights"
    changed = shutil.copytree(TINY / "embedding", tmp_path / "tiny")
    weights = load_file(changed / "model.safetensors")
    weights["embed_tokens.weight"] *= 2
    save_file(weights, changed / "model.safetensors")
    assert list(old.differences(Embedder(changed, dimensions=64).fingerprint)) == ["model"]


def test_an_old_collection_of_a_model_on_the_hub_is_compared_by_name(cache):
    old = old_form(model=NAME)
    for revision in (None, COMMIT):
        now = Embedder(NAME, revision=revision, dimensions=64).fingerprint
        assert old.differences(now) == {}
        assert old.compared_by(now) == "name"
    pinned = old_form(model=NAME, revision=COMMIT)
    assert pinned.compared_by(Embedder(NAME, dimensions=64).fingerprint) == "commit"
    assert pinned.differences(Embedder(NAME, dimensions=64).fingerprint) == {}


@pytest.fixture
def client(tmp_path):
    client = MilvusClient(uri=str(tmp_path / "milvus.db"))
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=64)
    client.create_collection("docs", schema=schema)
    yield client
    client.close()


def test_a_collection_is_compared(client, tmp_path):
    uri = str(tmp_path / "milvus.db")
    client.alter_collection_properties("docs", properties=collection_properties(HUB))
    assert check_collection(uri, "docs", dimensions=64, fingerprint=HUB) == Found("", auto_id=False)
    assert check_collection(uri, "docs", dimensions=64) == Found(
        "", auto_id=False
    )  # nothing to compare with
    other = replace(HUB, model="me/fine-tuned", max_length=512)
    with pytest.raises(
        ValueError,
        match=naming(
            "'docs'", "Qwen/Qwen3-Embedding-0.6B", "me/fine-tuned", "8192", "512", "collection_name"
        ),
    ):
        check_collection(uri, "docs", dimensions=64, fingerprint=other)


@pytest.mark.parametrize("weights", [None, "0" * 32])
def test_a_comparison_by_name_is_logged(client, tmp_path, caplog, weights):
    caplog.set_level(logging.INFO, "qwen3_core.milvus.collection")
    uri = str(tmp_path / "milvus.db")
    client.alter_collection_properties("docs", properties=collection_properties(HUB))
    now = replace(HUB, weights=weights)
    assert check_collection(uri, "docs", dimensions=64, fingerprint=now) == Found("", auto_id=False)
    (record,) = [r for r in caplog.records if r.name == "qwen3_core.milvus.collection"]
    assert record.levelno == (logging.WARNING if weights else logging.INFO)
    assert (
        "'docs' and Qwen/Qwen3-Embedding-0.6B were compared by the model's name" in record.message
    )


def test_a_collection_of_somebody_else_is_taken_with_a_note(client, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "qwen3_core.milvus.collection")
    uri = str(tmp_path / "milvus.db")
    assert check_collection(uri, "docs", dimensions=64, fingerprint=HUB) == Found("", auto_id=False)
    (record,) = [r for r in caplog.records if r.name == "qwen3_core.milvus.collection"]
    assert "collection 'docs' does not store how its vectors were made" in record.message


def test_a_spoilt_fingerprint_is_an_error(client, tmp_path):
    client.alter_collection_properties("docs", properties={FINGERPRINT_KEY: "spoilt"})
    with pytest.raises(
        ValueError, match=naming("qwen3_retrieval.fingerprint", "'docs'", "'spoilt'")
    ):
        check_collection(str(tmp_path / "milvus.db"), "docs", dimensions=64, fingerprint=HUB)
