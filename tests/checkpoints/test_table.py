"""The page on checkpoints shows the kinds that the tests refuse."""

from tests.checkpoints.kinds import table
from tests.conftest import ROOT


def test_the_page_has_the_kinds_of_the_tests():
    assert table() in (ROOT / "docs" / "howto" / "checkpoints.md").read_text("utf-8")
