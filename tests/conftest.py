"""What all tests share: optional data, and checkpoints with random weights.

Tests that want the Milvus documentation or the published Qwen3 tokenizer look for them in
`$QWEN3_TEST_DATA`, by default `shared/data` next to the checkout, and skip without them. The
tokenizer may also come from the Hugging Face hub, or its cache.
"""

import contextlib
import gc
import json
import multiprocessing.process
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from functools import lru_cache
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

# The models of the tests are so small that a second thread costs more than it brings. Before torch
# is imported, and for the child processes too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# gRPC logs each idle connection that Milvus Lite closes between two tests.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import httpx
import numpy.testing  # noqa: F401 - numpy 2.0 starts `lscpu` when this is first imported
import pytest
from filelock import FileLock
from hypothesis import Phase, settings

from benchmarks.machine import free_port as free_port  # the tests' too
from qwen3_core.settings import DEFAULT_RERANKER_MODEL

if TYPE_CHECKING:
    from playwright.sync_api import Browser

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")
# For tools/mutation.py: the same examples every time, and a failure is enough, however large.
settings.register_profile(
    "mutation",
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("QWEN3_TEST_DATA", ROOT.parent / "shared" / "data"))
TINY = ROOT / "qwen3_core" / "tiny"
APPEND_END_OF_TEXT = {
    "type": "TemplateProcessing",
    "single": [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
    ],
    "pair": [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ],
}


LONG = 9_216
"""Tokens that `long_pair` reads; the bundled pair as such reads 2,048."""


PATIENCE = 170.0
"""Seconds after which a wait for another thread is a hang: about as long as a test may take."""

SLOW_TO_START = {"vllm": 600}
"""Folders whose servers may take longer to start than a test may last; in seconds."""

ONE_WORKER = {"llama_cpp", "load", "milvus", "ray", "vllm"}
"""Folders whose tests share servers, or measure what other tests beside them would disturb."""


INTEGRATION = {
    *("demo", "examples", "llama_cpp", "load", "milvus", "ray", "reliability", "vllm"),
    *("test_command.py", "test_hostile_texts.py", "test_kill.py", "test_notebooks.py"),
    *("test_page.py", "test_tiny.py"),
}
"""Folders and files whose tests all have the marker `integration`: they start processes, or they
measure whole corpora."""


SLOW_IF_PUBLISHED = {
    *("checkpoints", "test_attention.py", "test_cuda.py", "test_int8.py", "test_judge.py"),
    *("test_layers.py", "test_loading.py", "test_memory.py"),
}
"""Places whose tests are `integration` with the published tokenizer: its vocabulary makes small
models large. Parity is tested with both tokenizers in every run."""


def naming(*values: str) -> str:
    """A pattern for messages that name all these values, in any order and wording."""
    whole = (re.sub(r"^(?=\w)|(?<=\w)$", r"\\b", re.escape(value)) for value in values)
    return "(?s)" + "".join(f"(?=.*{value})" for value in whole)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector need not look again and again at all that imports have made.

    With these libraries a full collection takes a third of a second, and loading a model starts
    one.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """`make integration` takes one more: half of its time it waits for servers."""
    workers = yield
    waiting: bool = config.getoption("markexpr").startswith("integration ")
    return workers + waiting


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """With several workers, one takes a file whole, and of some folders all files."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = PurePath(nodeid.partition("::")[0])
            return path.parent.name if path.parent.name in ONE_WORKER else str(path)

    # Not by groups: those of xdist 3.8 are lost with pytest 9.2, which has no `_nodeid`.
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is `integration` by its place, and what may take longer."""
    for item in items:
        folder = item.path.parent.name
        place = {folder, item.path.name}
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        large = "published" in parameters and not SLOW_IF_PUBLISHED.isdisjoint(place)
        if large or not INTEGRATION.isdisjoint(place):
            item.add_marker(pytest.mark.integration)
        if folder in SLOW_TO_START:
            item.add_marker(pytest.mark.timeout(SLOW_TO_START[folder]))


platform.platform()  # starts `uname` once; openai's clients ask for it too, and it is kept


def optional_data(*parts: str) -> Path:
    """A path below the optional data, or a skip that says what is missing."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} in {DATA}; set QWEN3_TEST_DATA to a folder that has it")
    return path


@pytest.fixture(scope="session", autouse=True)
def once() -> Iterator[None]:
    """What loading a model, or creating an index, would do or await again and always alike."""
    from qwen3_core.model import loading
    from qwen3_core.tokenizer import Qwen3Tokenizer

    with pytest.MonkeyPatch.context() as patch:
        # Equal files make equal tokenizers, which never change and which threads share anyway.
        patch.setattr(loading, "Qwen3Tokenizer", lru_cache(maxsize=4)(Qwen3Tokenizer))
        if handler := sys.modules.get("pymilvus.client.grpc_handler"):
            # It looks after half a second, and Milvus Lite is done at once.
            clock = SimpleNamespace(time=time.time, sleep=lambda s: time.sleep(min(s, 0.01)))
            patch.setattr(handler, "time", clock)
        yield


@pytest.fixture(scope="session")
def long_pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled pair, allowed to read long texts (rotary positions have no end of their own)."""
    folders = {}
    for name in ("embedding", "reranker"):
        folder = folders[name] = tmp_path_factory.mktemp("long") / name
        shutil.copytree(TINY / name, folder)
        config = json.loads((folder / "config.json").read_text())
        config["max_position_embeddings"] = LONG
        (folder / "config.json").write_text(json.dumps(config))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["model_max_length"] = LONG
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folders


@pytest.fixture(scope="session")
def milvus_faq_folder() -> Path:
    """The four FAQ files of the Milvus documentation v2.4.6, which the tutorial searches."""
    return optional_data("milvus-docs", "v2.4.6-preview", "site", "en", "faq")


@pytest.fixture(scope="session")
def published_tokenizer(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The published tokenizer.json, beside its tokenizer_config.json; a skip where there is none.

    It comes from the optional data, from the hub's cache, or from the hub. One of the workers asks
    the hub, and downloads the files into the cache.
    """
    file = DATA / "qwen3-tokenizer" / "tokenizer.json"
    if not file.exists():
        folder = tmp_path_factory.getbasetemp()
        if hasattr(request.config, "workerinput"):
            folder = folder.parent  # all workers'
        with FileLock(folder / "tokenizer.lock"):
            note = folder / "tokenizer.txt"
            if not note.exists():
                note.write_text(str(from_hub() or ""))
            found = note.read_text()
        if not found:
            optional_data("qwen3-tokenizer", "tokenizer.json")
        file = Path(found)
    return file


def from_hub() -> Path | None:
    """The published tokenizer.json in the hub's cache, downloaded if need be and possible."""
    from huggingface_hub import constants, hf_hub_download

    def fetch(*, cached: bool = False) -> Path:
        names = ("tokenizer_config.json", "tokenizer.json")
        model = DEFAULT_RERANKER_MODEL
        _, file = (hf_hub_download(model, name, local_files_only=cached) for name in names)
        return Path(file)

    with contextlib.suppress(OSError):
        return fetch(cached=True)
    if not constants.HF_HUB_OFFLINE:
        with contextlib.suppress(OSError, httpx.HTTPError):
            # The hub's client itself tries for half a minute.
            httpx.head(constants.ENDPOINT, timeout=httpx.Timeout(10, connect=1))
            return fetch()
    return None


@pytest.fixture(scope="session", params=["bundled", "published"])
def tokenizer_file(request: pytest.FixtureRequest) -> Path:
    """A reranker's tokenizer.json: the bundled one, and the published one where it is at hand."""
    if request.param == "bundled":
        return TINY / "reranker" / "tokenizer.json"
    file: Path = request.getfixturevalue("published_tokenizer")
    return file


@pytest.fixture(scope="session")
def random_checkpoints(
    tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders of small random models: "embedding", "reranker", "untied" (a sharded reranker)."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    tokenizer = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    control = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    sizes = {
        "vocab_size": max(control.values()) + 1,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        # Wide enough for scores that differ: a wrong result must show.
        "initializer_range": 0.15,
    }
    root = tmp_path_factory.mktemp("random")
    folders = {}
    for seed, (name, tied) in enumerate(
        [("embedding", True), ("reranker", True), ("untied", False)]
    ):
        torch.manual_seed(seed)
        config = Qwen3Config(**sizes, tie_word_embeddings=tied)
        model = (Qwen3Model if name == "embedding" else Qwen3ForCausalLM)(config)
        with torch.no_grad():  # norm weights that are not all 1
            for key, weight in model.named_parameters():
                if "norm" in key:
                    weight.uniform_(0.5, 1.5)
        folder = folders[name] = root / name
        model.save_pretrained(folder, max_shard_size="4MB" if name == "untied" else "5GB")
        data = dict(tokenizer)
        if name == "embedding":
            end = control["<|endoftext|>"]
            special = {"id": "<|endoftext|>", "ids": [end], "tokens": ["<|endoftext|>"]}
            step = APPEND_END_OF_TEXT | {"special_tokens": {"<|endoftext|>": special}}
            data["post_processor"] = {
                "type": "Sequence",
                "processors": [tokenizer["post_processor"], step],
            }
        (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
        source = tokenizer_file.with_name("tokenizer_config.json")
        (folder / "tokenizer_config.json").write_text(source.read_text(encoding="utf-8"))
    return folders


@pytest.fixture(scope="module")  # while it is open, no other event loop can run
def chromium() -> Iterator["Browser"]:
    """A headless Chromium, driven by playwright's synchronous interface."""
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        from setup_chromium import find
    path = find()
    if path is None:
        pytest.skip("no Chromium or Chrome here; `make chromium` installs one")
    with sync_playwright() as playwright:
        # No sandbox: in a container Chromium cannot set up its own, and the pages are ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def no_llm_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a real LLM because the developer happens to have a key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(autouse=True)
def no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without the marker `integration` starts no process, so that `make test` is quick."""
    if request.node.get_closest_marker("integration"):
        return

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("starts a process: it needs the marker `integration`")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    monkeypatch.setattr(os, "fork", refuse)
