#!/usr/bin/env python3
"""Build sdist and wheel, look into them, and resolve each extra.

    python tools/check_release.py
    python tools/check_release.py --keep dist    # keep what was built

tools/check_environments.py installs and runs a wheel. This needs .venv (tools/setup_venv.py), whose
uv does the work. Everything happens in a temporary folder.
"""

import argparse
import os
import shutil
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

from setup_venv import (
    INDEX_HINT,
    OVERRIDES,
    PYTHON,
    ROOT,
    step,
    with_pip_settings_for_uv,
)

PACKAGES = ("langchain_qwen3", "llama_index_qwen3", "qwen3_core", "qwen3_retrieval")
IN_WHEEL = (
    *(f"{package}/py.typed" for package in PACKAGES),
    "qwen3_core/remote/qwen3_reranker.jinja",
    "qwen3_retrieval/comparison.css",
    "qwen3_retrieval/comparison.html",
    "qwen3_retrieval/demo/page.css",
    "qwen3_retrieval/demo/results.html",
    "qwen3_retrieval/evaluation/page.css",
    "qwen3_retrieval/evaluation/page.html",
    "qwen3_retrieval/evaluation/page.js",
    "qwen3_core/tiny/README.md",
    *(
        f"qwen3_core/tiny/{kind}/{name}"
        for kind in ("embedding", "reranker")
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    ),
)
IN_SDIST = (
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "tests/conftest.py",
    *IN_WHEEL,
)
DEMO_CORPUS = "qwen3_retrieval/demo/corpus/milvus.md"
"""In the sdist it lies among the examples."""
MAX_WHEEL = 25e6
"""Bytes; the bundled pair is 32 MB before compression."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="folder for the built files")
    options = parser.parse_args()
    if not PYTHON.exists():
        sys.exit("There is no .venv yet: run tools/setup_venv.py first.")

    env = with_pip_settings_for_uv({**os.environ, "UV_LINK_MODE": "copy"})
    env.pop("PYTHONPATH", None)  # otherwise the checkout would be tested instead of the wheel
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        uv = [str(PYTHON), "-m", "uv"]
        build = [*uv, "build", "--out-dir", str(work / "dist"), str(ROOT)]
        step("building sdist and wheel (the wheel from the sdist)", build, env, INDEX_HINT)
        (sdist,) = (work / "dist").glob("*.tar.gz")
        (wheel,) = (work / "dist").glob("*.whl")
        check_content(sdist, wheel)
        check_extras(uv, wheel, work, env)
        if options.keep:
            shutil.copytree(work / "dist", options.keep, dirs_exist_ok=True)
    print("The release is good.")


def check_content(sdist: Path, wheel: Path) -> None:
    """Exit unless the files contain what they must, and nothing else at the top of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    strange = [top for top in tops if top not in PACKAGES and not top.endswith(".dist-info")]
    if strange:
        sys.exit(f"{wheel.name} holds {', '.join(sorted(strange))} beside the packages")
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    for file, held, wanted in (
        (wheel, names, (*IN_WHEEL, DEMO_CORPUS)),
        (sdist, sources, IN_SDIST),
    ):
        missing = [name for name in wanted if name not in held]
        if missing:
            sys.exit(f"{file.name} lacks {', '.join(missing)}")
        print(f"   {file.name}: {len(held)} files, {file.stat().st_size / 1e6:.1f} MB")
    if wheel.stat().st_size > MAX_WHEEL:
        sys.exit(f"{wheel.name} is larger than {MAX_WHEEL / 1e6:.0f} MB")


def check_extras(uv: list[str], wheel: Path, work: Path, env: dict[str, str]) -> None:
    """Exit unless the requirements of each extra alone can be resolved."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    wanted = work / "wanted.txt"
    resolve = [
        *uv,
        "pip",
        "compile",
        "--quiet",
        str(wanted),
        "--output-file",
        str(work / "set.txt"),
    ]
    for extra in extras:
        wanted.write_text(f"qwen3-retrieval[{extra}] @ {wheel.as_uri()}\n")
        step(f"resolving [{extra}]", resolve, env, INDEX_HINT)
    wanted.write_text(f"qwen3-retrieval[langchain,llama-index] @ {wheel.as_uri()}\n")
    both = [*resolve, "--override", str(OVERRIDES)]
    step("resolving both frameworks with overrides.txt", both, env, INDEX_HINT)


if __name__ == "__main__":
    main()
