"""Texts of strangers on the pages: shown to the letter, and unable to act."""

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from qwen3_core.ranking import rank
from qwen3_retrieval.comparison import Move, moves
from qwen3_retrieval.demo import render
from qwen3_retrieval.demo.passages import Excerpt
from qwen3_retrieval.evaluation import Passage, page, plots

SCRIPT = "</script><script>document.title = 'owned'</script>"
QUOTES = '"><img src=x onerror="alert(1)"> \' onmouseover=\'alert(2)'
URL = "javascript:alert(3)//<a href='javascript:alert(4)'>"
TEMPLATE = "{{ 7 * 7 }}{% include 'evaluation/page.css' %}${alert(5)}"
HOSTILE = f"{SCRIPT} {QUOTES} {URL} {TEMPLATE}"
PASSAGES = [Excerpt(HOSTILE, URL, f"{HOSTILE} {n}") for n in (1, 2)]
LABELS = {"title", "aria-label", "placeholder", "data-text"}
"""Attributes that show or name a text and do nothing."""


class Page(HTMLParser):
    """What a browser would find in some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def check(self, scripts: int = 0) -> None:
        """Nothing of the hostile texts is an element, or an attribute that does something."""
        assert self.tags.count("script") == scripts
        assert not {"img", "iframe", "object", "embed", "link", "base", "form"} & set(self.tags)
        for name, value in self.attributes:
            assert not name.startswith("on"), name
            assert name in LABELS or "alert(" not in value, (name, value)
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#"), value


@pytest.fixture
def without_plots(monkeypatch):
    """Plots take seconds; tests/evaluation/test_page.py has them."""
    for name in ("systems", "frontier", "dimensions", "top_n", "scores"):
        monkeypatch.setattr(plots, f"{name}_plot", lambda *_: "")


def hostile_moves() -> list[Move[Excerpt]]:
    return moves(PASSAGES, [0.5, 0.4], rank([-1.0, 1.0]), lambda _: True)


def test_the_checks_notice_what_acts():
    for html in (
        f"<p>{SCRIPT}</p>",
        f'<p title="{QUOTES}"></p>',
        "<a href='javascript:alert(1)'>x",
    ):
        with pytest.raises(AssertionError):
            Page(html).check()


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        (render.comparison(hostile_moves(), 1), HOSTILE[:200]),
        (render.answered(f"{HOSTILE} [1]", PASSAGES), HOSTILE),
        (render.unanswered(PASSAGES, HOSTILE), HOSTILE),
        (render.notice(HOSTILE, error=True), HOSTILE),
        (render.timings({HOSTILE: 0.5}), HOSTILE),
        (render.head(HOSTILE), HOSTILE),
    ],
    ids=["comparison", "answered", "unanswered", "notice", "timings", "head"],
)
def test_the_demo_shows_hostile_texts_and_nothing_of_them_acts(html, shown):
    parsed = Page(html)
    parsed.check()
    assert shown in parsed.text
    if "q3-columns" in html:
        assert [value for name, value in parsed.attributes if name == "title" and ":" in value] == [
            URL
        ] * 4


def test_the_report_shows_hostile_texts_and_nothing_of_them_acts(report, without_plots):
    passage = Passage(HOSTILE, HOSTILE, "unit", URL, HOSTILE)
    found = [Move(passage, 1, 2, 0.5, 0.5, 0.0, relevant=True), Move(passage, relevant=True)]
    hostile = replace(
        report,
        machine=HOSTILE,
        data=replace(report.data, name=HOSTILE, notes=[HOSTILE], synthetic=HOSTILE),
        systems=[replace(system, name=HOSTILE, unmatched=0.5) for system in report.systems],
        comparisons=[replace(c, first=HOSTILE, second=HOSTILE) for c in report.comparisons],
        sweep=replace(
            report.sweep,
            reason=HOSTILE,
            points=[replace(point, name=HOSTILE) for point in report.sweep.points],
        ),
        distributions=[replace(each, system=HOSTILE) for each in report.distributions],
        recommendation=replace(report.recommendation, pair=HOSTILE),
        compared=(HOSTILE, HOSTILE),
        views=[replace(report.views[0], question=HOSTILE, moves=found)],
    )
    html = page.render(hostile)
    shown = Page(html)
    shown.check(scripts=2)  # the texts as data, and the page's own script
    assert shown.text.count(HOSTILE) > 20
    texts = re.search(r'<script type="application/json" id="texts">(.*?)</script>', html, re.DOTALL)
    assert texts
    assert json.loads(texts[1]) == {HOSTILE: HOSTILE}


def test_a_browser_runs_only_the_script_of_the_page(report, without_plots):
    html = page.render(report)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
