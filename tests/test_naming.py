"""`naming`, by which tests say what a message must name."""

import re

import pytest

from tests.conftest import naming


@pytest.mark.parametrize(
    ("message", "matches"),
    [
        ("top_n=2 of [a] is too few:\nraise k", True),
        ("raise k: [a] has\ntop_n=2", True),
        ("top_n=2 of [a] is too few", False),
        ("top_n=20 of [a]: raise k", False),
        ("my_top_n=2 of [a]: raise k", False),
        ("top_n=2 of a: raise k", False),
    ],
)
def test_a_message_names_all_values_whole_in_any_order(message, matches):
    assert bool(re.search(naming("top_n=2", "[a]", "raise k"), message)) == matches
