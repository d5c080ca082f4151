"""The files of a checkpoint, in a folder or on the hub."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from qwen3_core.settings import (
    BUNDLED,
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_RERANKER_MODEL,
    TINY,
    ModelKind,
)

PUBLISHED: Mapping[ModelKind, str] = {
    "embedding": DEFAULT_EMBEDDING_MODEL,
    "reranker": DEFAULT_RERANKER_MODEL,
}
"""A published model of each kind, for error messages."""

_ORIGINAL = "use the original checkpoint with *.safetensors"
_GGUF = (
    "serve it with llama.cpp and give its base_url, or use the original checkpoint (with "
    "dtype='int8' to save memory)"
)
_PICKLE = (
    "a pickle",
    ", which can run any code when it is read, so only *.safetensors is read",
    "use the original checkpoint, or convert this one to safetensors in a sandbox",
)
_FOREIGN: Mapping[str, tuple[str, str, str]] = {
    "*.gguf": ("in llama.cpp's format (GGUF)", "", _GGUF),
    "*.onnx": ("an ONNX export", "", _ORIGINAL),
    "openvino_model.xml": ("an OpenVINO export", "", _ORIGINAL),
    "*.h5": ("TensorFlow's", "", _ORIGINAL),
    "*.msgpack": ("Flax's", "", _ORIGINAL),
    "*.npz": ("MLX's", "", _ORIGINAL),
    **dict.fromkeys(("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"), _PICKLE),
}
"""Unsupported weight files: pattern -> (what they are, why not, the fix)."""
_OF_TRAINING = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state*.pth")
"""Pickles that do not contain weights."""


_SMALL = ("*.json", "*.jinja")
_UNREAD = ("vocab.json", "onnx/*", "openvino/*")
"""Patterns of the small files that are read before any weights, and the exceptions."""


@dataclass(frozen=True)
class Source:
    """The location of a checkpoint's files."""

    name: str
    """The checkpoint as the user named it."""
    place: str
    """The argument for transformers: a folder, or a name on the hub."""
    folder: Path
    """Folder of its small files: that folder, or a snapshot in the hub's cache."""
    revision: str | None = None

    @property
    def local(self) -> bool:
        """Whether it is a folder."""
        return self.place == str(self.folder)

    def path(self, filename: str) -> Path | None:
        """The path of a small file; None if the checkpoint does not have it."""
        path = self.folder / filename
        return path if path.is_file() else None

    def fetch(self, filename: str) -> Path | None:
        """The path of a weights file, downloaded if necessary; None if there is no such file.

        Raises:
            OSError: If the hub cannot be reached.
        """
        if self.local:
            return self.path(filename)
        from transformers.utils.hub import cached_file

        found = cached_file(
            self.place,
            filename,
            revision=self.revision,
            _raise_exceptions_for_missing_entries=False,
        )
        return None if found is None else Path(found)

    def read(self, filename: str) -> str | None:
        """The text of a file; None if there is no such file.

        Raises:
            OSError: If it is not text in UTF-8.
        """
        path = self.path(filename)
        if path is None:
            return None
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            msg = f"{path} is not text in UTF-8 ({error}): download it again"
            raise OSError(msg) from error

    def json(self, filename: str, kind: type = dict) -> Any:
        """The contents of a JSON file; None if there is no such file.

        Raises:
            OSError: If it is not valid JSON.
            ValueError: If its contents are not of type `kind`.
        """
        text = self.read(filename)
        if text is None:
            return None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            msg = f"{self.path(filename)} is not valid JSON ({error}): download it again"
            raise OSError(msg) from error
        if not isinstance(data, kind):
            msg = (
                f"{self.path(filename)} holds a {type(data).__name__}, not the {kind.__name__} "
                "that belongs there: download it again"
            )
            raise ValueError(msg)
        return data

    def listing(self) -> list[str]:
        """Names of all files: in the folder, on the hub, or, offline, in the hub's cache."""
        if not self.local:
            from huggingface_hub import HfApi

            # The hub cannot be reached. The hub client's releases raise the transport errors of
            # different libraries, and not all are OSErrors.
            with contextlib.suppress(Exception):
                return sorted(HfApi().list_repo_files(self.place, revision=self.revision))
        paths = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in paths)


def locate(name: str, kind: ModelKind, revision: str | None = None) -> Source:
    """Locate a checkpoint: the bundled pair, a folder, or a hub name.

    Raises:
        OSError: If there is certainly nothing of this name.
        ValueError: If it is a file.
    """
    if name == TINY:
        return Source(name, str(BUNDLED[kind]), BUNDLED[kind])
    looks_like_path = name.startswith((".", "~")) or Path(name).is_absolute()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(name, str(folder), folder)
    if folder.is_file():
        raise ValueError(_not_a_folder(name, folder))
    if looks_like_path:
        msg = "there is no such folder"
        raise FileNotFoundError(msg)
    if "/" not in name:  # every Qwen3 model on the hub has an owner: do not query the hub
        meant = get_close_matches(name, [TINY])
        msg = f"there is no such folder{f'; did you mean {TINY!r}?' if meant else ''}"
        raise FileNotFoundError(msg)
    return Source(name, name, _snapshot(name, revision), revision)


def _snapshot(name: str, revision: str | None) -> Path:
    """The folder of a hub model's small files, downloaded if necessary and possible."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(_SMALL),
                ignore_patterns=list(_UNREAD),
            )
        )
    except HFValidationError as error:
        msg = f"it is neither a folder nor a valid name on a hub: {error}"
        raise FileNotFoundError(msg) from error


def what_to_give(kind: ModelKind) -> str:
    """The advice on valid model names."""
    return (
        "Give a name on the Hugging Face Hub (network or a filled cache needed), such as "
        f"{PUBLISHED[kind]!r}, a folder that holds config.json, tokenizer.json and "
        f"*.safetensors, or {TINY!r} for the bundled model that needs no download."
    )


def sentence(error: object) -> str:
    """An error's text with a full stop, so that a message can continue after it."""
    text = str(error)
    return text if text.endswith((".", "?")) else f"{text}."


def in_short(error: Exception) -> str:
    """An error of another library, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def foreign_weights(files: Source, *, adapter: bool = False) -> str | None:
    """The error message if all weights are in unsupported formats; otherwise None.

    Args:
        files: The checkpoint.
        adapter: Whether to look for the weights of an adapter.
    """
    names = [name for name in files.listing() if Path(name).name.startswith("adapter_") == adapter]
    if any("/" not in name and name.endswith(".safetensors") for name in names):
        return None
    for pattern, (what, why, remedy) in _FOREIGN.items():
        found = [
            name
            for name in names
            if Path(name).match(pattern)
            and not any(Path(name).match(other) for other in _OF_TRAINING)
        ]
        if found:
            what = f"{what} ({found[0]}){why}"
            return f"{files.name!r} cannot be read: its weights are {what}: {remedy}"
    return None


def _not_a_folder(name: str, file: Path) -> str:
    with file.open("rb") as opened:
        magic = opened.read(4)
    if magic == b"GGUF" or file.suffix == ".gguf":
        return f"{name!r} cannot be read: it is in llama.cpp's format (GGUF): {_GGUF}"
    return f"{name!r} is a file: give the folder that holds it beside config.json"
