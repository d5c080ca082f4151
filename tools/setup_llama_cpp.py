#!/usr/bin/env python3
"""Install a llama.cpp server in an environment of its own, for the tests in tests/llama_cpp.

    python3 tools/setup_llama_cpp.py [FOLDER]

Tried on Linux; 166 MB, some ten seconds; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the tests look. xllamacpp holds llama.cpp with its own HTTP server as a
library, built; gguf writes its format of models.
"""

import sys
from pathlib import Path

from environments import Environment, cached

VERSION = "2026.10.11549"
PACKAGES = (f"xllamacpp=={VERSION}", "gguf==0.19.0")
FOLDER = cached(f"llama-cpp-{VERSION}")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    ready = folder / "llama-cpp-ready"
    if ready.exists():
        return
    Environment(folder).install(" and ".join(PACKAGES), "--only-binary", ":all:", *PACKAGES)
    ready.touch()


if __name__ == "__main__":
    main()
