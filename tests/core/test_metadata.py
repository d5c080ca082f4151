"""What the models read of a document besides its text, and which metadata keys are refused."""

import pytest

from qwen3_core.fingerprint import Fingerprint
from qwen3_core.metadata import check_metadata_keys, with_metadata
from tests.conftest import naming
from tests.core.test_fingerprint import HUB


@pytest.mark.parametrize(
    ("metadata", "keys", "expected"),
    [
        ({"title": "Storage", "year": 2024}, ("title",), "title: Storage\n\ntext"),
        ({"title": "S", "year": 2024}, ("year", "title"), "year: 2024\ntitle: S\n\ntext"),
        ({"title": "Storage"}, ("author", "title"), "title: Storage\n\ntext"),
        ({"title": None, "author": " "}, ("title", "author"), "text"),
        ({"draft": False, "weight": 0.5}, ("draft", "weight"), "draft: False\nweight: 0.5\n\ntext"),
        ({"title": "Storage"}, (), "text"),
        (None, ("title",), "text"),
    ],
)  # fmt: skip
def test_keys_come_in_their_order_and_only_those_with_a_value(metadata, keys, expected):
    assert with_metadata("text", metadata, keys) == expected


def test_the_text_is_not_altered():
    text = "\n  indented\u3000\n"
    assert with_metadata(text, {"title": "T"}, ("title",)) == f"title: T\n\n{text}"


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, b"a"])
def test_other_values_are_refused_with_the_key_and_the_way_out(value):
    with pytest.raises(ValueError, match=naming("'tags'", repr(value), "metadata_keys")):
        with_metadata("text", {"tags": value}, ("tags",))


@pytest.mark.parametrize(
    ("keys", "kind", "named"),
    [
        ("title", TypeError, r"\['title'\]"),
        (5, TypeError, "5"),
        (["title", 5], TypeError, "5 of type int"),
        ([""], ValueError, "blank"),
        (["title", " "], ValueError, "blank"),
        (["title", "title"], ValueError, "'title' twice"),
    ],
)
def test_bad_keys_are_refused(keys, kind, named):
    with pytest.raises(kind, match=f"metadata_keys.*{named}"):
        check_metadata_keys(keys)


def test_a_fingerprint_keeps_the_keys_in_order():
    made = Fingerprint(**vars(HUB) | {"metadata_keys": ("title", "author")})
    assert Fingerprint.from_json(made.to_json()) == made
    assert "metadata_keys" in HUB.differences(made)
    swapped = Fingerprint(**vars(HUB) | {"metadata_keys": ("author", "title")})
    assert made.differences(swapped) == {
        "metadata_keys": (["title", "author"], ["author", "title"])
    }


@pytest.mark.parametrize("recorded", [None, ()])
def test_a_collection_without_keys_matches_none_and_unknown(recorded):
    made = Fingerprint(**vars(HUB) | {"metadata_keys": recorded})
    for asked in (None, ()):
        assert made.differences(Fingerprint(**vars(HUB) | {"metadata_keys": asked})) == {}
