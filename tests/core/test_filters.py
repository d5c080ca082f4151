"""Filter expressions: names, comparisons and their opposites, on Milvus Lite."""

from typing import Any

import pytest
from pymilvus import DataType, MilvusClient

from qwen3_core.milvus import field, literal
from qwen3_core.milvus.filters import check_expression, compare
from tests.conftest import naming

ROWS: dict[str, dict[str, Any]] = {
    "1": {"doc-type": "manual", "Header 1": "Intro", "year": 2020, "tags": ["a", "b"], "in": "x"},
    "2": {"doc-type": "note", "year": 2024, "tags": [], "name": "50%_off", "größe": 1},
    "3": {"name": "", 'a"b\\c': "v"},
}


@pytest.fixture(scope="module")
def find(tmp_path_factory):
    client = MilvusClient(str(tmp_path_factory.mktemp("filters") / "milvus.db"))
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("pk", DataType.VARCHAR, max_length=100, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection("docs", schema=schema, index_params=indexes)
    client.insert("docs", [{"pk": pk, "vector": [1.0, 0.0], **row} for pk, row in ROWS.items()])

    def ids(expression):
        rows = client.query("docs", filter=expression, output_fields=["pk"], limit=10)
        return {row["pk"] for row in rows}

    yield ids
    client.close()


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("doc-type", "manual", {"1"}),
        ("Header 1", "Intro", {"1"}),
        ("in", "x", {"1"}),
        ("größe", 1, {"2"}),
        ('a"b\\c', "v", {"3"}),
        ("year", 2020, {"1"}),
    ],
)
def test_any_key_can_be_named(find, key, value, found):
    assert find(f"{field(key)} == {literal(value)}") == found


@pytest.mark.parametrize(
    ("key", "operator", "value", "found"),
    [
        ("year", "==", 2020, {"1"}),
        ("year", ">", 2020, {"2"}),
        ("year", "in", [2020, 2021], {"1"}),
        ("year", "in", [], set()),
        ("doc-type", "==", "manual", {"1"}),
        ("doc-type", "in", ["manual", "note"], {"1", "2"}),
        ("doc-type", "in", [], set()),
        ("tags", "contains", "a", {"1"}),
        ("tags", "any", ["a", "z"], {"1"}),
        ("tags", "all", ["a", "z"], set()),
        ("tags", "is_empty", None, {"2", "3"}),
        ("name", "is_empty", None, {"1", "3"}),
        ("name", "text_match", "50%_", {"2"}),
        ("name", "text_match", "%_o", {"2"}),
        ("tags", "in", ["a"], set()),
        ("name", "text_match", "50%o", set()),
        ("pk", "==", "1", {"1"}),
        ("pk", "in", ["1", "3"], {"1", "3"}),
    ],
)
def test_a_comparison_and_its_opposite_part_the_rows(find, key, operator, value, found):
    options: dict[str, Any] = {"columns": {"pk"}, "lite": True}
    assert find(compare(key, operator, value, **options)) == found
    assert find(compare(key, operator, value, negate=True, **options)) == set(ROWS) - found
    if operator in ("==", "in"):
        opposite = {"==": "!=", "in": "nin"}[operator]
        assert find(compare(key, opposite, value, **options)) == set(ROWS) - found


@pytest.mark.parametrize(
    ("arguments", "kind", "error"),
    [
        (("year", "==", None), TypeError, r"'year' compares with None"),
        (("year", "==", [1]), TypeError, r"'==' on 'year' takes one value, got \[1\]"),
        (("year", "in", 1), TypeError, "'in' on 'year' takes a list, got 1"),
        (("year", "near", 1), ValueError, "no filter operator 'near'"),
        (("my-tags", "contains", "a"), ValueError, r"Milvus Lite .* list under the key 'my-tags'"),
        (("", "==", 1), ValueError, "key is empty"),
        ((1, "==", 1), TypeError, "must be a string, got int"),
        (("year", "==", 2**63), ValueError, "fit into 64 bits, got 9223372036854775808"),
        (("year", "==", float("nan")), ValueError, "must be finite .*, got nan"),
    ],
)
def test_what_cannot_be_written_is_refused(arguments, kind, error):
    with pytest.raises(kind, match=error):
        compare(*arguments, lite=True)


def test_a_server_is_not_asked_what_it_would_misread():
    assert compare("doc-type", "in", ["a"]) == '$meta["doc-type"] in ["a"]'
    assert compare("my-tags", "contains", "a") == 'array_contains($meta["my-tags"], "a")'
    with pytest.raises(ValueError, match=naming("'text_match'", "'name'", "'50%'", "string_expr")):
        compare("name", "text_match", "50%")
    with pytest.raises(
        ValueError, match=naming("'is_empty'", "'tags'", "string_expr='not (exists tags)'")
    ):
        compare("tags", "is_empty", None)


@pytest.mark.parametrize(
    ("expression", "key"),
    [
        ('doc-type == "manual"', "doc-type"),
        ('year > 2020 and doc-type in ["a"]', "doc-type"),
        ("header-1 == 'x'", "header-1"),
        ('Header 1 == "Intro"', "Header 1"),
        ('year > 1 and Header 1 != "Intro"', "Header 1"),
        ('a.b == "x"', "a.b"),
        ('"x" == doc-type', "doc-type"),
    ],
)
def test_a_key_that_milvus_would_misread_is_refused(expression, key):
    with pytest.raises(ValueError, match=r"the filter .* names a field") as caught:
        check_expression(expression)
    assert f"$meta[{literal(key)}]" in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        None,
        "",
        'title == "doc-type == 1"',
        "title == 'it\\'s a-b'",
        '$meta["doc-type"] == "a-b.c"',
        "year - 1 == 2019",
        "year >= -1.5e-3 and not (exists year)",
        'name like "a%" or name in ["x y", "z"]',
        "array_contains(tags, 'a-b') and year == 1",
        "(not (exists year)) or not (year == 2020)",
        "year is not null and flag == true",
    ],
)
def test_other_expressions_pass(expression):
    check_expression(expression)


def test_what_is_no_expression_is_refused():
    with pytest.raises(TypeError, match=naming("'year > 2020'", "dict", "{'year': 2020}")):
        check_expression({"year": 2020})  # type: ignore[arg-type]
