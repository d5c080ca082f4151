"""Importing a package is cheap: no model library, and never the other framework."""

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
