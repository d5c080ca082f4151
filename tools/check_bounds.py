#!/usr/bin/env python3
"""Run a core part of the tests on the oldest and on the newest dependencies that we allow.

    python tools/check_bounds.py [--ends oldest,newest] [--folder FOLDER]

Each end gets an environment of its own in a temporary folder, made by uv from pyproject.toml:
`--resolution lowest-direct` is the oldest release of each dependency that we name, with the newest
of what those need. It holds the base dependencies, the extra `server` and what runs the tests, and
no framework.
TORCH_SPEC names the PyTorch for both, by default the tested one: older ones have a build without
CUDA only on PyTorch's own index.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_venv import ROOT, TORCH, with_pip_settings_for_uv

ENDS = {"oldest": "lowest-direct", "newest": "highest"}
RUNNERS = ["pytest>=9.0.3,<10", "pytest-asyncio>=1.3,<2", "pytest-timeout>=2.4,<3"]
RUNNERS += ["pytest-xdist>=3.8,<4", "hypothesis>=6.130,<7"]
SHOWN = ["torch", "transformers", "tokenizers", "safetensors", "numpy", "tqdm", "openai", "httpx"]
TESTS = [f"tests/core/test_{name}.py" for name in (
    "attention", "bad_input", "engine", "layers", "linear", "loading", "packing", "parity",
    "prompts", "reranker", "template", "tokenizer",
)]  # fmt: skip
TESTS += ["tests/remote/test_dialects.py"]
# As in `make test`: the others run the same code with a larger vocabulary or with more texts.
FAST = "not (integration or hub or nightly)"
# What memory a model takes is measured with the tested releases: with the oldest ones the allocator
# holds a megabyte more than the bound.
LEFT_OUT = ["--deselect", "tests/core/test_loading.py::test_loading_takes_the_models_own_memory"]


def check(end: str, folder: Path) -> int:
    """Install one end and run the tests on it; returns pytest's exit code."""
    home = str(folder / end)
    python = f"{home}/bin/python"
    env = with_pip_settings_for_uv(dict(os.environ)) | {"PYTHONPATH": str(ROOT)}
    uv = [sys.executable, "-m", "uv"]
    make = [*uv, "venv", "-q", "--python", sys.executable, home]
    install = [*uv, "pip", "install", "-q", "--python", python, "--resolution", ENDS[end]]
    subprocess.run(make, env=env, check=True)
    subprocess.run([*install, TORCH, *RUNNERS, f"{ROOT}[server]"], env=env, check=True)
    query = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    shown = subprocess.run(
        [python, "-c", query, *SHOWN], capture_output=True, text=True, check=True
    )
    print(end, *zip(SHOWN, shown.stdout.split(), strict=True), flush=True)
    command = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"]
    command += ["-m", FAST, *LEFT_OUT, *TESTS]
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Test the oldest and newest dependencies.")
    parser.add_argument("--ends", default=",".join(ENDS), help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="where to make the environments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        codes = {end: check(end, folder) for end in options.ends.split(",")}
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main())
