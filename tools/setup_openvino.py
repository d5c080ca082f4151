#!/usr/bin/env python3
"""Install OpenVINO with optimum-intel in an environment of its own, for `make bench`.

    python3 tools/setup_openvino.py [FOLDER]

Tried on Linux; 1.3 GB, about a minute; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the benchmark looks. optimum-intel needs an older transformers than ours.
"""

import os
import sys
from pathlib import Path

from setup_venv import INDEX_HINT, PYTHON, TORCH, step, torch_backend, with_pip_settings_for_uv

OPENVINO = "2026.4.1"
OPTIMUM = "2.2.0"
FOLDER = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "qwen3-retrieval"
    / f"openvino-{OPENVINO}"
)
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
    if not PYTHON.exists():
        sys.exit("There is no .venv yet: run tools/setup_venv.py first.")

    env = with_pip_settings_for_uv({**os.environ, "UV_LINK_MODE": "copy"})
    uv = [str(PYTHON), "-m", "uv"]
    python = folder / PYTHON.relative_to(PYTHON.parents[1])
    install = [*uv, "pip", "install", "--python", str(python)]
    step(f"creating {folder}", [*uv, "venv", "--clear", str(folder)], env, INDEX_HINT)
    torch = [*install, *torch_backend(env), TORCH]
    step(f"installing {TORCH}", torch, env, INDEX_HINT)
    optimum = [*install, "--no-deps", f"optimum-intel=={OPTIMUM}"]
    step(f"installing optimum-intel {OPTIMUM}", optimum, env, INDEX_HINT)
    step(f"installing OpenVINO {OPENVINO}", [*install, TORCH, *NEEDED], env, INDEX_HINT)
    ready.touch()
    print(f"OpenVINO {OPENVINO} is installed: {folder}")


if __name__ == "__main__":
    main()
