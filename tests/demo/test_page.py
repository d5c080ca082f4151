"""The demo page in a browser, as a person uses it; and what it does with strangers' files."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from qwen3_core import Embedder, Reranker
from qwen3_retrieval.demo.__main__ import BUNDLED, EXAMPLES, main
from qwen3_retrieval.demo.passages import MAX_FILES, Excerpt, read_corpus, read_uploads
from qwen3_retrieval.demo.render import answered
from qwen3_retrieval.demo.search import Searcher
from qwen3_retrieval.documents.cutting import Cutter, tokenizer_of
from tests.conftest import free_port, naming
from tests.documents.mixed import pdf
from tests.openai_server import OpenAIServer
from tests.remote.fake_server import FakeServer, status

CUTTER = Cutter(tokenizer_of("tiny"))
HOSTILE = """# Tea <script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 2"> ${window.hacked = 3} {{window.hacked}} Green tea is steeped
at 80 degrees for two minutes. </pre></details><b id="forged">x</b>
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from qwen3_retrieval.demo.page import Setup, build, serve  # loads Gradio

    searcher = Searcher(Embedder("tiny"), Reranker("tiny"))
    corpora = {"Bundled FAQ": searcher.index(read_corpus(BUNDLED, CUTTER).passages)}
    page = build(Setup(searcher, CUTTER, corpora, "Models: tiny and tiny.", EXAMPLES, "stand-in"))
    yield serve(page, "127.0.0.1", free_port(), block=False)
    page.close()


@pytest.fixture
def visit(chromium, url):
    """Opens a page; at the end nothing was asked of another host, and no error shown."""
    contexts, requests, errors = [], [], []

    def open_page(url=url, **options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.get_by_label("Question", exact=True).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert requests
    elsewhere = {each for each in requests if urlsplit(each).hostname not in ("127.0.0.1", None)}
    assert not elsewhere
    assert not errors


def ask(page, question: str) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_enter_shows_both_orders_and_the_moves(visit, size, scheme):
    page = visit(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.keyboard.type(EXAMPLES[0])  # the box has the focus
    page.keyboard.press("Enter")
    page.locator(".reranked li").first.wait_for()
    assert page.locator(".dense li").count() == page.locator(".reranked li").count() == 10
    assert page.locator(".q3-moves path").count() == 10
    dense, reranked = (page.locator(f".{name} .what b").all_text_contents() for name in
                       ("dense", "reranked"))  # fmt: skip
    assert sorted(dense) == sorted(reranked)
    assert dense != reranked
    scores = page.locator(".reranked .score span[title]").all_text_contents()
    assert scores == sorted(scores, reverse=True)
    assert "rerank 10" in page.locator(".q3-timings").inner_text()
    assert "No LLM is configured" in page.locator(".q3-answer").inner_text()
    assert page.locator(".q3-answer details").count() == 3
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    # Lines begin and end at the middle of their rows.
    moves, rows = page.locator(".q3-moves").bounding_box(), page.locator("ol.dense").bounding_box()
    assert moves["y"] == pytest.approx(rows["y"], abs=2)
    assert moves["height"] == pytest.approx(rows["height"], abs=2)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(int(part) for part in background.strip("rgba()").split(",")[:3]) / 3
    assert bright < 100 if scheme == "dark" else bright > 200


def test_on_a_phone_the_question_has_a_row_and_empty_parts_take_no_room(visit):
    page = visit(viewport={"width": 390, "height": 844})
    box = page.get_by_label("Question", exact=True).bounding_box()
    assert box
    assert box["width"] >= 300
    parts = [page.locator(f"#q3-{name}") for name in ("times", "results", "answers")]
    assert not any(part.is_visible() for part in parts)
    ask(page, EXAMPLES[0])
    page.locator(".reranked li").first.wait_for()
    assert all(part.is_visible() for part in parts)


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_subdued_text_can_be_read(visit, scheme):
    page = visit(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    ask(page, EXAMPLES[0])
    page.locator(".reranked li").first.wait_for()
    style = "e => [getComputedStyle(e).color, getComputedStyle(e.closest('li')).backgroundColor]"
    for what in (".dense .place", ".dense .what span"):
        pair = sorted(map(luminance, page.locator(what).first.evaluate(style)))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, what  # WCAG 2.2, level AA


def test_keyboard_alone_reaches_the_button_and_focus_is_seen(visit):
    page = visit()
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Ask":
            break
    else:
        pytest.fail("Tab does not reach the button")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    page.keyboard.press("Enter")
    page.get_by_text("Type a question, then press Enter.").wait_for()


def test_uploaded_text_is_shown_and_not_run(visit, tmp_path):
    path = tmp_path / "tea.md"
    path.write_text(HOSTILE)
    page = visit()
    page.get_by_text("Instruction, number of candidates, own files").click()
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_text("1 passages embedded").wait_for()
    ask(page, "How long is <i>green</i> tea steeped?")
    page.locator(".reranked li").first.wait_for()
    assert '<img src=x onerror="window.hacked = 2"> ${window' in page.locator("pre").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#forged, #q3-results script, #q3-answers img").count() == 0


def test_a_pdf_is_searched_and_a_broken_one_explained(visit, tmp_path):
    path, broken, empty = (tmp_path / name for name in ("tea.pdf", "torn.pdf", "empty.md"))
    path.write_bytes(pdf(["Black tea is steeped for four minutes.", "Cats sleep all day."]))
    broken.write_bytes(path.read_bytes()[:150])
    empty.write_bytes(b"")
    page = visit()
    page.get_by_text("Instruction, number of candidates, own files").click()
    for bad, said in ((broken, "not a readable PDF"), (empty, "no text in empty.md")):
        page.locator("input[type=file]").set_input_files(bad)
        page.locator("#q3-state").get_by_text(said).wait_for()
        page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
        page.locator("#q3-state").get_by_text(said).wait_for(state="hidden")
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_text("2 passages embedded").wait_for()
    ask(page, "How long is black tea steeped?")
    best = page.locator(".reranked li").first
    best.wait_for()
    assert "tea.pdf, page 1" in best.inner_text()


@pytest.mark.parametrize("error", [FloatingPointError, TimeoutError, MemoryError])
def test_a_search_that_fails_says_why(visit, monkeypatch, error):
    def fail(*_, **__):
        raise error("the reason for a person")

    monkeypatch.setattr(Reranker, "rerank", fail)
    page = visit()
    ask(page, EXAMPLES[0])
    page.get_by_text("the reason for a person").wait_for()
    monkeypatch.undo()
    ask(page, EXAMPLES[0])
    page.locator(".reranked li").first.wait_for()


def test_models_on_servers(visit, tmp_path):
    """The command, with both models on a server that once refuses."""
    (tmp_path / "tea.md").write_text("# Tea\n\nGreen tea is steeped at 80 degrees.")
    port = free_port()
    with FakeServer("vllm") as server:
        command = [sys.executable, "-m", "qwen3_retrieval.demo", "--base-url", server.url]
        command += ["--corpus", str(tmp_path), "--port", str(port), "--model", "tiny"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
            try:
                assert demo.stdout
                assert any("Ctrl+C stops it" in line for line in demo.stdout)
                page = visit(f"http://127.0.0.1:{port}")
                ask(page, "How hot is the water?")
                page.locator(".reranked li").first.wait_for()
                server.fail(status(401))
                ask(page, "How hot is the water?")
                page.get_by_text("the server answered 401").wait_for()
                ask(page, "How hot is the water?")
                page.locator(".reranked li").first.wait_for()
            finally:
                demo.terminate()
    assert len(server.received) >= 4


def test_a_bad_instruction_is_explained(visit):
    page = visit()
    page.get_by_text("Instruction, number of candidates, own files").click()
    box = page.get_by_label("Instruction", exact=True)
    box.fill("web_serch")
    box.press("Enter")
    ask(page, "anything")
    page.get_by_text("unknown task name 'web_serch'").wait_for()


def test_the_answer_links_its_citations(visit, monkeypatch):
    with OpenAIServer(lambda _: "<b>Log-odds</b> do not saturate [1][3] [9].") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        page = visit()
        ask(page, EXAMPLES[0])
        page.locator(".q3-answer .text").wait_for()
        assert page.locator(".q3-answer .text").inner_text() == (
            "<b>Log-odds</b> do not saturate [1][3] [9]."
        )
        links = page.locator(".q3-answer .text a")
        assert links.all_text_contents() == ["1", "3"]
        assert page.locator(".q3-answer details[open]").count() == 2
        assert EXAMPLES[0] in server.prompt


def test_citations_in_any_style_are_links_and_code_is_not():
    passages = [Excerpt("title", "source", f"Text {n}.") for n in (1, 2, 3)]
    html = answered("`x[1]` 存储【1，3†a's】 & [1-3] [9]", passages)
    linked = re.sub(r'<a href="#q3-passage-(\d)">(\d)</a>', r"<\1>", html)
    assert "`x[1]` 存储【<1>，<3>†a&#39;s】 &amp; [<1>-<3>] [9]</p>" in linked


def test_uploads_have_limits(tmp_path, monkeypatch):
    path = tmp_path / "a.md"
    path.write_text("# One\n\nTwo")
    with pytest.raises(ValueError, match="too many"):
        read_uploads([path] * (MAX_FILES + 1), CUTTER)
    with pytest.raises(ValueError, match=naming("a.exe", "extension .exe")):
        read_uploads([path.rename(tmp_path / "a.exe")], CUTTER)
    large = tmp_path / "b.txt"
    large.write_bytes(b"x" * 5_000_001)
    with pytest.raises(ValueError, match=naming("b.txt", "5 MB")):
        read_uploads([large], CUTTER)
    monkeypatch.setattr("qwen3_retrieval.demo.passages.MAX_PASSAGES", 100)
    large.write_text(" ".join(map(str, range(50_000))))
    with pytest.raises(ValueError, match="more than 100 passages"):
        read_uploads([large], CUTTER)
    large.write_bytes(b" ")
    with pytest.raises(ValueError, match=r"no text in b\.txt"):
        read_uploads([large], CUTTER)


def test_without_gradio_the_extra_is_named(tmp_path: Path):
    code = (
        "import sys; sys.modules['gradio'] = None; "
        "from qwen3_retrieval.demo.__main__ import main; sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "qwen3-retrieval[demo]" in done.stderr
    assert "Traceback" not in done.stderr


def test_ask_prints_both_orders_in_the_terminal(tmp_path, capsys):
    (tmp_path / "tea.md").write_text(
        "# Tea\n\nGreen tea is steeped at 80 degrees.\n\n# Coffee\n\nNo."
    )
    assert main(["--corpus", str(tmp_path), "--ask", "How hot is the water?"]) == 0
    out = capsys.readouterr().out
    assert "dense search, top 2 of 2" in out
    assert "reranked, top 2" in out
    assert out.count("Tea") == out.count("Coffee") == 2
    assert main(["--corpus", str(tmp_path), "--ask", " "]) == 1
    assert "blank" in capsys.readouterr().err
