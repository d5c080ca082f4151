"""An existing collection is compared with what will be written to it, before anything is."""

import subprocess
import sys

import pytest
from pymilvus import MilvusClient

from qwen3_core.milvus import literal
from qwen3_core.milvus.collection import Found, check_collection, check_text_lengths
from qwen3_core.milvus.index import choose_index, index_params, search_params


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
        ValueError, match=r"holds vectors of 64 dimensions, but .* gives 256: choose"
    ):
        check_collection(uri, collection, dimensions=256)


def test_other_metric(uri, collection):
    with pytest.raises(ValueError, match="indexed for the metric IP, but COSINE was asked for"):
        check_collection(uri, collection, dimensions=64, metric="COSINE")


def test_other_vector_field(uri, collection):
    with pytest.raises(ValueError, match=r"no vector field 'embedding' \(its fields: id, vector\)"):
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
        ("IVF_SQ8", {"nprobe": 200}),
        ("DISKANN", {"search_list": 200}),
        ("AUTOINDEX", {}),  # Zilliz Cloud's, which chooses by itself
    ],
)
def test_each_index_is_asked_in_its_own_words(index_type, params):
    assert search_params(100, index_type=index_type)["params"] == params


@pytest.mark.parametrize(
    ("rows", "index_type"),
    [
        (None, "HNSW"),
        (1, "FLAT"),
        (10_000, "FLAT"),
        (10_001, "HNSW"),
        (10_000_000, "HNSW"),
        (10_000_001, "IVF_SQ8"),
    ],
)
def test_the_index_follows_from_the_size(rows, index_type):
    assert choose_index("./milvus.db", rows=rows) == index_type


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
        ({"index_type": "ANNOY"}, "must be one of FLAT, HNSW, IVF_SQ8, DISKANN, got 'ANNOY'"),
        ({"index_type": "DISKANN"}, r"Milvus Lite has no DISKANN index .*: use a server"),
        ({"rows": 0}, "rows must be an integer of at least 1, got 0"),
        ({"rows": 1e6}, "rows must be an integer of at least 1"),
    ],
)
def test_what_is_no_index_is_refused(arguments, error):
    with pytest.raises(ValueError, match=error):
        choose_index("./milvus.db", **arguments)
    assert choose_index("http://localhost:19530", "DISKANN") == "DISKANN"


def test_other_kind_of_ids(uri, collection):
    assert check_collection(uri, collection, dimensions=64, auto_id=False) == Found(
        "AUTOINDEX", auto_id=False
    )
    with pytest.raises(
        ValueError,
        match=r"takes the caller.s ids, .* asked for: pass auto_id=False or leave it out",
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
        (float("nan"), ValueError, "not JSON compliant"),
        ("\ud83d", ValueError, "a filter's value holds a lone surrogate"),
    ],
)
def test_what_is_no_value_is_refused(value, kind, error):
    with pytest.raises(kind, match=error):
        literal(value)


def test_texts_too_long_for_milvus_are_named():
    check_text_lengths(["x" * 65_535, ""])
    with pytest.raises(
        ValueError, match=r"1 of 2 texts \(first: texts\[1\], 80,000 bytes\) are .* split them"
    ):
        check_text_lengths(["x", "é" * 40_000])
