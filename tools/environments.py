"""Environments of their own for programs that tests and benchmarks run against."""

import os
import sys
from pathlib import Path

from setup_venv import INDEX_HINT, PYTHON, TORCH, step, torch_backend, with_pip_settings_for_uv


def cached(name: str) -> Path:
    """A folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "qwen3-retrieval" / name


def uv_settings() -> dict[str, str]:
    """Environment variables for the uv in .venv; ends the program if there is no .venv."""
    if not PYTHON.exists():
        sys.exit("There is no .venv yet: run tools/setup_venv.py first.")
    return with_pip_settings_for_uv({**os.environ, "UV_LINK_MODE": "copy"})


class Environment:
    """A new virtual environment; replaces what is in its folder."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / PYTHON.relative_to(PYTHON.parents[1])
        self._env = uv_settings()
        self._uv = [str(PYTHON), "-m", "uv"]
        step(
            f"creating {folder}", [*self._uv, "venv", "--clear", str(folder)], self._env, INDEX_HINT
        )

    def install(self, title: str, *arguments: str) -> None:
        """Install packages, with a line of progress."""
        command = [*self._uv, "pip", "install", "--python", str(self.python), *arguments]
        step(f"installing {title}", command, self._env, INDEX_HINT)

    def install_torch(self) -> None:
        """Install PyTorch, its CPU build where no NVIDIA GPU can use the other."""
        self.install(TORCH, *torch_backend(self._env), TORCH)
