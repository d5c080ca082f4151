#!/usr/bin/env python3
"""Install ONNX Runtime with optimum-onnx in an environment of its own, for `make bench`.

    python3 tools/setup_onnx.py [FOLDER]

Tried on Linux; 1 GB, about a minute; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the benchmark looks. optimum-onnx needs transformers 4.
"""

import os
import sys
from pathlib import Path

from setup_venv import INDEX_HINT, PYTHON, TORCH, step, torch_backend, with_pip_settings_for_uv

ONNX_RUNTIME = "1.32.0"
OPTIMUM = "0.1.0"
PACKAGES = (f"onnxruntime=={ONNX_RUNTIME}", f"optimum-onnx[onnxruntime]=={OPTIMUM}")
FOLDER = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "qwen3-retrieval"
    / f"onnx-{ONNX_RUNTIME}"
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    ready = folder / "onnx-ready"
    if ready.exists():
        print(f"ONNX Runtime {ONNX_RUNTIME} is installed: {folder}")
        return
    if not PYTHON.exists():
        sys.exit("There is no .venv yet: run tools/setup_venv.py first.")

    env = with_pip_settings_for_uv({**os.environ, "UV_LINK_MODE": "copy"})
    uv = [str(PYTHON), "-m", "uv"]
    python = folder / PYTHON.relative_to(PYTHON.parents[1])
    install = [*uv, "pip", "install", "--python", str(python)]
    step(f"creating {folder}", [*uv, "venv", "--clear", str(folder)], env, INDEX_HINT)
    torch = [*install, *torch_backend(env), TORCH]
    step(f"installing {TORCH}", torch, env, INDEX_HINT)
    step(f"installing {' and '.join(PACKAGES)}", [*install, TORCH, *PACKAGES], env, INDEX_HINT)
    ready.touch()
    print(f"ONNX Runtime {ONNX_RUNTIME} is installed: {folder}")


if __name__ == "__main__":
    main()
