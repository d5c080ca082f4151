"""Loads a checkpoint of the Qwen3 retrieval family, or says why it is not one."""

import json
import logging
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen3_core.common.validation import is_count
from qwen3_core.model.files import HEAD, INDEX, WEIGHTS, commit_of, shard_names, weight_files
from qwen3_core.prompts import END_OF_TEXT
from qwen3_core.settings import (
    BUNDLED,
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_RERANKER_MODEL,
    TINY,
    Dtype,
    Kind,
    check_settings,
)
from qwen3_core.tokenizer import Qwen3Tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3Model

    from qwen3_core.model.packing import TokenSequence
    from qwen3_core.model.probe import Probe
    from qwen3_core.model.weights import Weights

logger = logging.getLogger(__name__)

_RECOMMENDED: dict[Kind, str] = {
    "embedding": DEFAULT_EMBEDDING_MODEL,
    "reranker": DEFAULT_RERANKER_MODEL,
}
_OTHER: dict[Kind, Kind] = {"embedding": "reranker", "reranker": "embedding"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model."""

    name: str
    model: "Qwen3Model"
    """The base model, on its device, in eval mode, its linear maps packed."""
    head: np.ndarray | None
    """(hidden_size,) float32: W[yes] - W[no] of a reranker, None of an embedding model."""
    tokenizer: Qwen3Tokenizer
    max_positions: int
    """The longest sequence the model was made for, in tokens."""
    folder: Path
    """Where its files are; of a model on the hub, the snapshot in the hub's cache."""
    probe: "Probe | None" = None
    """Of a model in 8-bit integers, what it was before."""


def resolve_device(device: str = "auto") -> str:
    """The device to run on: as given; for "auto" CUDA, Apple's MPS or the CPU, whichever is there.

    Raises:
        ValueError: If the named device is not available.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        msg = f"device {device!r} is not available here ({error}); use 'cpu' or 'auto'"
        raise ValueError(msg) from error
    return device


def resolve_dtype(dtype: Dtype, device: str, hidden_size: int = 0) -> "torch.dtype":
    """The dtype to load: as given, or for "auto" and "int8" bfloat16 where the hardware has it.

    Args:
        dtype: "auto", "bfloat16", "float32", "float16" or "int8".
        device: The device it will run on.
        hidden_size: Of the model; 4096 and more (the 8B models) are refused in float16, in which
            they return NaN for some texts (QwenLM/Qwen3-Embedding issue 164).

    Raises:
        ValueError: If the name is unknown, float16 is asked for an 8B model, or int8 of a device
            that does not have it.
    """
    import torch

    if dtype == "int8":
        from qwen3_core.model.int8 import why_not

        if reason := why_not(device):
            msg = f"dtype 'int8' is not available: {reason}; use dtype='auto'"
            raise ValueError(msg)
    if dtype in ("auto", "int8"):
        kind = torch.device(device).type
        if kind == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        return torch.bfloat16 if kind == "cpu" and _cpu_has_bfloat16() else torch.float32
    check_settings(dtype=dtype)
    if dtype == "float16" and hidden_size >= 4096:
        msg = "float16 overflows in the 8B models (NaN for some texts): use 'bfloat16' or 'float32'"
        raise ValueError(msg)
    resolved: torch.dtype = getattr(torch, dtype)
    return resolved


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    import torch

    # torch has no public query that reaches back to the oldest release we support.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def load(
    name: str | Path,
    kind: Kind,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
) -> Checkpoint:
    """Load a checkpoint and check that it is what it should be.

    Weights are read layer by layer, and packed or quantised before the next layer is read.

    Args:
        name: Hub name, local folder, or "tiny" for the bundled pair.
        kind: "embedding" or "reranker".
        revision: Branch, tag or commit on the hub.
        device: See `resolve_device`.
        dtype: See `resolve_dtype`.

    Raises:
        OSError: If the checkpoint cannot be found, downloaded or read.
        ValueError: If it is not a Qwen3 model of this kind, its tokenizer does not fit, its weights
            are incomplete, too many, of other shapes or not finite, or an argument is out of range.
    """
    from qwen3_core.model.buffers import is_out_of_memory
    from qwen3_core.model.probe import probe_sequences
    from qwen3_core.model.weights import Weights

    try:
        source = _locate(str(name), kind)
        config = _config(str(name), source, kind, revision)
        folder = _folder(source, revision)
        tokenizer = _load_tokenizer(source, revision)
        _check_kind(str(name), source, kind, config, tokenizer, revision)
        device = resolve_device(device)
        _check_fit(str(name), config, tokenizer)
        weights = Weights(str(name), _weight_files(source, folder))
        head_key = None if kind == "embedding" else _head_key(config, weights)
        resolved = resolve_dtype(dtype, device, config.hidden_size)
        model = _skeleton(config, resolved, device)
        keys = {key for key, _ in model.named_parameters()}
        weights.check(keys | ({head_key} if head_key else set()), spare=[HEAD])
        head = None
        if head_key:
            yes, no = weights.rows(head_key, map(tokenizer.word_id, ("yes", "no")))
            head = (yes - no).numpy()
        sequences = None
        if dtype == "int8":
            sequences = probe_sequences(tokenizer, kind, config.max_position_embeddings)
        probe = _read(model, weights, resolved, device, sequences)
    except OSError as error:
        reason = _pickled(str(name)) or error
        msg = f"could not load the {kind} model {str(name)!r}: {reason}\n{_what_to_give(kind)}"
        raise OSError(msg) from error
    except Exception as error:
        # Whatever transformers stumbles over: RuntimeError, KeyError, a class of its own ...
        if isinstance(error, (ValueError, ImportError)) or is_out_of_memory(error):
            raise
        msg = (
            f"the {kind} model {str(name)!r} is damaged, or its files are not of one checkpoint "
            f"({_in_short(error)}): download it again"
        )
        raise ValueError(msg) from error
    logger.info("loaded %s on %s in %s", name, device, dtype if probe else resolved)
    return Checkpoint(
        *(str(name), model, head, tokenizer, config.max_position_embeddings, folder, probe)
    )


def _skeleton(config: Any, dtype: "torch.dtype", device: str) -> Any:
    """A Qwen3Model whose parameters have shapes and no memory."""
    import torch
    from transformers import AutoModel

    auto: Any = AutoModel  # its methods carry no annotations
    with torch.device("meta"):
        model = auto.from_config(
            config,
            dtype=dtype,
            # We have our own. A checkpoint could name compiled code on the hub instead.
            attn_implementation="sdpa",
            trust_remote_code=False,
        )
    # Its frequencies are in no file.
    model.rotary_emb = type(model.rotary_emb)(config=model.config).to(device)
    return model.eval().requires_grad_(False)


def _read(
    model: Any,
    weights: "Weights",
    dtype: "torch.dtype",
    device: str,
    sequences: "list[TokenSequence] | None",
) -> "Probe | None":
    """Read a model's weights, layer by layer, each brought into its final form before the next.

    Args:
        model: What `_skeleton` made.
        weights: The checkpoint's.
        dtype: To convert them to.
        device: To put them on.
        sequences: What to compute exactly on the way, before a layer becomes integers; None leaves
            the layers in their dtype.

    Returns:
        What was computed exactly.
    """
    from qwen3_core.model.linear import pack
    from qwen3_core.model.probe import Probe

    weights.fill(model.embed_tokens, "embed_tokens.", dtype, device)
    weights.fill(model.norm, "norm.", dtype, device)
    probe = None if sequences is None else Probe(model, sequences)
    for index, layer in enumerate(model.layers):
        weights.fill(layer, f"layers.{index}.", dtype, device)
        # What changes weights, such as an adapter, has its place here: they are whole and exact.
        if probe is not None:
            probe.run(layer)
        pack(layer, int8=probe is not None)
    return probe


def _head_key(config: Any, weights: "Weights") -> str:
    """The matrix that a reranker's head is two rows of."""
    tied = bool(config.tie_word_embeddings) and HEAD not in weights
    return "embed_tokens.weight" if tied else HEAD


def _weight_files(source: str, folder: Path) -> list[Path]:
    """The files of a checkpoint's weights, downloaded if need be."""
    commit = commit_of(folder)  # of config.json: the branch may have moved since
    if commit is None or Path(source).is_dir() or _cached_file(source, WEIGHTS, commit):
        return weight_files(folder)
    if index := _cached_file(source, INDEX, commit):
        from huggingface_hub import snapshot_download

        snapshot_download(source, revision=commit, allow_patterns=shard_names(index))
    return weight_files(folder)


def vector_length(name: str | Path, *, revision: str | None = None) -> int:
    """Length of an embedding model's vectors as its config.json says, without its weights or torch.

    Raises:
        OSError: If the file cannot be found, downloaded or read.
        ValueError: If it does not say.
    """
    try:
        path = _cached_file(_locate(str(name), "embedding"), "config.json", revision)
        if path is None:
            msg = "it has no config.json, or is out of reach"
            raise FileNotFoundError(msg)
        length = json.loads(path.read_text(encoding="utf-8")).get("hidden_size")
    except OSError as error:
        msg = f"could not load the model {str(name)!r}: {error}\n{_what_to_give('embedding')}"
        raise OSError(msg) from error
    except (ValueError, AttributeError):
        length = None
    if not is_count(length):
        msg = (
            f"config.json of {str(name)!r} says no hidden_size: use a Qwen3 embedding model such "
            f"as {DEFAULT_EMBEDDING_MODEL!r}"
        )
        raise ValueError(msg)
    return length


def load_tokenizer(name: str | Path, kind: Kind, *, revision: str | None = None) -> Qwen3Tokenizer:
    """The tokenizer of a checkpoint, without its weights; arguments and errors as in `load`."""
    try:
        return _load_tokenizer(_locate(str(name), kind), revision)
    except OSError as error:
        msg = f"could not load the tokenizer of {str(name)!r}: {error}\n{_what_to_give(kind)}"
        raise OSError(msg) from error


def _what_to_give(kind: Kind) -> str:
    return (
        "Give a name on the Hugging Face Hub (network or a filled cache needed), such as "
        f"{_RECOMMENDED[kind]!r}, a folder that holds config.json, tokenizer.json and "
        f"*.safetensors, or {TINY!r} for the bundled model that needs no download."
    )


def _locate(name: str, kind: Kind) -> str:
    """What transformers is to load: the folder of the bundled pair, or the name as given."""
    if name == TINY:
        return str(BUNDLED[kind])
    looks_like_path = name.startswith((".", "~")) or Path(name).is_absolute()
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if looks_like_path:
            msg = "there is no such folder"
            raise FileNotFoundError(msg)
        if "/" not in name:  # no Qwen3 model on the hub is without an owner: do not ask there
            meant = get_close_matches(name, [TINY])
            msg = f"there is no such folder{f'; did you mean {TINY!r}?' if meant else ''}"
            raise FileNotFoundError(msg)
        return name
    if not (folder / "config.json").is_file():
        msg = "the folder has no config.json"
        raise FileNotFoundError(msg)
    return str(folder)


def _cached_file(source: str, filename: str, revision: str | None) -> Path | None:
    """A file of a checkpoint, downloaded if need be; None if the checkpoint has none."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        source, filename, revision=revision, _raise_exceptions_for_missing_entries=False
    )
    return None if path is None else Path(path)


def _folder(source: str, revision: str | None) -> Path:
    """Where a checkpoint's files are, those that will be read."""
    path = _cached_file(source, "config.json", revision)
    if path is None:
        msg = f"{source!r} has no config.json, or is out of reach"
        raise OSError(msg)
    return path.parent


def _load_tokenizer(source: str, revision: str | None) -> Qwen3Tokenizer:
    path = _cached_file(source, "tokenizer.json", revision)
    if path is None:
        # Offline, the hub's client tells a file that is not in the cache like one that is nowhere.
        there = Path(source).is_dir()
        what = "has no tokenizer.json" if there else "has no tokenizer.json, or is out of reach"
        msg = f"{source!r} {what}"
        raise OSError(msg)
    try:
        return Qwen3Tokenizer(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not valid JSON ({error}): download it again"
        raise OSError(msg) from error
    except Exception as error:  # the tokenizers library raises just that
        if isinstance(error, ValueError):
            raise
        msg = f"{path} is not a Qwen3 model's tokenizer ({_in_short(error)}): download it again"
        raise ValueError(msg) from error


def _in_short(error: Exception) -> str:
    """An error of another library, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check_fit(name: str, config: Any, tokenizer: Qwen3Tokenizer) -> None:
    """Raise ValueError if the model cannot read what the tokenizer gives."""
    if tokenizer.size > config.vocab_size:
        msg = (
            f"the tokenizer of {name!r} gives ids up to {tokenizer.size - 1}, and the model knows "
            f"{config.vocab_size}: tokenizer.json is another model's"
        )
        raise ValueError(msg)
    if config.max_position_embeddings < 1:
        msg = (
            f"{name!r} has max_position_embeddings={config.max_position_embeddings} in its "
            "config.json, and reads no text at all: download it again"
        )
        raise ValueError(msg)


def _config(name: str, source: str, kind: Kind, revision: str | None) -> Any:
    """The checkpoint's configuration; no code that comes with it is run, and nobody is asked to."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except ValueError as error:
        msg = (
            f"{name!r} is not a model that transformers knows, and code that comes with a "
            f"checkpoint is never run here: use a Qwen3 {kind} model such as {_RECOMMENDED[kind]!r}"
        )
        raise ValueError(msg) from error


def _pickled(name: str) -> str | None:
    """Why a folder's weights are not read, if they are a pickle."""
    folder = Path(name).expanduser()
    found = sorted(folder.glob("pytorch_model*.bin"))
    if not found or any(folder.glob("*.safetensors")):
        return None
    return (
        f"its weights are a pickle ({found[0].name}), which can run any code when it is read, so "
        "only *.safetensors is read: get the original checkpoint, or have a machine that holds "
        "nothing of value convert it"
    )


def _check_kind(
    name: str,
    source: str,
    kind: Kind,
    config: Any,
    tokenizer: Qwen3Tokenizer,
    revision: str | None,
) -> None:
    """Raise ValueError unless the checkpoint is a Qwen3 model meant for this kind of use."""
    advice = f"use a Qwen3 {kind} model such as {_RECOMMENDED[kind]!r}"
    if config.model_type != "qwen3":
        msg = f"{name!r} is a {config.model_type} model, not a Qwen3 one: {advice}"
        raise ValueError(msg)
    architecture = (config.architectures or [""])[0]
    if architecture not in ("Qwen3ForCausalLM", "Qwen3Model"):
        msg = (
            f"{name!r} is a {architecture}, a converted checkpoint whose head we cannot "
            f"vouch for: {advice} in its original form"
        )
        raise ValueError(msg)
    if kind == "reranker" and architecture == "Qwen3Model":
        msg = f"{name!r} has no language-model head to say yes or no with: {advice}"
        raise ValueError(msg)
    if kind == "embedding" and tokenizer.appended != (END_OF_TEXT,):
        msg = (
            f"the tokenizer of {name!r} puts {tokenizer.appended or 'nothing'} behind a text, "
            f"where an embedding model's puts {END_OF_TEXT} once: {advice}"
        )
        raise ValueError(msg)
    modules_path = _cached_file(source, "modules.json", revision)
    try:
        modules = json.loads(modules_path.read_text(encoding="utf-8")) if modules_path else []
    except ValueError as error:
        msg = f"{modules_path} is not valid JSON ({error}): download it again"
        raise OSError(msg) from error
    types = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    found: Kind | None = None
    if "Pooling" in types:
        found = "embedding"
    elif "LogitScore" in types:
        found = "reranker"
    if found == _OTHER[kind]:
        msg = f"{name!r} is a {found} model, by its modules.json: {advice}"
        raise ValueError(msg)
