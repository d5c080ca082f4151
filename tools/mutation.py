"""Changes the core's code, one small change at a time, and runs its tests: do they notice?

    python tools/mutation.py                # all modules: about an hour on two cores
    python tools/mutation.py packing --seconds 280

mutmut does it, in a copy of the tree. A run that is cut off goes on where it was.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "packing": ["packing"],
    "prompts": ["prompts", "template"],
    "tokenizer": ["tokenizer"],
    "attention": ["parity"],
    "reranker": ["bad_input", "parity"],
}
"""Modules of `qwen3_core`, each with the files of `tests/core` that specify it."""

LEFT_OUT = shutil.ignore_patterns(".venv", ".git", ".*_cache", "__pycache__", ".hypothesis")

CONFIG = """
[tool.mutmut]
source_paths = ["qwen3_core"]
only_mutate = ["qwen3_core/{module}.py"]
also_copy = ["langchain_qwen3", "llama_index_qwen3", "benchmarks", "examples", "tools"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
process_isolation = "forkserver"
timeout_constant = 20.0
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", choices=[[], *TESTS], help="default: all")
    parser.add_argument("--seconds", type=float, help="end after so long; the next run goes on")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "mutation")
    options = parser.parse_args()
    status = 0
    for module in options.modules or TESTS:
        status |= check(module, options.work / module, options.seconds)
    return status


def check(module: str, copy: Path, seconds: float | None) -> int:
    """Test the mutants of one module and list those that survived."""
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT, dirs_exist_ok=True)
    tests = [f"tests/core/test_{name}.py" for name in TESTS[module]]
    with (copy / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIG.format(module=module, tests=tests))
    environment = os.environ | {"PYTHONPATH": str(copy / "mutants"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mutmut"]
    try:
        done = subprocess.run(
            [*command, "run"], cwd=copy, env=environment, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{module}: not finished; the same command goes on")
        return 1
    subprocess.run([*command, "results"], cwd=copy, env=environment, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
