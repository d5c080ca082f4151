"""modules.json: what a sentence-transformers folder computes after the transformer."""

from pathlib import PurePosixPath
from typing import Any, NamedTuple

from qwen3_core.model.description.checkpoint import CORRECT, ELSEWHERE, MODULES, Checkpoint


class Module(NamedTuple):
    """An entry of modules.json."""

    kind: str
    """The name of its class."""
    path: str
    """Its folder in the checkpoint."""


def modules_of(checkpoint: Checkpoint) -> list[Module]:
    """The modules after the transformer; [] without modules.json."""
    data = checkpoint.json(MODULES, list)
    if data is None:
        return []
    found = []
    for module in data:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            checkpoint.refuse(f"has entries without a type in its {MODULES}", "download it again")
        kind, path = module["type"], str(module.get("path", ""))
        if not kind.startswith("sentence_transformers."):
            checkpoint.refuse(
                f"uses a custom module in {MODULES} ({kind}), and code that comes with a "
                "checkpoint is never run here",
                ELSEWHERE,
            )
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            checkpoint.refuse(f"refers to a folder outside its own in {MODULES}: {path}", CORRECT)
        found.append(Module(kind.rsplit(".", 1)[-1], path))
    names = [module.kind for module in found]
    other = "a reranker" if checkpoint.kind == "embedding" else "an embedding model"
    if {"embedding": "LogitScore", "reranker": "Pooling"}[checkpoint.kind] in names:
        checkpoint.refuse(
            f"is {other} according to its {MODULES} ({', '.join(names)})", checkpoint.advice
        )
    if names[:1] != ["Transformer"] or PurePosixPath(found[0].path).parts:
        checkpoint.refuse(
            f"has a {MODULES} that does not begin with a Transformer in the folder itself "
            f"({', '.join(f'{first.kind} in {first.path!r}' for first in found[:1])})",
            "load it with sentence-transformers and save it anew",
        )
    if checkpoint.kind == "embedding" and len(found) == 1:
        checkpoint.refuse(
            f"has no Pooling after the Transformer in its {MODULES}, and so no vector",
            "add a Pooling module there, or delete the file if the model pools the last token",
        )
    return found[1:]


def module_config(checkpoint: Checkpoint, path: str) -> dict[str, Any]:
    """The settings of the module in a folder; FileNotFoundError if they are missing."""
    filename = f"{path}/config.json" if path else "config.json"
    data = checkpoint.json(filename)
    if data is None:
        msg = (
            f"{filename}, which {MODULES} names, is missing or not in the cache; download "
            "the checkpoint again"
        )
        raise FileNotFoundError(msg)
    found: dict[str, Any] = data
    return found
