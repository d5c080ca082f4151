"""A collection says what its vectors were made with, and others are not mixed with them."""

import json
import logging
import shutil
from dataclasses import replace

import pytest
from pymilvus import DataType, MilvusClient

from qwen3_core import Embedder, RemoteEmbedder, __version__
from qwen3_core.fingerprint import Fingerprint, weights_digest
from qwen3_core.milvus.collection import (
    FINGERPRINT_KEY,
    Found,
    check_collection,
    collection_properties,
)
from tests.conftest import TINY

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
    }
    assert Fingerprint.from_json(HUB.to_json()) == HUB


def test_the_bundled_model_is_known_by_its_weights():
    fingerprint = Embedder("tiny").fingerprint
    assert fingerprint.model == "tiny"
    assert fingerprint.weights == weights_digest(str(TINY / "embedding"))
    assert len(fingerprint.weights or "") == 16
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
        match=r"made with model Qwen/Qwen3-Embedding-0.6B, not me/fine-tuned; max_length 8192, not "
        "512: .* Index the documents anew into another collection_name, or use the model",
    ):
        check_collection(uri, "docs", dimensions=64, fingerprint=other)


def test_a_collection_of_somebody_else_is_taken_with_a_note(client, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "qwen3_core.milvus.collection")
    uri = str(tmp_path / "milvus.db")
    assert check_collection(uri, "docs", dimensions=64, fingerprint=HUB) == Found("", auto_id=False)
    (record,) = [r for r in caplog.records if r.name == "qwen3_core.milvus.collection"]
    assert "collection 'docs' does not say what its vectors were made with" in record.message


def test_a_spoilt_fingerprint_is_an_error(client, tmp_path):
    client.alter_collection_properties("docs", properties={FINGERPRINT_KEY: "spoilt"})
    with pytest.raises(ValueError, match=r"property .* of collection 'docs' is not a fingerprint"):
        check_collection(str(tmp_path / "milvus.db"), "docs", dimensions=64, fingerprint=HUB)
