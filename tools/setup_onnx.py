#!/usr/bin/env python3
"""Install ONNX Runtime with optimum-onnx in an environment of its own, for `make bench`.

    python3 tools/setup_onnx.py [FOLDER]

Tried on Linux; 1 GB, about a minute; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the benchmark looks. optimum-onnx needs transformers 4.
"""

import sys
from pathlib import Path

from environments import Environment, cached
from setup_venv import TORCH

ONNX_RUNTIME = "1.32.0"
OPTIMUM = "0.1.0"
PACKAGES = (f"onnxruntime=={ONNX_RUNTIME}", f"optimum-onnx[onnxruntime]=={OPTIMUM}")
FOLDER = cached(f"onnx-{ONNX_RUNTIME}")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    ready = folder / "onnx-ready"
    if ready.exists():
        print(f"ONNX Runtime {ONNX_RUNTIME} is installed: {folder}")
        return
    environment = Environment(folder)
    environment.install_torch()
    environment.install(" and ".join(PACKAGES), TORCH, *PACKAGES)
    ready.touch()
    print(f"ONNX Runtime {ONNX_RUNTIME} is installed: {folder}")


if __name__ == "__main__":
    main()
