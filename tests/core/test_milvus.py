"""An existing collection is compared with what will be written to it, before anything is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from qwen3_core.milvus import literal, rebuild_index
from qwen3_core.milvus.collection import Found, check_collection, check_stored_texts, connect
from qwen3_core.milvus.index import choose_index, index_params, search_params
from tests.conftest import naming


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "milvus.db")


@pytest.fixture
def collection(uri):
    """A collection of 64 dimensions, indexed for inner product."""
    client = MilvusClient(uri=uri)
    client.create_collection("docs", dimension=64, metric_type="IP")
    yield "docs"
    client.close()


def test_collection_that_does_not_exist(uri):
    assert check_collection(uri, "docs", dimensions=64) is None


def test_collection_that_fits(uri, collection):
    assert check_collection(uri, collection, dimensions=64) == Found("AUTOINDEX", auto_id=False)


def test_other_dimension(uri, collection):
    with pytest.raises(
        ValueError,
        match=naming("'docs'", "64 dimensions", "256", "collection_name", "dimensions=64"),
    ):
        check_collection(uri, collection, dimensions=256)


def test_other_metric(uri, collection):
    with pytest.raises(ValueError, match=naming("'docs'", "IP", "COSINE", "collection_name")):
        check_collection(uri, collection, dimensions=64, metric="COSINE")


def test_other_vector_field(uri, collection):
    with pytest.raises(
        ValueError, match=naming("'docs'", "'embedding'", "id, vector", "collection_name")
    ):
        check_collection(uri, collection, dimensions=64, vector_field="embedding")


def test_ef_is_at_least_k():
    assert search_params(100)["params"]["ef"] >= 100
    assert search_params(5)["params"]["ef"] >= 5
    assert search_params(5, "COSINE")["metric_type"] == index_params("COSINE")["metric_type"]


@pytest.mark.parametrize(
    ("index_type", "params"),
    [
        ("FLAT", {}),
        ("HNSW", {"ef": 200}),
        ("HNSW_SQ", {"ef": 200}),
        ("IVF_FLAT", {"nprobe": 200}),
        ("IVF_SQ8", {"nprobe": 200}),
        ("IVF_RABITQ", {"nprobe": 200}),
        ("DISKANN", {"search_list": 200}),
        ("AUTOINDEX", {}),  # chooses by itself
    ],
)
def test_each_index_is_asked_in_its_own_words(index_type, params):
    assert search_params(100, index_type=index_type)["params"] == params


@pytest.mark.parametrize(
    ("rows", "lite", "server"),
    [
        (None, "FLAT", "IVF_FLAT"),
        (1, "FLAT", "FLAT"),
        (10_000, "FLAT", "FLAT"),
        (10_001, "IVF_FLAT", "IVF_FLAT"),
        (1_000_000, "IVF_FLAT", "IVF_FLAT"),
        (1_000_001, "IVF_FLAT", "HNSW"),
        (10_000_000, "IVF_FLAT", "HNSW"),
        (10_000_001, "IVF_FLAT", "IVF_SQ8"),
    ],
)
def test_the_index_follows_from_the_size(rows, lite, server):
    assert choose_index("./milvus.db", rows=rows) == lite
    assert choose_index("http://localhost:19530", rows=rows) == server


def test_lists_of_ivf_follow_from_the_rows_of_a_segment():
    def nlist(rows, dimensions=1024):
        return index_params("IP", "IVF_SQ8", rows=rows, dimensions=dimensions)["params"]["nlist"]

    assert nlist(10_000) == 4 * 100
    # A segment of 512 MB holds 131,072 vectors of 1024 dimensions.
    assert nlist(10**9) == nlist(None) == 4 * 362
    assert nlist(10**9, dimensions=256) == 4 * 724


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"index_type": "ANNOY"}, "must be one of FLAT, IVF_FLAT, IVF_SQ8, HNSW.* got 'ANNOY'"),
        ({"index_type": "IVF_PQ"}, "must be one of FLAT, .* got 'IVF_PQ'"),
        ({"index_type": "DISKANN"}, r"Milvus Lite has no DISKANN index .*: use a server"),
        ({"index_type": "IVF_RABITQ"}, r"Milvus Lite has no IVF_RABITQ index .*: use a server"),
        ({"index_type": "INT8_VECTOR"}, "'INT8_VECTOR' is the type of a field, not an index"),
        ({"rows": 0}, "rows must be an integer of at least 1, got 0"),
        ({"rows": 1e6}, "rows must be an integer of at least 1"),
    ],
)
def test_what_is_no_index_is_refused(arguments, error):
    with pytest.raises(ValueError, match=error):
        choose_index("./milvus.db", **arguments)
    assert choose_index("http://localhost:19530", "DISKANN") == "DISKANN"


def make(uri, index_type, rows=300, params=None):
    """Fill a collection of 8 dimensions as another program would, and close the database."""
    client = MilvusClient(uri=uri)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type=index_type, metric_type="IP", params=params or {})
    client.create_collection("docs", schema=schema, index_params=indexes)
    vectors = np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    client.insert("docs", [{"id": i, "vector": vector} for i, vector in enumerate(vectors)])
    client.close()
    server_manager_instance.release_server(uri)
    return vectors


@pytest.mark.parametrize("index_type", ["IVF_PQ", "DISKANN", "SCANN", "GPU_CAGRA", "IVF_RABITQ"])
def test_an_index_that_milvus_lite_cannot_load_is_rebuilt(uri, index_type):
    """It creates them, and fails once it is opened again."""
    vectors = make(uri, index_type)
    error = rf"has the index {index_type}, which Milvus Lite cannot load .*rebuild_index\("
    with pytest.raises(ValueError, match=error):
        check_collection(uri, "docs", dimensions=8)
    assert rebuild_index(uri, "docs") == "FLAT"
    assert check_collection(uri, "docs", dimensions=8) == Found("FLAT", False)
    nearest = int(np.argmax(vectors @ vectors[7]))
    assert search(uri, vectors[7], {})[0] == nearest


@pytest.mark.parametrize(("index_type", "kept"), [("FLAT", 0), ("HNSW", 100)])
def test_a_damaged_index_is_rebuilt(uri, index_type, kept, caplog):
    """As a process that is killed while it writes the file leaves it."""
    vectors = make(uri, index_type)
    check_collection(uri, "docs", dimensions=8)  # builds it
    server_manager_instance.release_server(uri)
    (file,) = Path(uri).rglob("*.idx")
    file.write_bytes(file.read_bytes()[:kept])
    assert check_collection(uri, "docs", dimensions=8) == Found(index_type, False)
    assert "cannot load the index of collection 'docs'" in caplog.text
    nearest = int(np.argmax(vectors @ vectors[7]))
    assert search(uri, vectors[7], {"ef": 100})[0] == nearest
    server_manager_instance.release_server(uri)
    caplog.clear()
    check_collection(uri, "docs", dimensions=8)
    assert "cannot load" not in caplog.text


@pytest.mark.parametrize("index_type", ["HNSW", "HNSW_SQ", "AUTOINDEX"])
def test_an_index_that_can_lose_passages_on_milvus_lite_is_warned_of(uri, index_type, caplog):
    make(uri, index_type, rows=5)
    assert check_collection(uri, "docs", dimensions=8) == Found(index_type, False)
    assert f"'docs' has the index {index_type}, whose search on Milvus Lite can miss" in caplog.text
    assert f"rebuild_index({uri!r}, 'docs')" in caplog.text
    caplog.clear()
    rebuild_index(uri, "docs")
    check_collection(uri, "docs", dimensions=8)
    assert "rebuild_index" not in caplog.text


def test_a_flat_collection_that_has_grown_is_told_of_a_faster_index(uri, caplog, monkeypatch):
    vectors = make(uri, "FLAT")
    check_collection(uri, "docs", dimensions=8)
    assert "rebuild_index" not in caplog.text
    monkeypatch.setattr("qwen3_core.milvus.collection.SLOW_ROWS", 299)
    monkeypatch.setattr("qwen3_core.milvus.index.FLAT_ROWS", 299)
    check_collection(uri, "docs", dimensions=8)
    assert "has grown to 300 rows with the index FLAT" in caplog.text
    assert rebuild_index(uri, "docs") == "IVF_FLAT"
    exact = np.argsort(-(vectors @ vectors[7]))[:10].tolist()
    # One list, so all is seen whatever is asked: Milvus Lite was told, and does not take its 128.
    assert search(uri, vectors[7], {"nprobe": 1}) == exact


def test_another_index_than_the_collections_is_refused(uri):
    make(uri, "FLAT", rows=5)
    assert check_collection(uri, "docs", dimensions=8, index_type="FLAT")
    error = r"has the index FLAT, but index_type='HNSW' was asked for: .*index_type='HNSW'\)"
    with pytest.raises(ValueError, match=error):
        check_collection(uri, "docs", dimensions=8, index_type="HNSW")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"collection_name": "typo"}, "there is no collection 'typo'"),
        ({"vector_field": "embedding"}, "has the vector fields vector: .* got 'embedding'"),
        ({"index_type": "SCANN"}, "index_type must be one of .* got 'SCANN'"),
        ({"uri": "milvus"}, "uri='milvus' is neither an address"),
    ],
)
def test_what_rebuild_index_refuses(uri, arguments, error):
    make(uri, "HNSW", rows=5)
    with pytest.raises(ValueError, match=error):
        rebuild_index(**{"uri": uri, "collection_name": "docs"} | arguments)
    assert check_collection(uri, "docs", dimensions=8) == Found("HNSW", False)


def test_a_collection_without_an_index_is_given_one(uri):
    vectors = make(uri, "HNSW")
    client = MilvusClient(uri=uri)
    client.release_collection("docs")
    client.drop_index("docs", "vector")
    client.close()
    assert rebuild_index(uri, "docs", metric="COSINE", index_type="IVF_SQ8") == "IVF_SQ8"
    assert search(uri, vectors[3], {"nprobe": 1})[0] == 3


def search(uri, vector, params):
    client = MilvusClient(uri=uri)
    (hits,) = client.search("docs", [vector], limit=10, search_params={"params": params})
    client.close()
    return [hit["id"] for hit in hits]


def test_other_kind_of_ids(uri, collection):
    assert check_collection(uri, collection, dimensions=64, auto_id=False) == Found(
        "AUTOINDEX", auto_id=False
    )
    with pytest.raises(
        ValueError,
        match=naming("'docs'", "auto_id=False", "collection_name"),
    ):
        check_collection(uri, collection, dimensions=64, auto_id=True)


@pytest.mark.integration
def test_a_file_that_another_process_has_open(uri):
    code = (
        "import sys; from pymilvus import MilvusClient; "
        f"client = MilvusClient({uri!r}); client.list_collections(); "
        "print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ValueError, match="most likely another process has it open"):
            check_collection(uri, "docs", dimensions=64)
    finally:
        other.communicate()


def test_a_collection_of_an_earlier_process_is_loaded(uri, collection):
    from milvus_lite.server_manager import server_manager_instance

    client = MilvusClient(uri=uri)
    client.insert(collection, [{"id": 1, "vector": [1.0] + [0.0] * 63}])
    client.close()
    server_manager_instance.release_server(uri)
    assert check_collection(uri, collection, dimensions=64) == Found("AUTOINDEX", auto_id=False)
    client = MilvusClient(uri=uri)
    assert client.query(collection, filter="id == 1", output_fields=["id"])[0]["id"] == 1
    client.close()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('a "b" \\ c\n', '"a \\"b\\" \\\\ c\\n"'),
        ("線\u2028", '"線\u2028"'),
        (3, "3"),
        (-0.5, "-0.5"),
        (True, "true"),
        (["it's", 1], '["it\'s", 1]'),
        ([], "[]"),
    ],
)
def test_a_literal_stands_for_its_value(value, expected):
    assert literal(value) == expected


@pytest.mark.parametrize(
    ("value", "kind", "error"),
    [
        (None, TypeError, "must be a string, number or bool, or a list of them, got NoneType"),
        ({"a": 1}, TypeError, "got dict"),
        ([b"x"], TypeError, "got bytes"),
        (float("nan"), ValueError, "must be finite"),
        ("\ud83d", ValueError, "a filter's value holds a lone surrogate"),
    ],
)
def test_what_is_no_value_is_refused(value, kind, error):
    with pytest.raises(kind, match=error):
        literal(value)


def test_texts_too_long_for_milvus_are_named():
    check_stored_texts(["x" * 65_535, ""])
    with pytest.raises(ValueError, match=naming("1 of 2", "texts[1]", "80,000", "65,535", "split")):
        check_stored_texts(["x", "é" * 40_000])


def test_blank_texts_are_logged(caplog):
    check_stored_texts(["In segments.", "Cats sleep."])
    assert not caplog.records
    check_stored_texts(["In segments.", " \n", ""])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "2 of 3 texts (first: texts[1]) are blank" in record.getMessage()


def test_milvus_lite_is_asked_again_where_its_channel_was_closed(uri, monkeypatch):
    calls = []

    def client(**arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise MilvusException(code=2, message="Fail connecting to server on 127.0.0.1:1")
        return MilvusClient(**arguments)

    monkeypatch.setattr("pymilvus.MilvusClient", client)
    assert connect(uri, None).list_collections() == []
    assert len(calls) == 2
    calls.clear()
    with pytest.raises(MilvusException, match="Fail connecting"):
        connect("http://127.0.0.1:1", None)
    assert len(calls) == 1
