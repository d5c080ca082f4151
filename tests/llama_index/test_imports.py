"""Importing the package is cheap and brings nothing but LlamaIndex and the core's light parts."""

import subprocess
import sys

import pytest

import llama_index_qwen3
import qwen3_core


@pytest.mark.integration
def test_importing_and_constructing_load_neither_model_libraries_nor_the_other_framework():
    code = (
        "import sys\n"
        "from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank\n"
        "Qwen3Embedding(); Qwen3Rerank(); Qwen3Embedding(model='no/such-model')\n"
        "heavy = {'torch', 'transformers', 'langchain_core', 'langchain_qwen3', 'pymilvus'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_all_lists_what_can_be_imported():
    for name in llama_index_qwen3.__all__:
        assert hasattr(llama_index_qwen3, name)
    assert llama_index_qwen3.__version__ == qwen3_core.__version__
