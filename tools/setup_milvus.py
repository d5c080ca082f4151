#!/usr/bin/env python3
"""Install a standalone Milvus server in a folder of its own, for the tests in tests/milvus.

    python3 tools/setup_milvus.py [FOLDER]

Linux on x86-64, 310 MB, ten seconds; a second run returns at once. Needs .venv
(tools/setup_venv.py), whose uv does the work. FOLDER is by default one named by the version in
the user's cache, where the tests look.
"""

import platform
import sys
from pathlib import Path

from environments import cached, uv_settings
from setup_venv import INDEX_HINT, PYTHON, step

#: The last wheel that carries the server. Its dependency, an old pymilvus, is left out.
VERSION = "2.3.5"
FOLDER = cached(f"milvus-{VERSION}")
UNPACK = "import milvus; milvus._initialize_data_files({!r})"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    ready = folder / "milvus-ready"
    if ready.exists():
        return
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        sys.exit("This Milvus server is for Linux on x86-64.")

    env = uv_settings()
    install = [str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON), "--no-deps"]
    server = [*install, "--target", str(folder / "package"), f"milvus=={VERSION}"]
    step(f"installing Milvus {VERSION}", server, env, INDEX_HINT)
    # Once here, instead of once per data folder.
    unpack = [str(PYTHON), "-c", UNPACK.format(str(folder))]
    env["PYTHONPATH"] = str(folder / "package")
    step("unpacking it", unpack, env, f"Is there room for 310 MB in {folder}?")
    ready.touch()


if __name__ == "__main__":
    main()
