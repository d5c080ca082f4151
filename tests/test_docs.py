"""The pages under docs: what they show runs, up to a server it names; what they name exists."""

import ast
import gc
import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.vector_stores import SimpleVectorStore

from qwen3_core._version import __version__
from qwen3_core.remote.checks import HF_OVERRIDES
from tests.conftest import ROOT
from tests.openai_server import OpenAIServer

DOCS = ROOT / "docs"
TEXTS = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^( *)```(python|bash|diff)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
INGEST = "python -m qwen3_retrieval.ingest "
NOTEBOOKS = set((DOCS / "notebooks").glob("*.md"))  # tests/test_notebooks.py runs them


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page that are code, each with its language; of a diff, what comes after."""
    found = []
    for _, language, body in BLOCK.findall(page.read_text("utf-8")):
        code = body
        if language == "diff":
            kept = [line for line in body.splitlines() if not line.startswith("-")]
            language, code = "python", "\n".join(line[1:] for line in kept)
        found.append((language, code))
    return found


def python(page: str) -> list[str]:
    return [code for language, code in blocks(DOCS / page) if language == "python"]


PAGES = [
    pytest.param(page, id=str(page.relative_to(DOCS)))
    for page in TEXTS
    if page.is_relative_to(DOCS)
    and page not in NOTEBOOKS
    and page.name != "servers.md"
    and any(language == "python" or INGEST in code for language, code in blocks(page))
]

OUTCOMES: dict[str, Callable[[dict[str, Any]], object]] = {
    "agents.md": lambda names: (
        names["state"]["messages"][-1].content.startswith("The tool says: Milvus keeps")
        and names["graph_state"]["messages"][-1].content.startswith("The tool says: Milvus keeps")
        and names["answer"].startswith("The tool says: They say: Milvus keeps")
        and names["read_answer"].startswith("The tool says: Milvus keeps")
    ),
    "conversations.md": lambda names: names["result"]["citations"] and names["cited"] == [1],
    "evaluation.md": lambda names: (
        names["report"].systems[-1].name == "my engine"
        and names["report"].systems[-1].metrics["nDCG@10"].mean > 0.3
        and Path("evaluation.html").is_file()
    ),
    "llama_index/index.md": lambda names: (
        [
            found.node.ref_doc_id
            for found in names["index"].as_retriever().retrieve("Where are the keys?")
        ]
        == ["keys.md"]
    ),
    "streaming.md": lambda names: names["citations"] == [1],
    "langchain/production.md": lambda names: (
        names["answered"]["sources"] == ["a.md"] and names["refused"].status_code == 422
    ),
    "llama_index/production.md": lambda names: (
        names["answered"]["sources"] == ["a.md"] and names["refused"].status_code == 422
    ),
    "howto/production.md": lambda names: (
        names["stats"].packs > 0 and names["reranker_stats"].packs > 0
    ),
    "milvus.md": lambda names: names["found_by_llama_index"],
    "quickstart.md": lambda names: (
        names["document"].metadata["source"] == "office.md"
        and names["result"]["citations"]
        and names["response"].metadata["citations"]
    ),
}
"""Page -> whether its names hold, at the end, what it is about."""

LINKS = [
    pytest.param(path, target, id=f"{path.stem}-{target}")
    for path in TEXTS
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", path.read_text("utf-8"))
]


@pytest.fixture
def handbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a reader, with the folders of documents that the pages name."""
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "office.md").write_text(
        "# Where do the spare keys hang?\n\nThe spare keys hang behind the door of the archive.\n\n"
        "# When is the office open?\n\nThe office is open from eight to six.\n"
    )
    (tmp_path / "docs").mkdir()
    for name in ("milvus.md", "vector-search.md"):
        (tmp_path / "docs" / name).symlink_to(ROOT / "examples" / "corpus" / name)
    monkeypatch.chdir(tmp_path)
    freeze = gc.freeze
    frozen: list[None] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(freeze()))
    yield tmp_path
    if frozen:  # by a page about servers
        gc.unfreeze()
        gc.collect()
        freeze()


def ingest(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an ingest command in this process, with the bundled model."""
    arguments = command.partition("#")[0].split()[3:]
    monkeypatch.setattr(sys, "argv", ["ingest", *arguments, "--model", "tiny"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module("qwen3_retrieval.ingest", run_name="__main__")
    assert not leaving.value.code


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, handbook, monkeypatch):
    names: dict[str, Any] = {"__name__": "__main__"}
    for name, value in list(vars(Settings).items()):  # what a page assigns holds for the page
        monkeypatch.setattr(Settings, name, value)
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        for language, code in blocks(page):
            if language == "python":
                tried = re.sub(r"Qwen/Qwen3-(Embedding|Reranker)-[0-9.]+B", "tiny", code)
                exec(compile(tried, str(page), "exec"), names)
            else:
                for line in code.splitlines():
                    if line.startswith(INGEST):
                        ingest(line, monkeypatch)
    outcome = OUTCOMES.get(f"{page.parent.name}/{page.name}") or OUTCOMES.get(page.name)
    assert outcome is None or outcome(names)


@pytest.mark.parametrize("block", python("servers.md"))
def test_a_block_about_servers_runs(block):
    names: dict[str, object] = {}
    exec("from llama_index_qwen3 import Qwen3Rerank", names)  # what an earlier block imported
    exec(compile(block, "docs", "exec"), names)
    components = [name for name in names if name in ("embeddings", "embed_model", "reranker")]
    assert components
    assert all("8000" in repr(names[c]) or "8001" in repr(names[c]) for c in components)


def test_the_overrides_for_vllm_are_those_that_errors_name():
    (shown,) = re.findall(r"--hf-overrides '(.*?)'", (DOCS / "servers.md").read_text(), re.DOTALL)
    assert json.loads(shown) == json.loads(HF_OVERRIDES)


@pytest.mark.parametrize(("path", "target"), LINKS)
def test_link_leads_somewhere(path: Path, target: str):
    assert (path.parent / target).exists()


def test_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(extras["optional-dependencies"])
    named = {
        extra
        for path in TEXTS
        for group in re.findall(
            r'(?:"\.|\.whl|qwen3-retrieval)\[([a-z,-]+)\]', path.read_text("utf-8")
        )
        for extra in group.split(",")
    }
    assert len(named) > 3
    assert named <= known


def test_pages_install_from_a_clone_or_a_wheel_of_this_version():
    wheels = set()
    for path in TEXTS:
        text = path.read_text("utf-8")
        wheels |= set(re.findall(r"qwen3_retrieval-([0-9a-z.]+)-py3-none-any\.whl", text))
        commands = re.findall(r"pip install(?: -[-\w]+)*\s+\"?qwen3-retrieval", text)
        # The quick start explains what this form does once the distribution is installed.
        assert len(commands) == (path == DOCS / "quickstart.md"), path
    assert wheels == {__version__}


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for path in TEXTS
        for target in re.findall(r"(?m)(?:`|^ {4})make ([a-z-]+)", path.read_text("utf-8"))
    }
    assert len(named) > 5
    assert named <= targets


@pytest.mark.integration
def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"venv"}  # the others' own
    assert targets == set(re.findall(r"^  make ([a-z-]+)", listed.stdout, re.MULTILINE))


def test_error_messages_that_are_explained_are_those_of_the_code():
    ours = [
        node.value
        for package in ("qwen3_core", "langchain_qwen3", "llama_index_qwen3", "qwen3_retrieval")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    text = (DOCS / "troubleshooting.md").read_text("utf-8")
    headings = re.findall(r"^### (`.*`)$", text, re.MULTILINE)
    messages = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    assert len(messages) > 30
    for message in messages:
        for part in message.split("…"):
            assert any(part.strip() in constant for constant in ours), part


def test_message_of_a_forgotten_embed_model_is_the_one_that_is_explained(monkeypatch):
    monkeypatch.setattr(Settings, "_embed_model", None)
    monkeypatch.delenv("IS_TESTING", raising=False)  # LlamaIndex would take a mock
    store = SimpleVectorStore()
    store.stores_text = True  # as Milvus's does
    with pytest.raises(ImportError) as raised:
        VectorStoreIndex.from_vector_store(store)
    message, _, advice = str(raised.value).partition(", ")
    assert "pip install" in advice
    assert message in (DOCS / "troubleshooting.md").read_text("utf-8")
