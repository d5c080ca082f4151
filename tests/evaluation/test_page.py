"""The page as a reader sees it, in a browser: light and dark, wide and narrow."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from qwen3_retrieval.comparison import Move
from qwen3_retrieval.evaluation import Passage, frontier_svg, write_html
from qwen3_retrieval.evaluation.page import render
from qwen3_retrieval.evaluation.result import View

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def path(report, tmp_path_factory) -> Path:
    target: Path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(report, target)
    return target


@pytest.fixture(params=["light", "dark"])
def scheme(request) -> str:
    return str(request.param)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(chromium, path, report, scheme, width, tmp_path):
    context = chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
    )
    page = context.new_page()
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == "Retrieval on corpus"
    assert report.sweep.reason in page.locator("body").inner_text()
    assert "These questions are synthetic" in page.locator("body").inner_text()
    plots = page.locator(".scroll svg")
    assert plots.count() == 6  # systems, frontier, dimensions, top_n, log-odds, cosines
    for i in range(plots.count()):
        box = plots.nth(i).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 100
        assert page.evaluate("e => e.getBBox().width", plots.nth(i).element_handle()) > 100
    # What is wide scrolls in its own box: the page itself does not.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
        " getComputedStyle(document.querySelector('.scroll svg text')).fill]"
    )
    light = [sum(map(int, c[4:-1].split(","))) / 3 > 128 for c in colours]
    assert light == ([True, False, False] if scheme == "light" else [False, True, True])

    first = page.locator("details.question").first
    view = report.views[0]
    assert view.question in first.inner_text()
    first.locator("> summary").click()
    best = next(move for move in view.moves if move.after == 1)
    assert first.locator(".reranked li").first.inner_text().startswith("1")
    moves, rows = (first.locator(each).bounding_box() for each in (".q3-moves", "ol.dense"))
    assert moves["y"] == pytest.approx(rows["y"], abs=2)
    assert moves["height"] == pytest.approx(rows["height"], abs=2)
    text = first.locator("pre", has_text=best.passage.text[:40]).first
    assert not text.is_visible()
    first.locator(".q3-texts summary").first.click()
    text.wait_for(state="visible")
    assert first.locator("li.relevant").count() >= 1
    page.get_by_role("button", name="worse").click()
    worse = sum(view.after < view.before for view in report.views)
    assert page.locator("details.question:visible").count() == worse
    page.get_by_role("button", name="all").click()
    page.get_by_label("Find a question").fill(view.question)
    assert page.locator("details.question:visible").count() == 1

    shot = tmp_path / f"report-{scheme}-{width}.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 50_000
    assert problems == []
    assert requests == [path.as_uri()]
    context.close()


def test_ids_are_unique_and_links_lead_to_them(path):
    ids, links = [], set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            for name, value in attributes:
                if name == "id":
                    ids.append(value)
                if name in ("href", "xlink:href"):
                    links.add(value.removeprefix("#"))

    Reader().feed(path.read_text("utf-8"))
    assert len(ids) == len(set(ids))
    assert links <= set(ids)


def test_texts_cannot_become_markup(chromium, report, tmp_path):
    passage = Passage(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    view = View("q", HOSTILE, 1.0, 0.0, [Move(passage, 1, 2, 0.5, 0.5, 0.0, relevant=True)])
    data = replace(report.data, name=HOSTILE, notes=[HOSTILE])
    systems = [replace(report.systems[0], name="<img src=x onerror=alert(1)>")]
    target = tmp_path / "hostile.html"
    write_html(replace(report, data=data, views=[view], systems=systems), target)
    page = chromium.new_page()
    page.goto(target.as_uri())
    page.locator("details.question > summary").click()
    page.locator(".q3-texts summary").click()
    page.locator("pre", has_text="</script>").wait_for(state="visible")
    assert page.title() == f"Retrieval on {HOSTILE}"
    assert page.locator("img").count() == 0
    page.close()


def test_equal_reports_are_equal_pages(report):
    assert render(report) == render(report)


def test_the_plot_stands_alone(report):
    plot = frontier_svg(report)
    root = ET.fromstring(plot)
    assert root.tag.endswith("}svg")
    assert "var(--" not in plot
    assert "recommended" in [text.text for text in root.iter() if text.tag.endswith("}text")]
    with pytest.raises(ValueError, match="without a sweep"):
        frontier_svg(replace(report, sweep=None))
