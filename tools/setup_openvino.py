#!/usr/bin/env python3
"""Install OpenVINO with optimum-intel in an environment of its own, for `make bench`.

    python3 tools/setup_openvino.py [FOLDER]

Tried on Linux; 1.3 GB, about a minute; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the benchmark looks. optimum-intel needs an older transformers than ours.
"""

import sys
from pathlib import Path

from environments import Environment, cached
from setup_venv import TORCH

OPENVINO = "2026.4.1"
OPTIMUM = "2.2.0"
FOLDER = cached(f"openvino-{OPENVINO}")
#: What optimum-intel requires, but for torchvision, which text models do not need and which has no
#: CPU build on PyPI.
NEEDED = (
    "optimum~=2.3.0",
    "transformers>=4.51,<5.6",
    "huggingface-hub>=0.23.2,<1.22",
    "nncf>=3.3.0",
    f"openvino=={OPENVINO}",
    f"openvino-tokenizers=={OPENVINO}.*",
    "requests>=2.33,<3",
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    ready = folder / "openvino-ready"
    if ready.exists():
        print(f"OpenVINO {OPENVINO} is installed: {folder}")
        return
    environment = Environment(folder)
    environment.install_torch()
    environment.install(f"optimum-intel {OPTIMUM}", "--no-deps", f"optimum-intel=={OPTIMUM}")
    environment.install(f"OpenVINO {OPENVINO}", TORCH, *NEEDED)
    ready.touch()
    print(f"OpenVINO {OPENVINO} is installed: {folder}")


if __name__ == "__main__":
    main()
