"""The page: its controls, searches and uploads."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Read when gradio is imported; otherwise gradio checks for a newer release of itself.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from qwen3_core.prompts import DEFAULT_TASK, TASKS
from qwen3_retrieval.comparison import by_reranker
from qwen3_retrieval.demo import answer, render
from qwen3_retrieval.demo.passages import MAX_FILE_MB, MAX_FILES, read_uploads
from qwen3_retrieval.demo.search import Corpus, Searcher
from qwen3_retrieval.documents.corpus import KINDS
from qwen3_retrieval.documents.cutting import Cutter

UPLOADS: Final = "My files"
MAX_QUESTION: Final = 1_000

FAILURES: Final = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError)
"""Errors of a search or an upload whose messages are shown to the user: bad input, files and
addresses, failures of the server or the engine, numbers that are not finite, and lack of memory."""


@dataclass(frozen=True)
class Setup:
    """The page's settings and data."""

    searcher: Searcher
    cutter: Cutter
    """Cuts uploaded files."""
    corpora: dict[str, Corpus]
    """Corpora by the name that the page shows."""
    models: str
    """Description of the models."""
    examples: tuple[str, ...]
    """Example questions."""
    llm: str
    """Name of the LLM, used if one is configured."""


def build(setup: Setup) -> gr.Blocks:
    """The page, not yet served."""
    names = list(setup.corpora)

    def ask(
        question: str, name: str, uploaded: Corpus | None, task: str, k: float, top_n: float
    ) -> Iterator[tuple[str, str, str]]:
        corpus = uploaded if name == UPLOADS else setup.corpora.get(name)
        if corpus is None:
            yield "", render.notice("Upload files first, or choose another corpus."), ""
            return
        if not question or not question.strip():
            yield "", render.notice("Type a question, then press Enter."), ""
            return
        try:
            result = setup.searcher.search(
                corpus,
                question.strip()[:MAX_QUESTION],
                max(1, int(k)),
                (task or "").strip() or None,
            )
        except FAILURES as error:
            yield "", render.notice(str(error), error=True), ""
            return
        sent = [move.passage for move in by_reranker(result.moves)[: max(1, int(top_n))]]
        columns = render.comparison(result.moves, int(top_n))
        times = render.timings(result.seconds)
        if not answer.is_configured():
            reason = (
                f"No LLM is configured. With OPENAI_API_KEY or OPENAI_BASE_URL set, these "
                f"{len(sent)} passages would be sent to it."
            )
            yield times, columns, render.unanswered(sent, reason)
            return
        yield times, columns, render.notice(f"{setup.llm} is reading {len(sent)} passages …")
        yield times, columns, _answered(question, sent, setup.llm)

    def upload(files: list[str] | None) -> tuple[Any, Any, str]:
        if not files:
            return None, gr.update(choices=names, value=next(iter(names), None)), ""
        try:
            reading = read_uploads([Path(file) for file in files], setup.cutter)
            corpus = setup.searcher.index(reading.passages)
        except FAILURES as error:
            return None, gr.update(choices=names), render.notice(str(error), error=True)
        left = f" Left out: {'; '.join(reading.notes)}." if reading.notes else ""
        done = render.notice(f"{len(corpus.passages):,} passages embedded: ask about them.{left}")
        return corpus, gr.update(choices=[*names, UPLOADS], value=UPLOADS), done

    # Uploads are deleted after an hour.
    with gr.Blocks(
        title="Qwen3 reranking", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        gr.HTML(render.head(setup.models))
        uploaded = gr.State(None)
        with gr.Row(equal_height=True):
            question = gr.Textbox(
                label="Question",
                placeholder="Ask something, then press Enter",
                lines=1,
                max_lines=1,
                max_length=MAX_QUESTION,
                autofocus=True,
                min_width=320,  # a separate row on phones
                scale=5,
            )
            corpus = gr.Dropdown(names, value=next(iter(names), None), label="Corpus", scale=2)
            button = gr.Button("Ask", variant="primary", scale=1, min_width=90)
        if setup.examples:
            gr.Examples([[each] for each in setup.examples], [question], label="For example")
        with gr.Accordion("Instruction, number of candidates, own files", open=False):
            task = gr.Dropdown(
                list(TASKS),
                value=DEFAULT_TASK,
                label="Instruction",
                info="A task name, or a sentence of yours; both models read it",
                allow_custom_value=True,
            )
            with gr.Row():
                k = gr.Slider(1, 30, 10, step=1, label="k: candidates of dense search")
                top_n = gr.Slider(1, 10, 3, step=1, label="top_n: passages for the LLM")
            files = gr.File(
                label=f"Documents, text or code: at most {MAX_FILES} files of {MAX_FILE_MB} MB",
                file_count="multiple",
                file_types=list(KINDS),
                height=120,
            )
        state = gr.HTML(elem_id="q3-state")
        times = gr.HTML(elem_id="q3-times")
        columns = gr.HTML(elem_id="q3-results")
        answers = gr.HTML(elem_id="q3-answers")
        gr.on(
            [question.submit, button.click],
            ask,
            [question, corpus, uploaded, task, k, top_n],
            [times, columns, answers],
            show_progress="minimal",
        )
        gr.on([files.upload, files.clear], upload, [files], [uploaded, corpus, state])
    blocks: gr.Blocks = page
    return blocks


def serve(page: gr.Blocks, host: str, port: int | None, *, block: bool = True) -> str:
    """Serve a page; returns its address.

    Args:
        page: The result of `build`.
        host: Address to bind to.
        port: None: the first free port from 7860 on.
        block: Whether to return only after Ctrl+C, not at once.
    """
    here = Path(__file__).parent
    fonts = ("system-ui", "sans-serif")  # installed fonts: nothing is downloaded
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=False,
        prevent_thread_lock=True,
        max_file_size=MAX_FILE_MB * 1_000_000,
        enable_monitoring=False,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Base(font=fonts, font_mono=("ui-monospace", "monospace")),
        css_paths=[here.with_name("comparison.css"), here / "page.css"],
    )
    if block:
        print(f"{url}   (Ctrl+C stops it)", flush=True)  # noqa: T201
        page.block_thread()
    return url


def _answered(question: str, sent: list[Any], llm: str) -> str:
    try:
        text = answer.answer(question, [passage.text for passage in sent], llm)
    except Exception as error:  # noqa: BLE001 - no error of a remote server may break the page
        return render.unanswered(sent, f"{llm} gave no answer ({type(error).__name__}: {error}).")
    return render.answered(text, sent)
