#!/usr/bin/env python3
"""Create .venv and install this checkout in it, with all that development and the demo need.

    python3 tools/setup_venv.py [--extras langchain,llama-index,ingest,ray,evaluation,demo,examples]

Needs Python 3.11 and a package index, as pip is configured on this machine. A second run returns
at once unless pyproject.toml, overrides.txt, this script or the Python version has changed. A .venv
of another Python version, or without pip, is replaced.
TORCH_SPEC names another PyTorch than the tested one, for example TORCH_SPEC="torch==2.12.0".
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (the message is for those who run an older one)
    sys.exit(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}.")

import argparse
import ast
import hashlib
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / ".setup-stamp"
OVERRIDES = ROOT / "overrides.txt"

TORCH = os.environ.get("TORCH_SPEC", "torch==2.13.0")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
EXTRAS = "langchain,llama-index,ingest,ray,evaluation,demo,examples"
GROUPS = ("test", "lint", "docs")

INDEX_HINT = (
    "Is a package index within reach? Behind a mirror, set PIP_INDEX_URL (and PIP_CERT, PIP_PROXY)."
)

TORCH_HINT = (
    "If no PyTorch fits this Python: make PYTHON=python3.12 ... takes another Python, "
    "TORCH_SPEC='torch==...' another PyTorch."
)


def fingerprint(extras: str) -> str:
    """Hash of everything that determines the contents of .venv."""
    settings = (sys.version, str(ROOT), TORCH, extras, *GROUPS)
    digest = hashlib.sha256("\n".join(settings).encode())
    for path in (ROOT / "pyproject.toml", OVERRIDES, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def step(title: str, command: list[str], env: dict[str, str], hint: str) -> None:
    """Run a command with one line of progress; on failure show its last lines and exit."""
    start = time.monotonic()
    print(f"{title} ...", end="", flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while True:
        try:
            output, _ = process.communicate(timeout=1)
            break
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                print(f"\r{title} ... {time.monotonic() - start:.0f} s", end="", flush=True)
    if process.returncode:
        tail = output.decode(errors="replace").splitlines()[-25:]
        sys.exit("\n".join([" failed\n", *tail, "", f"Failed: {' '.join(command)}", hint]))
    restart = f"\r{title} ..." if sys.stdout.isatty() else ""
    print(f"{restart} {time.monotonic() - start:.0f} s", flush=True)


def venv_is_usable() -> bool:
    """Whether .venv runs, has pip (one made by uv has not) and is of this Python's version."""
    check = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-c", check], capture_output=True, check=False).returncode == 0
    )


def installed_torch() -> str:
    """Version of the PyTorch in .venv, such as "2.13.0+cpu"; empty without one."""
    query = "import importlib.metadata as m; print(m.version('torch'))"
    command = [str(PYTHON), "-c", query]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip()


def with_pip_settings_for_uv(env: dict[str, str]) -> dict[str, str]:
    """Add pip's index, find-links, certificate ... under uv's names: uv reads none of pip's."""
    command = [str(PYTHON), "-m", "pip", "config", "list"]
    listing = subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout
    pairs = [line.partition("=")[::2] for line in listing.splitlines()]
    settings: dict[str, list[str]] = {}
    for section in ("global.", "install.", ":env:."):  # as in pip, the later ones win
        for key, value in pairs:
            if key.startswith(section):
                settings[key.removeprefix(section)] = ast.literal_eval(value).split()
    names = {
        "cert": ("SSL_CERT_FILE", " "),
        "constraint": ("UV_CONSTRAINT", " "),
        "default-timeout": ("UV_HTTP_TIMEOUT", " "),
        "extra-index-url": ("UV_INDEX", " "),
        "find-links": ("UV_FIND_LINKS", ","),
        "index-url": ("UV_DEFAULT_INDEX", " "),
        "no-index": ("UV_NO_INDEX", " "),
        "proxy": ("ALL_PROXY", " "),
        "timeout": ("UV_HTTP_TIMEOUT", " "),
        "trusted-host": ("UV_INSECURE_HOST", " "),
    }
    found = {names[key][0]: names[key][1].join(settings[key]) for key in names if key in settings}
    if "UV_INDEX" in found:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's own rule: the best of all indexes
    return found | env


def torch_backend(env: dict[str, str]) -> list[str]:
    """Arguments that make uv take PyTorch's CPU build where no NVIDIA GPU can use the other.

    On Linux, PyPI's torch brings gigabytes of CUDA libraries. PyTorch's own index has a build
    without them, but it is not within reach everywhere, and uv stops where it is not.
    """
    has_nvidia = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    if platform.system() != "Linux" or has_nvidia or "UV_TORCH_BACKEND" in env:
        return []
    # In a separate process: urlopen's timeout does not cover the look-up of the host's name.
    probe = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=3)"
    command = [sys.executable, "-c", probe, TORCH_CPU_INDEX]
    try:
        subprocess.run(command, env=env, capture_output=True, check=True, timeout=5)
    except subprocess.SubprocessError:
        return []
    return ["--torch-backend", "cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Create .venv and install this checkout in it.")
    parser.add_argument("--extras", default=EXTRAS, help=f"comma-separated (default: {EXTRAS})")
    extras = parser.parse_args().extras

    expected = fingerprint(extras)
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == expected:
        return

    env = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if not venv_is_usable():
        step(
            f"creating .venv (Python {platform.python_version()})",
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            env,
            "On Debian and Ubuntu, venv is a package of its own: apt install python3-venv.",
        )
    STAMP.unlink(missing_ok=True)
    env = with_pip_settings_for_uv(env)

    # uv, because pip cannot override a dependency's bound (pymilvus, see overrides.txt).
    step("installing uv", [str(PYTHON), "-m", "pip", "install", "uv>=0.9,<1"], env, INDEX_HINT)
    command = [str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON)]
    command += ["--override", str(OVERRIDES), "--compile-bytecode"]
    # nltk, in LlamaIndex's SentenceSplitter, refuses the hard links into its cache that uv makes.
    command += ["--link-mode", "copy"]
    for group in GROUPS:
        command += ["--group", group]
    torch_version = installed_torch()
    if torch_version and "TORCH_SPEC" not in env:
        torch = f"torch=={torch_version}"  # named, so that it stays
    else:
        torch = TORCH
        command += torch_backend(env)
    command += [torch, "--editable", f".[{extras}]"]
    step(f"installing the project and {torch}", command, env, f"{INDEX_HINT}\n{TORCH_HINT}")
    STAMP.write_text(expected)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the next run continues from here.")
