"""Qwen3EmbedBatch on Arrow tables, without Ray."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from qwen3_core import Embedder
from qwen3_core.batch import Qwen3EmbedBatch

pa = pytest.importorskip("pyarrow", reason="pyarrow comes with Milvus Lite and with Ray Data")


@pytest.fixture(scope="module")
def embed():
    return Qwen3EmbedBatch("tiny", dimensions=64)


def test_the_vectors_are_those_of_the_embedder_and_other_columns_pass(embed):
    table = pa.table({"id": [3, 1], "text": ["One text.", "Another."], "tag": [None, "x"]})
    result = embed(table)
    assert result.select(table.column_names).equals(table)
    assert result.schema.field("vector").type == pa.list_(pa.float32())
    expected = Embedder("tiny", dimensions=64).embed_documents(["One text.", "Another."])
    np.testing.assert_allclose(np.array(result["vector"].to_pylist()), expected, atol=1e-6)
    assert result["error"].to_pylist() == [None, None]


def test_a_bad_text_has_an_error_and_the_others_a_vector(embed):
    result = embed(pa.table({"text": ["good", None, ""]}))
    assert [v is None for v in result["vector"].to_pylist()] == [False, True, False]
    assert result["error"].to_pylist() == [None, "text must be a string, got NoneType: None", None]
    numbers = embed(pa.table({"text": [1]}))
    assert numbers["error"].to_pylist() == ["text must be a string, got int: 1"]


def test_bytes_that_are_no_utf8_are_an_error_of_their_row(embed):
    buffers = [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    text = pa.Array.from_buffers(pa.string(), 1, buffers)
    assert "got bytes" in embed(pa.table({"text": text}))["error"][0].as_py()


def test_a_text_that_the_model_fails_on_does_not_take_others_with_it(embed, monkeypatch):
    whole = embed._embedder.embed_documents

    def fail_on_poison(texts):
        if "poison" in texts:
            msg = "the vector of text 0 has length 0"
            raise FloatingPointError(msg)
        return whole(texts)

    monkeypatch.setattr(embed._embedder, "embed_documents", fail_on_poison)
    errors = embed(pa.table({"text": ["a", "poison", "b"]}))["error"].to_pylist()
    assert errors == [None, "FloatingPointError: the vector of text 0 has length 0", None]
    alone = embed(pa.table({"text": ["poison"]}))["error"].to_pylist()
    assert alone == ["FloatingPointError: the vector of text 0 has length 0"]


def test_a_setting_that_fails_every_text_is_raised():
    with pytest.raises(ValueError, match="dimensions must be"):
        Qwen3EmbedBatch("tiny", dimensions=100_000)(pa.table({"text": ["a"]}))


def test_columns_are_checked(embed):
    with pytest.raises(KeyError, match="no column 'text'"):
        embed(pa.table({"body": ["a"]}))
    with pytest.raises(ValueError, match=r"\['error'\] are there already"):
        embed(pa.table({"text": ["a"], "error": ["b"]}))
    with pytest.raises(ValueError, match="must differ"):
        Qwen3EmbedBatch("tiny", vector_column="text")


def test_an_empty_table(embed):
    result = embed(pa.table({"text": pa.array([], pa.string())}))
    assert result.num_rows == 0
    assert result.column_names == ["text", "vector", "error"]


def test_it_is_pickled_without_its_key():
    embed = Qwen3EmbedBatch("tiny", base_url="http://localhost:8000/v1", api_key="secret-key")
    data = pickle.dumps(embed)
    assert b"secret-key" not in data
    assert pickle.loads(data)._settings["base_url"] == "http://localhost:8000/v1"


def test_importing_it_imports_no_ray():
    code = "import sys, qwen3_core.batch; print({'ray', 'torch', 'pyarrow'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'ray'" not in out.stdout
