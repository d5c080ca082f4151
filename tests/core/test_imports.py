"""Importing is cheap: no model library, never the other framework; a missing package is named."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sentence_transformers")
PACKAGES = {
    "qwen3_core": (*HEAVY, "langchain_core", "llama_index"),
    "langchain_qwen3": (*HEAVY, "llama_index", "llama_index_qwen3"),
    "llama_index_qwen3": (*HEAVY, "langchain_core", "langchain_qwen3"),
}


@pytest.mark.integration
@pytest.mark.parametrize("package", PACKAGES)
def test_import_loads_no_heavy_library(package):
    # Every public name is touched, so that lazily imported ones count as well.
    code = (
        f"import json, sys, {package} as p; [getattr(p, n) for n in p.__all__]; "
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert set(json.loads(output)).isdisjoint(PACKAGES[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_name_is_an_attribute_error(package):
    module = __import__(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("module", "code", "message", "extra"),
    [
        (
            "langchain_core",
            "from langchain_qwen3 import Qwen3Embeddings",
            "langchain-core is not installed",
            "langchain",
        ),
        (
            "pymilvus",
            """from langchain_qwen3 import Qwen3Embeddings, milvus_kwargs
milvus_kwargs(Qwen3Embeddings(dimensions=64), uri="http://127.0.0.1:9")""",
            "pymilvus is not installed",
            "langchain",
        ),
        (
            "llama_index.core",
            "import llama_index_qwen3",
            "llama-index-core is not installed",
            "llama-index",
        ),
        (
            "openai",
            """from qwen3_core import RemoteEmbedder
RemoteEmbedder("tiny", base_url="http://127.0.0.1:9").embed_queries(["any"])""",
            "base_url needs the openai package",
            "server",
        ),
    ],
)
@pytest.mark.integration
def test_a_missing_package_is_named_with_the_command_that_installs_it(module, code, message, extra):
    blocked = f"import sys; sys.modules[{module!r}] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f'ImportError: {message}: run `pip install "qwen3-retrieval[{extra}]"` '
        f'(from a clone: `pip install ".[{extra}]"`)'
    )
