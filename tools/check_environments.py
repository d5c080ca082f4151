#!/usr/bin/env python3
"""Test each framework in the environment that its users have: pip alone, without overrides.

    python tools/check_environments.py                        # both
    python tools/check_environments.py --framework llama-index

Each framework gets an environment of its own, with the extra of this checkout beside what its users
install themselves, and so with its own newest pymilvus. `pip check` must pass, the framework's
tests run, and the quick start runs with the installed wheel. An environment is kept in the user's
cache as long as pyproject.toml and this script stay as they are; only the checkout is installed
anew.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from setup_venv import INDEX_HINT, ROOT, TORCH, step

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qwen3-retrieval"
RUNNERS = (
    "hypothesis>=6.130,<7",
    "pytest>=9.0.3,<10",
    "pytest-asyncio>=1.3,<2",
    "pytest-timeout>=2.4,<3",
    "pytest-xdist>=3.8,<4",
)
FRAMEWORKS = {
    # What users have, what else the tests need, the tests.
    "langchain": (
        ("langchain", "langchain-classic", "openai"),
        ("langchain-tests>=1.1.9,<1.2", "langchain-text-splitters>=1,<2", "langgraph>=1,<2"),
        ("tests/langchain",),
    ),
    "llama-index": (
        ("llama-index",),
        ("llama-index-llms-openai-like<0.8",),
        ("tests/llama_index",),
    ),
}
INSTALLED = """
import qwen3_core
from qwen3_retrieval.demo.__main__ import BUNDLED
assert "site-packages" in qwen3_core.__file__, qwen3_core.__file__
assert [*BUNDLED.glob("*.md")], BUNDLED
"""
"""Checks that the wheel is used, not the checkout, and that it contains the demo's corpus."""

SHOWN = {
    "langchain": ("langchain", "langchain-core", "langchain-openai", "openai", "pymilvus"),
    "llama-index": ("llama-index", "llama-index-core", "llama-index-llms-openai", "pymilvus"),
}


def environment(framework: str) -> Path:
    """The folder of a framework's environment; its name changes with what decides its content."""
    settings = (sys.version, TORCH, framework, *RUNNERS, *map(str, FRAMEWORKS[framework]))
    digest = hashlib.sha256("\n".join(settings).encode())
    digest.update((ROOT / "pyproject.toml").read_bytes())
    return CACHE / f"env-{framework}-{digest.hexdigest()[:12]}"


def without_checkout() -> dict[str, str]:
    """Environment variables of processes that must not find the checkout's packages."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def install(framework: str) -> None:
    """Make a framework's environment, or install the checkout anew in the one that is there."""
    users, needed, _ = FRAMEWORKS[framework]
    home = environment(framework)
    python, ready = str(home / "bin" / "python"), home / "ready"
    # Compiling all modules takes pip as long as installing them; what is imported is compiled then.
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    env = without_checkout()
    extra = f"{ROOT}[{framework}]"
    if not ready.exists():
        for old in CACHE.glob(f"env-{framework}-*"):
            subprocess.run(["rm", "-rf", str(old)], check=True)
        venv = [sys.executable, "-m", "venv", "--clear", str(home)]
        step(f"an environment for {framework}", venv, env, INDEX_HINT)
        # As a user does: the framework and PyTorch first, then the extra beside them.
        step(f"pip install {' '.join(users)}", [*pip, TORCH, *users], env, INDEX_HINT)
        step(f"pip install .[{framework}]", [*pip, extra], env, INDEX_HINT)
        step("pip install what runs the tests", [*pip, *RUNNERS, *needed], env, INDEX_HINT)
        ready.touch()
    else:
        again = [*pip, "--no-deps", "--force-reinstall", str(ROOT)]
        step(f"installing the checkout for {framework}", again, env, INDEX_HINT)


def check(framework: str) -> int:
    """Run a framework's tests in its environment; returns the exit code."""
    _, _, tests = FRAMEWORKS[framework]
    home, env = environment(framework), without_checkout()
    python = str(home / "bin" / "python")
    query = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    shown = SHOWN[framework]
    found = subprocess.run(
        [python, "-c", query, *shown], capture_output=True, text=True, check=True
    )
    print(framework, *map(" ".join, zip(shown, found.stdout.split(), strict=True)), sep=", ")
    consistent = [python, "-m", "pip", "check"]
    quick_start = [python, "-I", f"{ROOT}/examples/{framework.replace('-', '_')}_quickstart.py"]
    pytest = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *tests]
    codes = [
        subprocess.run([python, "-I", "-c", INSTALLED], cwd=home, env=env, check=False).returncode,
        subprocess.run(consistent, env=env, check=False).returncode,
        subprocess.run(quick_start, cwd=home, env=env, check=False).returncode,
        subprocess.run(pytest, cwd=ROOT, env=env, check=False).returncode,
    ]
    return max(codes)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append")
    parser.add_argument("--install", action="store_true", help="install, and run no tests")
    options = parser.parse_args()
    frameworks = options.framework or list(FRAMEWORKS)
    if options.install:
        for framework in frameworks:
            install(framework)
        return 0
    # At once: pip uses one core. Each one's lines are shown together.
    command = [sys.executable, __file__, "--install", "--framework"]
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    installing = {name: subprocess.Popen([*command, name], **pipe) for name in frameworks}
    failed = []
    for framework, process in installing.items():
        begin = time.monotonic()
        output, _ = process.communicate()
        print(output, end="", flush=True)
        if process.returncode or check(framework):
            failed.append(framework)
        print(f"{framework}: {time.monotonic() - begin:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
