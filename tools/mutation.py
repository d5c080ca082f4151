"""Mutation testing of the core: makes one small change at a time and runs the tests.

    python tools/mutation.py             # all modules
    python tools/mutation.py model.packing model.layers

A change is an operator, a condition, a number, a bound, an argument or a statement left out. Only
code in functions is changed, and no docstrings, type hints, logged or error texts; other texts only
where they are the specification. What survives although it should (it computes the same) stands in
equivalent_mutants.toml, so that a run shows what is new, and fails if there is such a one.

Each mutant runs in a fork of a process that holds the large libraries already, since importing
them costs far more than the tests; the mutant exists in the fork's memory alone.
(mutmut does not see decorated functions and format strings, and its runs break down here.)
"""

import argparse
import ast
import copy
import difflib
import multiprocessing
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Set
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "prompts": ["prompts", "template"],
    "model.packing": ["packing"],
    "tokenizer": ["tokenizer"],
    "model.buffers": ["buffers"],
    "model.attention": ["attention"],
    "model.layers": ["layers"],
    "model.linear": ["linear"],
    "reranker": ["reranker"],
}
"""Modules of `qwen3_core`, each with the files of `tests/core` that specify it."""

TEXT_MATTERS = {"prompts", "tokenizer", "model.buffers"}
"""Modules whose strings determine the computation; elsewhere they are names or messages."""

PRELOADED = ["transformers.models.qwen3.modeling_qwen3", "hypothesis.strategies", "tokenizers"]
PLUGINS = ["pytest_timeout", "pytest_asyncio.plugin", "_hypothesis_pytestplugin"]
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=0", "--hypothesis-profile=mutation"]
PYTEST += [word for plugin in PLUGINS for word in ("-p", plugin)]

SWAPPED = [
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
    (ast.BitOr, ast.BitAnd),
    (ast.And, ast.Or),
    (ast.Eq, ast.NotEq),
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
]
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    **dict(SWAPPED),
    **{b: a for a, b in SWAPPED},
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
MODULES = {"torch", "F", "re", "json", "unicodedata", "math", "np", "logger"}


def changes(node: ast.AST, text_matters: bool) -> Iterator[ast.AST]:
    """The mutations of a node."""

    def changed(**fields: object) -> ast.AST:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield changed(op=OPERATORS[type(op)]())
        case ast.Compare(ops=[op]):
            yield changed(ops=[OPERATORS[type(op)]()])
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool(flag)):
            yield changed(value=not flag)
        case ast.Constant(value=int(amount) | float(amount)):
            yield changed(value=amount + 1)
        case ast.Constant(value=str(text)) if text_matters:
            yield changed(value=text + "XX")
        case ast.Name(id=name) if name in NAMES:
            yield changed(id=NAMES[name])
        case ast.Slice():
            yield from (changed(**{k: None}) for k in ("lower", "upper") if getattr(node, k))
        case ast.If() | ast.IfExp():
            yield from (changed(test=ast.Constant(value)) for value in (True, False))
        case ast.While():
            yield changed(test=ast.Constant(False))
        case ast.comprehension(ifs=[_, *_]):
            yield changed(ifs=[])
        case ast.Call(func=func, keywords=keywords):
            for keyword in keywords:
                yield changed(keywords=[k for k in keywords if k is not keyword])
            match func:
                case ast.Attribute(value=ast.Name(id=name)) if name in MODULES:
                    pass
                case ast.Attribute(value=value):
                    yield value
    match node:
        case ast.AugAssign(target=target, value=value):
            yield ast.Assign([target], value)
        case ast.Return(value=ast.expr()):
            yield ast.Return(None)
    match node:
        case ast.Assign() | ast.AugAssign() | ast.Expr() | ast.Raise() | ast.Break():
            yield ast.Pass()


def places(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, Callable[..., None]]]:
    """The mutable nodes of functions, each with a function that replaces it."""
    inside |= isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "bases"}:
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_for_people(child):
                continue
            if inside and not isinstance(child, ast.Pass):

                def put(
                    new: ast.AST, field: str = field, value: object = value, i: int = i
                ) -> None:
                    if isinstance(value, list):
                        value[i] = new
                    else:
                        setattr(node, field, new)

                yield child, put
            yield from places(child, inside)


def _is_for_people(node: ast.AST) -> bool:
    """Whether it is a docstring, or the text of an error or log entry."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="msg" | "reason")]):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logger")))):
            return True
    return False


def mutants(source: str, text_matters: bool) -> Iterator[tuple[str, str]]:
    """Every mutated source, with its change: "old line => new line"."""
    tree = ast.parse(source)
    before = ast.unparse(tree)
    for node, put in places(tree):
        for new in changes(node, text_matters):
            put(ast.fix_missing_locations(new))
            after = ast.unparse(tree)
            put(node)
            if after != before:
                yield after, _difference(before, after)


def _difference(before: str, after: str) -> str:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    parts: dict[str, list[str]] = {"-": [], "+": []}
    for line in lines:
        if line[0] in parts:
            parts[line[0]].append(line[1:].strip())
    return " => ".join(" ".join(part) for part in parts.values())


def run_tests(module: str, source: str, tests: list[str]) -> None:
    """Run the tests against this source in a separate process; it exits with pytest's code."""
    code = compile(source, module, "exec", dont_inherit=True)
    get_code = SourceFileLoader.get_code
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    with patch.object(
        SourceFileLoader,
        "get_code",
        lambda self, name: code if name == f"qwen3_core.{module}" else get_code(self, name),
    ):
        import pytest

        os._exit(pytest.main([*PYTEST, *tests]))


def outcome(module: str, source: str, limit: float | None) -> str:
    """Whether the tests killed a mutant, it survived, or they timed out."""
    tests = [str(ROOT / "tests" / "core" / f"test_{name}.py") for name in TESTS[module]]
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=run_tests, args=(module, source, tests))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return "timeout"
    return "killed" if process.exitcode else "survived"


def covers(known: str, change: str) -> bool:
    """Whether an entry of the list is a change, or its beginning if it ends in dots."""
    return change.startswith(known[:-3]) if known.endswith("...") else change == known


def check(module: str, known: Set[str]) -> bool:
    """Run all mutants of a module; returns whether only equivalent ones survived."""
    source = (ROOT / "qwen3_core" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    begin = time.monotonic()
    if outcome(module, source, None) != "survived":
        sys.exit(f"{module}: its tests fail as it is")
    limit = 10 + 5 * (time.monotonic() - begin)
    counts: Counter[str] = Counter()
    used = set()
    for mutant, change in mutants(source, module in TEXT_MATTERS):
        found = outcome(module, mutant, limit)
        if found == "survived" and (entry := next((k for k in known if covers(k, change)), "")):
            used.add(entry)
            found = "equivalent"
        counts[found] += 1
        if found in {"survived", "timeout"}:
            print(f"  {found}: {change}", flush=True)
    for change in known - used:
        print(f"  no longer survives, so strike it off the list: {change}")
    parts = ", ".join(f"{counts[k]} {k}" for k in ("killed", "timeout", "equivalent", "survived"))
    minutes = (time.monotonic() - begin) / 60
    print(f"{module}: {counts.total()} mutants: {parts}; {minutes:.1f} min", flush=True)
    return not counts["survived"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", choices=[[], *TESTS], help="default: all")
    options = parser.parse_args()
    list_ = Path(__file__).with_name("equivalent_mutants.toml")
    known = tomllib.loads(list_.read_text(encoding="utf-8"))
    os.chdir(ROOT)
    # The bundled data alone, so that the result is the same everywhere; it needs one thread.
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "QWEN3_TEST_DATA": os.devnull,
        "HF_HUB_OFFLINE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    sys.path.insert(0, str(ROOT))
    for name in ("pytest", *PLUGINS, *PRELOADED):
        import_module(name)
    modules = options.modules or list(TESTS)
    done = [check(module, known.get(module, {}).keys()) for module in modules]
    return not all(done)


if __name__ == "__main__":
    sys.exit(main())
