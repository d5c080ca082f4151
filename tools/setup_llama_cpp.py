#!/usr/bin/env python3
"""Install a llama.cpp server in an environment of its own, for the tests in tests/llama_cpp.

    python3 tools/setup_llama_cpp.py [FOLDER]

Tried on Linux; 166 MB, some ten seconds; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the tests look. xllamacpp holds llama.cpp with its own HTTP server as a
library, built; gguf writes its format of models.
"""

import os
import sys
from pathlib import Path

from setup_venv import INDEX_HINT, PYTHON, step, with_pip_settings_for_uv

VERSION = "2026.10.11549"
PACKAGES = (f"xllamacpp=={VERSION}", "gguf==0.19.0")
FOLDER = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "qwen3-retrieval"
    / f"llama-cpp-{VERSION}"
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    ready = folder / "llama-cpp-ready"
    if ready.exists():
        return
    if not PYTHON.exists():
        sys.exit("There is no .venv yet: run tools/setup_venv.py first.")

    env = with_pip_settings_for_uv({**os.environ, "UV_LINK_MODE": "copy"})
    uv = [str(PYTHON), "-m", "uv"]
    python = folder / PYTHON.relative_to(PYTHON.parents[1])
    step(f"creating {folder}", [*uv, "venv", "--clear", str(folder)], env, INDEX_HINT)
    install = [*uv, "pip", "install", "--python", str(python), "--only-binary", ":all:", *PACKAGES]
    step(f"installing {' and '.join(PACKAGES)}", install, env, INDEX_HINT)
    ready.touch()


if __name__ == "__main__":
    main()
