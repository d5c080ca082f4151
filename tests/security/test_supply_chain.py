"""No file that is read can run code, and no file that is written can be read by others."""

import ast
import json
import pickle
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from qwen3_core import Embedder
from qwen3_core.model.loading import load
from qwen3_retrieval.ingest.journal import Journal, Note
from tests.conftest import ROOT, TINY, naming

PACKAGES = ["qwen3_core", "langchain_qwen3", "llama_index_qwen3", "qwen3_retrieval"]
SOURCES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def dotted(node: ast.expr) -> str:
    """The name that is called, such as "os.system"."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


UNSAFE = """
import ctypes, pickle, subprocess, os, httpx, torch, numpy
eval("1")
os.system("ls")
torch.load("weights")
numpy.load("array", allow_pickle=True)
httpx.Client(verify=False)
"""


@pytest.mark.integration
def test_the_linter_refuses_what_could_run_code_from_elsewhere():
    """The rules "S" and the banned modules of pyproject.toml; `make lint` applies them."""
    ruff = pytest.importorskip("ruff.__main__").find_ruff_bin()
    arguments = ["check", "--output-format=json", "--stdin-filename=qwen3_core/new.py", "-"]
    done = subprocess.run(
        [ruff, *arguments], input=UNSAFE, capture_output=True, text=True, cwd=ROOT
    )
    found = {(each["code"], each["location"]["row"]) for each in json.loads(done.stdout)}
    refused = {("TID251", 2), ("S307", 3), ("S605", 4), ("TID251", 5), ("TID251", 6), ("S501", 7)}
    assert refused <= found


def test_every_checkpoint_is_loaded_from_safetensors_and_without_its_code():
    calls = [
        (
            dotted(node.func).rpartition(".")[2],
            {word.arg: ast.unparse(word.value) for word in node.keywords},
        )
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]
    # The configuration, and the model without weights; `qwen3_core.model.weights` reads those.
    (of_config,) = (words for name, words in calls if name == "from_pretrained")
    (of_model,) = (words for name, words in calls if name == "from_config")
    assert of_config["trust_remote_code"] == of_model["trust_remote_code"] == "False"
    assert "revision" in of_config
    assert "attn_implementation" in of_model
    given = {name: value for _, words in calls for name, value in words.items()}
    assert not given.keys() & {"use_safetensors", "allow_pickle", "allow_all_kernels"}


def test_the_only_library_that_ctypes_opens_is_loaded_already():
    called = [
        ast.unparse(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and dotted(node.func).startswith("ctypes.")
    ]
    only_if_loaded = "ctypes.CDLL('libgomp.so.1', mode=os.RTLD_NOLOAD | os.RTLD_NOW)"
    assert set(called) == {"ctypes.CDLL(None)", only_if_loaded}


# Checkpoints


@pytest.fixture
def embedding(tmp_path):
    """A copy of the bundled embedding model that a test may damage."""
    return shutil.copytree(TINY / "embedding", tmp_path / "embedding")


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
def test_a_pickled_checkpoint_is_refused_and_never_read(embedding, tmp_path, name):
    trace = tmp_path / "it was run"
    (embedding / "model.safetensors").unlink()
    torch.save({"weight": Bomb(trace)}, embedding / name)
    if "-of-" in name:
        index = {"metadata": {}, "weight_map": {"weight": name}}
        (embedding / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(OSError, match=naming("pickle", name, "*.safetensors")):
        load(embedding, "embedding")
    assert not trace.exists()


def test_a_pickle_by_the_name_of_safetensors_is_refused(embedding, tmp_path):
    trace = tmp_path / "it was run"
    (embedding / "model.safetensors").write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(
        OSError,
        match=naming("embedding model", str(embedding / "model.safetensors"), "download it"),
    ):
        load(embedding, "embedding")
    assert not trace.exists()


def test_a_pickle_beside_safetensors_is_not_read(embedding, tmp_path):
    trace = tmp_path / "it was run"
    (embedding / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(trace)))
    load(embedding, "embedding")
    assert not trace.exists()


CODE = """
from pathlib import Path
Path(__file__).with_name("it was run").touch()
from transformers import Qwen3Config as Config, Qwen3Model as Model
"""


@pytest.mark.parametrize("model_type", ["qwen3", "unheard-of"])
def test_code_that_comes_with_a_checkpoint_is_not_run(embedding, model_type, monkeypatch):
    def asked(*_: object) -> str:
        pytest.fail("somebody was asked whether to run it")

    monkeypatch.setattr("builtins.input", asked)
    (embedding / "own.py").write_text(CODE)
    config = json.loads((embedding / "config.json").read_text())
    config |= {
        "model_type": model_type,
        "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"},
    }
    (embedding / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError,
        match=naming("remove auto_map", "own.Config", "own.Model", "Qwen/Qwen3-Embedding-0.6B"),
    ):
        load(embedding, "embedding")
    assert not list(embedding.rglob("it was run"))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_checkpoint_cannot_name_compiled_code_on_the_hub(embedding, key):
    config = json.loads((embedding / "config.json").read_text())
    (embedding / "config.json").write_text(json.dumps(config | {key: "stranger/kernel"}))
    assert load(embedding, "embedding").model.config._attn_implementation == "sdpa"


def test_the_revision_is_recorded_with_the_vectors(embedding):
    on_hub = Embedder("Qwen/Qwen3-Embedding-0.6B", revision="abc123", dimensions=64)
    assert on_hub.fingerprint.revision == "abc123"
    assert Embedder("Qwen/Qwen3-Embedding-0.6B", dimensions=64).fingerprint.revision == "main"
    before = Embedder(embedding, dimensions=64).fingerprint
    weights = embedding / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    after = Embedder(embedding, dimensions=64).fingerprint
    assert before.weights != after.weights
    assert "model" in before.differences(after)


# What is written


def test_a_new_journal_is_its_owners_alone(tmp_path):
    path = tmp_path / "notes.jsonl"
    Journal(path, "corpus").note("secret plans.md", Note("1", "2", "3"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["source"] == "secret plans.md"
    path.chmod(0o640)
    Journal(path, "corpus").note("b.md", Note("1", "2", "3"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # shared on purpose: it stays


def test_the_journal_is_the_only_file_that_the_packages_write():
    writers = {"write_text", "write_bytes", "mkdir", "touch", "save_file", "save_pretrained"}
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func)
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            opens = name.endswith("open") and any(str(m)[:1] in "wax" for m in modes if m)
            if name == "os.open" or opens or name.rpartition(".")[2] in writers:
                found.add(path.relative_to(ROOT).as_posix())
    assert "qwen3_retrieval/ingest/journal.py" in found
    assert {name for name in found if "/evaluation/" not in name} == {
        "qwen3_retrieval/ingest/journal.py"
    }


# Dependencies


def test_every_dependency_of_the_product_has_both_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own = {f"{project['name']}[{name}]" for name in extras}  # an extra within another
    lines = {*project["dependencies"], *(each for extra in extras.values() for each in extra)}
    for line in lines - own:
        assert ">=" in line, line
        assert ",<" in line, line


@pytest.mark.integration
def test_importing_the_packages_reaches_nothing():
    # No connection, no process, no file written: counted by Python's own audit hook.
    code = (
        "import sys\n"
        "seen = []\n"
        "def hook(event, args):\n"
        "    if event in ('socket.connect', 'os.system', 'subprocess.Popen', 'os.exec'):\n"
        "        seen.append((event, str(args)[:80]))\n"
        "    if event == 'open' and args[1] and set(str(args[1])) & set('wax+'):\n"
        "        if not str(args[0]).endswith('.pyc') and '__pycache__' not in str(args[0]):\n"
        "            seen.append((event, str(args)[:80]))\n"
        "sys.addaudithook(hook)\n"
        "import qwen3_core, langchain_qwen3, llama_index_qwen3\n"
        "from qwen3_core import Embedder, Reranker\n"
        "print(seen)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
