"""The files of a checkpoint: their location, their tensors, and a digest of them.

This module does not import torch.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from qwen3_core.fingerprint import is_commit
from qwen3_core.settings import BUNDLED, TINY, ModelKind

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
"""The weights in one file, or the index of several; other weight files are ignored."""

ADAPTER: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"

HEAD: Final = "lm_head.weight"
"""The language-model head, which an embedding model does not use."""

ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
"""Bytes per element, by the format's dtype names."""

WHOLE_BYTES: Final = 64 * 2**20
"""Size up to which a checkpoint is read whole for its digest."""

SAMPLES: Final = 32
SAMPLE_BYTES: Final = 4096
"""Of a larger checkpoint: pieces read of each tensor, spread evenly, and bytes per piece."""


class Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    dtype: str
    """The format's name for it: "BF16", "F32" ..."""
    shape: tuple[int, ...]
    begin: int
    """Offset in the file, in bytes."""
    size: int
    """Size in bytes."""


def folder_of(model: str, kind: ModelKind, revision: str | None = None) -> Path | None:
    """The folder of a model's files on this machine; never uses the network.

    Args:
        model: Name on the hub, folder, or "tiny" for the bundled pair.
        kind: Which model of the bundled pair.
        revision: Branch, tag or commit on the hub.

    Returns:
        The folder; for a hub name, the cached snapshot's. None if there is none.
    """
    if model == TINY:
        return BUNDLED[kind]
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    # Imported here because it is slow, and folders do not need it.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError:  # a name for a server, such as "model:tag"
        return None
    return Path(config).parent if isinstance(config, str) else None


def is_here(model: str) -> bool:
    """Whether a model is a folder or bundled, and so neither on the hub nor on a server."""
    return model == TINY or Path(model).expanduser().is_dir()


def commit_of(folder: Path) -> str | None:
    """The commit of a snapshot folder in the hub's cache; None for any other folder."""
    commit, snapshots, repo = (*reversed(folder.absolute().parts), "", "", "")[:3]
    cached = snapshots == "snapshots" and repo.startswith("models--")
    return commit if cached and is_commit(commit) else None


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights, as transformers chooses them.

    Raises:
        FileNotFoundError: If there are none, or some are missing.
        OSError: If the index of the files is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        msg = f"{str(folder)!r} holds neither {WEIGHTS} nor {INDEX}"
        raise FileNotFoundError(msg)
    names = shard_names(index)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        msg = (
            f"{str(folder)!r} lacks {len(missing)} of the {len(names)} files of weights that "
            f"{INDEX} names (first: {missing[0]}): download the rest"
        )
        raise FileNotFoundError(msg)
    return [folder / name for name in names]


def shard_names(index: Path) -> list[str]:
    """The files that an index of weights names.

    Raises:
        OSError: If the index is damaged.
    """
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            msg = "its weight_map must name files beside it"
            raise ValueError(msg)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{index} is damaged ({type(error).__name__}: {error}): download it again"
        raise OSError(msg) from error
    return names


def stored_tensors(files: list[Path]) -> dict[str, Stored]:
    """The tensors in safetensors files, by name.

    Raises:
        OSError: If a file is damaged, truncated or not in this format, or a name occurs twice.
    """
    found: dict[str, Stored] = {}
    for path in files:
        for name, stored in _header(path).items():
            if name in found:
                msg = f"{path} and {found[name].path.name} both hold {name}: download them again"
                raise OSError(msg)
            found[name] = stored
    return found


def _header(path: Path) -> dict[str, Stored]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
            if not 8 < begin <= size:
                msg = "it is truncated"
                raise ValueError(msg)
            header = json.loads(file.read(begin - 8))
        header.pop("__metadata__", None)
        tensors = {name: _stored(path, begin, entry) for name, entry in header.items()}
        stop = begin
        for first, length in sorted((stored.begin, stored.size) for stored in tensors.values()):
            if first != stop:
                msg = "its tensors overlap or leave gaps"
                raise ValueError(msg)
            stop += length
        if stop != size:
            msg = "it is truncated" if stop > size else "it has bytes that belong to no tensor"
            raise ValueError(msg)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{path} is damaged ({type(error).__name__}: {error}): download it again"
        raise OSError(msg) from error
    return tensors


def _stored(path: Path, begin: int, entry: dict[str, Any]) -> Stored:
    shape, (first, stop) = tuple(entry["shape"]), entry["data_offsets"]
    item = ITEM_BYTES.get(entry["dtype"])  # None for dtypes of less than a byte
    expected = stop - first if item is None else item * math.prod(shape)
    if not 0 <= first <= stop or stop - first != expected or any(n < 0 for n in shape):
        msg = f"shape {shape} in the bytes {first} to {stop}"
        raise ValueError(msg)
    return Stored(path, entry["dtype"], shape, begin + first, stop - first)


def weights_digest(
    folder: Path, kind: ModelKind = "embedding", extra: Sequence[Path] = ()
) -> str | None:
    """A digest of everything that determines a model's results: 32 hexadecimal digits.

    It covers the tensors, whichever files they are in; the numbers of config.json that the layers
    use; and the contents of tokenizer.json, without its layout. Copies of a model that are split
    into other files, or whose config.json names another release of transformers, have the same
    digest.

    A checkpoint of up to `WHOLE_BYTES` is read whole. From each tensor of a larger one, `SAMPLES`
    pieces of `SAMPLE_BYTES` are read, about 35 MB of Qwen3-Embedding-8B's 15 GB. Training changes
    all parts of a tensor, so a fine-tuned model has another digest. A manual edit of single numbers
    may go unnoticed.

    Args:
        folder: The checkpoint.
        kind: The head is included for a reranker, not for an embedding model.
        extra: Further small files to include, such as an adapter's; read whole.

    Returns:
        The digest; None if the folder has no weights or not all of them.

    Raises:
        OSError: If a file is damaged.
    """
    try:
        weights = weight_files(folder)
    except FileNotFoundError:
        return None
    paths = [folder / "config.json", folder / "tokenizer.json", *weights]
    base = _digest(tuple(_state(path) for path in paths), kind)
    if not extra:
        return base
    if not all(path.is_file() for path in extra):
        return None
    digest = hashlib.sha256(base.encode())
    for path in extra:
        if path.name == "tokenizer.json":
            if (reads := _reads(path)) == _reads(folder / path.name):
                continue  # a copy of the base's
            content = json.dumps(reads, sort_keys=True).encode()
        elif path.name == ADAPTER:
            content = json.dumps(_adapts(path), sort_keys=True).encode()
        else:
            content = path.read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]


def _adapts(adapter: Path) -> dict[str, Any]:
    """Adapter settings that affect results: all except the base model's location and metadata."""
    others = (
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "peft_version",
        "revision",
    )
    return {key: value for key, value in _json(adapter).items() if key not in others}


class State(NamedTuple):
    """A file's size and modification time, to detect changes; zeros if it does not exist."""

    path: Path
    size: int
    modified: int
    """Time in nanoseconds."""


def states(folders: Sequence[Path], extra: Sequence[Path] = ()) -> tuple[State, ...]:
    """The present state of a loaded checkpoint's files.

    Args:
        folders: The checkpoint's, and an adapter's.
        extra: As in `weights_digest`.
    """
    names = (
        *("config.json", "tokenizer.json", "tokenizer_config.json", "modules.json"),
        *("config_sentence_transformers.json", "sentence_bert_config.json"),
    )
    paths = [folder / name for folder in folders for name in names]
    with contextlib.suppress(OSError):
        paths += weight_files(folders[0])
    return tuple(_state(path) for path in (*paths, *extra))


def _state(path: Path) -> State:
    """The present state of a file."""
    stat = path.stat() if path.is_file() else None
    return State(path, stat.st_size, stat.st_mtime_ns) if stat else State(path, 0, 0)


@lru_cache(maxsize=16)
def _digest(states: tuple[State, ...], kind: ModelKind) -> str:
    config, tokenizer, *weights = (path for path, _, _ in states)
    tensors = {
        name.removeprefix("model."): stored
        for name, stored in stored_tensors(weights).items()
        if kind == "reranker" or name != HEAD
    }
    whole = sum(stored.size for stored in tensors.values()) <= WHOLE_BYTES
    digest = hashlib.sha256()
    for text in (_computed_with(config), _reads(tokenizer)):
        digest.update(json.dumps(text, sort_keys=True).encode())
    opened = {path: path.open("rb") for path in weights}
    try:
        for name, (path, dtype, shape, begin, size) in sorted(tensors.items()):
            digest.update(f"{name} {dtype} {shape}\n".encode())
            file = opened[path]
            if whole or size <= SAMPLES * SAMPLE_BYTES:
                file.seek(begin)
                digest.update(file.read(size))
                continue
            for i in range(SAMPLES):
                file.seek(begin + (size - SAMPLE_BYTES) * i // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    finally:
        for file in opened.values():
            file.close()
    return digest.hexdigest()[:32]


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; {} if the file is missing or invalid: loading the model reports that."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


_NUMBERS: Final[dict[str, Any]] = {
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
"""Settings that the layers use besides the tensors, with transformers' defaults."""


def _computed_with(config: Path) -> dict[str, Any]:
    data = _json(config)
    rope: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        given = data.get(key) or {}
        rope |= given if isinstance(given, dict) else {"rope": given}
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    if kind != "default":  # the frequencies may depend on the number of positions
        rope["positions"] = data.get("max_position_embeddings")
    rope = {"rope_theta": data.get("rope_theta", 10000.0), **rope}
    rope["rope_theta"] = float(rope["rope_theta"])
    return {name: data.get(name, default) for name, default in _NUMBERS.items()} | {
        "rope": {"type": kind, **rope}
    }


def _reads(tokenizer: Path) -> dict[str, Any]:
    data = _json(tokenizer)
    parts = ("added_tokens", "normalizer", "pre_tokenizer", "model", "post_processor")
    reads = {name: data.get(name) for name in parts}
    if isinstance(model := reads["model"], dict) and isinstance(
        merges := model.get("merges"), list
    ):
        # Older releases of tokenizers write "a b" where newer ones write ["a", "b"].
        pairs = [" ".join(m) if isinstance(m, list) else m for m in merges]
        reads["model"] = model | {"merges": pairs}
    return reads


OLD_SAMPLES: Final = 64


def old_digest(folder: Path) -> str:
    """The digest in collections until release 0.1: 16 digits, of the files' bytes."""
    files = [folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if path.suffix != ".safetensors":
                digest.update(file.read())
                continue
            for i in range(OLD_SAMPLES):
                file.seek(max(size - SAMPLE_BYTES, 0) * i // (OLD_SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
