"""The small files of a checkpoint, and of the adapter over it."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from qwen3_core.model.files import ADAPTER, INDEX, WEIGHTS
from qwen3_core.model.source import PUBLISHED, Source, foreign_weights, locate
from qwen3_core.settings import ModelKind

logger = logging.getLogger(__name__)

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
TOKENIZER = "tokenizer_config.json"
TOKENIZER_JSON = "tokenizer.json"
TEMPLATE = "chat_template.jinja"

CORRECT = "correct the file"
"""The remedy for a value that is wrong in any case."""

ELSEWHERE = "run it with sentence-transformers"
"""The remedy for what only that library computes."""

UNSUPPORTED = "which is not supported"


@dataclass(frozen=True)
class Checkpoint:
    """The files of one checkpoint that say how it is meant to be used."""

    name: str
    """The checkpoint, as the user named it."""
    kind: ModelKind
    """Its intended use."""
    base: Source
    """Source of config.json and the weights."""
    adapter: Source | None
    """Source of the adapter that is merged into the weights; None if there is none."""
    config: dict[str, Any]
    """The contents of config.json."""
    adapter_config: dict[str, Any]
    """The contents of the adapter's adapter_config.json; {} if there is none."""

    @property
    def advice(self) -> str:
        """The remedy for a checkpoint of another model."""
        return f"use a Qwen3 {self.kind} model such as {PUBLISHED[self.kind]!r}"

    def refuse(self, what: str, remedy: str) -> NoReturn:
        """Raise ValueError: what is wrong with the checkpoint, and what to do."""
        msg = f"{self.name!r} {what}: {remedy}"
        raise ValueError(msg) from None

    def json(self, filename: str, kind: type = dict) -> Any:
        """The contents of a small JSON file, the adapter's or else the base's; None: neither."""
        return first_json(self.adapter, self.base, filename, kind)

    def template(self) -> str | None:
        """The chat template, the adapter's or else the base's; None if there is none."""
        for files in (self.adapter, self.base):
            if files is None:
                continue
            if (text := files.read(TEMPLATE)) is not None:
                return text
            found = (files.json(TOKENIZER) or {}).get("chat_template")
            if isinstance(found, list):
                found = next((t.get("template") for t in found if t.get("name") == "default"), None)
            if isinstance(found, str):
                return found
        return None


def first_json(adapter: Source | None, base: Source, filename: str, kind: type) -> Any:
    """The contents of a small JSON file, the adapter's or else the base's; None: neither."""
    for files in (adapter, base):
        if files is not None and (data := files.json(filename, kind)) is not None:
            return data
    return None


def open_checkpoint(name: str, kind: ModelKind, revision: str | None) -> Checkpoint:
    """The small files of a checkpoint, in a folder or on the hub."""
    adapter, base, own = places(name, kind, revision)
    config = base.json("config.json")
    if config is None:
        if reason := foreign_weights(base):
            raise ValueError(reason)
        raise _no_config(base)
    return Checkpoint(name, kind, base, adapter, config, own)


def places(
    name: str, kind: ModelKind, revision: str | None
) -> tuple[Source | None, Source, dict[str, Any]]:
    """The adapter or None, the checkpoint with the weights, and the adapter's config."""
    files = locate(name, kind, revision)
    own = files.json(ADAPTER)
    if files.local:
        _check_stray_adapters(files, alone=own is None)
    return (None, files, {}) if own is None else (files, _base_of(files, own, kind), own)


def _check_stray_adapters(files: Source, *, alone: bool) -> None:
    """Refuse weights of an adapter without its config; warn of adapters in subfolders.

    Args:
        files: A folder.
        alone: Whether the folder itself has no adapter config.
    """
    weights = next(files.folder.glob("adapter_model.*"), None) if alone else None
    if weights is not None:
        msg = (
            f"{files.name!r} holds {weights.name}, an adapter's weights, without its {ADAPTER}: "
            f"add that file to apply the adapter, or remove {weights.name}"
        )
        raise ValueError(msg)
    if files.folder in _told_of_adapters:
        return
    found = [path.parent.name for path in sorted(files.folder.glob(f"*/{ADAPTER}"))]
    # A Trainer leaves its checkpoints beside the result.
    if within := [name for name in found if not re.fullmatch(r"checkpoint-\d+", name)]:
        _told_of_adapters.add(files.folder)
        logger.warning(
            "%s contains adapters in subfolders (%s), which are ignored; pass a subfolder as the "
            "model to use one",
            files.name,
            ", ".join(within),
        )


_told_of_adapters: set[Path] = set()


def _no_config(files: Source) -> OSError:
    within = [path.parent.name for path in sorted(files.folder.glob(f"*/{ADAPTER}"))]
    more = f", but adapters in {', '.join(within)}: use one of these folders" if within else ""
    what = "the folder" if files.local else "it"
    return FileNotFoundError(f"{what} has no config.json{more}")


def _base_of(files: Source, own: dict[str, Any], kind: ModelKind) -> Source:
    """The base checkpoint of an adapter: in the same folder, or named in its config."""
    if files.path("config.json") and {WEIGHTS, INDEX} & {*files.listing()}:
        return files
    if reason := foreign_weights(files, adapter=True):
        raise ValueError(reason)
    named = own.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        msg = (
            f"{files.name!r} is an adapter without base_model_name_or_path in its {ADAPTER} and "
            "without base weights in its folder: merge it with peft and use the merged checkpoint"
        )
        raise ValueError(msg)
    try:
        base = locate(named, kind, own.get("revision"))
        config, further = base.path("config.json"), base.path(ADAPTER)
        if config is None and further is None:
            raise _no_config(base)
    except OSError as error:
        msg = (
            f"it is an adapter for {named!r} (base_model_name_or_path in its {ADAPTER}), which "
            f"could not be read: {error}"
        )
        raise OSError(msg) from error
    if further is not None:
        msg = (
            f"{files.name!r} is an adapter for {named!r} (base_model_name_or_path in its "
            f"{ADAPTER}), which has an adapter itself: merge that one with peft first"
        )
        raise ValueError(msg)
    return base
