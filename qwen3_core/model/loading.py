"""Loads a checkpoint of the Qwen3 retrieval family, or says why it is not one."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen3_core.model.adapters import merge_adapter
from qwen3_core.model.description import Dense, Description, Head, describe, tokenizer_source
from qwen3_core.model.files import HEAD, INDEX, WEIGHTS, commit_of, shard_names, weight_files
from qwen3_core.model.source import PUBLISHED, Source, foreign_weights, what_to_give
from qwen3_core.prompts import END_OF_TEXT
from qwen3_core.settings import Dtype, Kind, check_settings
from qwen3_core.tokenizer import Qwen3Tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3Model

    from qwen3_core.model.probe import Probe
    from qwen3_core.model.weights import Weights

logger = logging.getLogger(__name__)

Linear = tuple[np.ndarray, np.ndarray | None]
"""Weight, (out_features, in_features) float32, and bias, (out_features,), of a linear map."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model."""

    name: str
    model: "Qwen3Model"
    """The base model, on its device, in eval mode, its linear maps packed."""
    head: np.ndarray | None
    """(hidden_size,) float32: a reranker's log-odds are its product with the last hidden state.
    None of an embedding model."""
    tokenizer: Qwen3Tokenizer
    max_positions: int
    """The longest sequence the model was made for, in tokens."""
    folder: Path
    """Where its files are; of a model on the hub, the snapshot in the hub's cache."""
    description: Description
    """What the checkpoint says of itself."""
    after_pooling: tuple[Linear | None, ...] = ()
    """What an embedding model does with the last hidden state: linear maps, and None where a
    vector is made of length 1."""
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

    Weights are read layer by layer, and packed or quantised before the next layer is read. Those of
    an adapter's base are read whole, and merged, before that.

    Args:
        name: Hub name, local folder, or "tiny" for the bundled pair.
        kind: "embedding" or "reranker".
        revision: Branch, tag or commit on the hub.
        device: See `resolve_device`.
        dtype: See `resolve_dtype`.

    Raises:
        OSError: If the checkpoint cannot be found, downloaded or read.
        ValueError: If it is not a Qwen3 model of this kind, says of itself what is not computed
            here (`qwen3_core.model.description`), its tokenizer does not fit, its weights are
            incomplete, too many, of other shapes or not finite, or an argument is out of range.
        ImportError: If it is an adapter and `peft` is not installed.
    """
    import torch
    from safetensors import SafetensorError

    from qwen3_core.model.buffers import is_out_of_memory
    from qwen3_core.model.linear import pack
    from qwen3_core.model.probe import Probe, probe_sequences
    from qwen3_core.model.weights import Weights, check_finite

    description = describe(str(name), kind, revision)
    try:
        config = _config(str(name), description)
        tokenizer = _tokenizer(description.path("tokenizer.json"), str(name))
        _check_end_of_text(str(name), kind, tokenizer)
        _check_fit(str(name), config, tokenizer)
        device = resolve_device(device)
        resolved = resolve_dtype(dtype, device, config.hidden_size)
        weights = Weights(str(name), _weight_files(description.base))
        after_pooling = tuple(
            _linear(description, step) if isinstance(step, Dense) else None
            for step in description.after_pooling
        )
        for step, linear in zip(description.after_pooling, after_pooling, strict=True):
            for part in linear or ():
                if isinstance(step, Dense) and part is not None:
                    check_finite(str(name), f"{step.path}/linear", torch.from_numpy(part))
        if description.adapter is None:
            model = _skeleton(config, resolved)
            row = _row_of_file(model, weights, description.head, tokenizer)
            weights.fill(model.embed_tokens, "embed_tokens.", resolved, device)
            weights.fill(model.norm, "norm.", resolved, device)
        else:
            head, adapter = description.head, description.adapter
            model, row = _merged(str(name), adapter, head, config, weights, resolved, tokenizer)
            model.to(device)
        model.rotary_emb.to(device)
        probe = None
        if dtype == "int8":
            sequences = probe_sequences(tokenizer, kind, config.max_position_embeddings)
            probe = Probe(model, sequences)
        for index, layer in enumerate(model.layers):
            if description.adapter is None:
                weights.fill(layer, f"layers.{index}.", resolved, device)
            if probe is not None:
                probe.run(layer)
            pack(layer, int8=probe is not None)
    except (OSError, SafetensorError) as error:
        if reason := foreign_weights(description.base):
            raise OSError(reason) from None
        msg = f"could not load the {kind} model {str(name)!r}: {error}\n{what_to_give(kind)}"
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
    logger.info("loaded %s on %s in %s", name, device, "int8" if probe else resolved)
    return Checkpoint(
        *(str(name), model, row, tokenizer, config.max_position_embeddings),
        description.folder,
        description,
        after_pooling=after_pooling,
        probe=probe,
    )


def vector_length(name: str | Path, *, revision: str | None = None) -> int:
    """Length of an embedding model's vectors as its files say, without its weights or torch.

    Raises:
        OSError: If a file cannot be found, downloaded or read.
        ValueError: If the checkpoint is of no use here.
    """
    return describe(str(name), "embedding", revision).dimensions


def load_tokenizer(name: str | Path, kind: Kind, *, revision: str | None = None) -> Qwen3Tokenizer:
    """The tokenizer of a checkpoint, without its weights; arguments and errors as in `load`."""
    try:
        source = tokenizer_source(str(name), kind, revision)
        return _tokenizer(source.path("tokenizer.json"), str(name))
    except OSError as error:
        msg = f"could not load the tokenizer of {str(name)!r}: {error}\n{what_to_give(kind)}"
        raise OSError(msg) from error


def _weight_files(base: Source) -> list[Path]:
    """The files of a checkpoint's weights, downloaded if need be."""
    if base.local:
        return weight_files(base.folder)
    # Of the commit that its small files are of: the branch may have moved since.
    base = replace(base, revision=commit_of(base.folder) or base.revision)
    index = base.path(INDEX)
    if base.fetch(WEIGHTS) is None and index is not None:
        from huggingface_hub import snapshot_download

        snapshot_download(base.place, revision=base.revision, allow_patterns=shard_names(index))
    return weight_files(base.folder)


def _skeleton(config: Any, dtype: "torch.dtype", matrix: str | None = None) -> Any:
    """A model whose parameters have shapes and no memory; with the matrix of its head, or without.

    Args:
        config: Of the checkpoint.
        dtype: That the parameters will have.
        matrix: "lm_head" or "score"; None for the base model alone.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    classes: dict[str | None, Any] = {
        None: AutoModel,
        "lm_head": AutoModelForCausalLM,
        "score": AutoModelForSequenceClassification,
    }
    with torch.device("meta"):
        model = classes[matrix].from_config(
            config,
            dtype=dtype,
            # We have our own. A checkpoint could name compiled code on the hub instead.
            attn_implementation="sdpa",
            trust_remote_code=False,
        )
    base = model if matrix is None else model.model
    base.rotary_emb = type(base.rotary_emb)(config=base.config)  # its numbers are in no file
    return model.eval().requires_grad_(False)


def _row_of_file(
    model: Any, weights: "Weights", head: Head | None, tokenizer: Qwen3Tokenizer
) -> np.ndarray | None:
    """A reranker's row, read without the rest of its matrix; None of an embedding model.

    Raises:
        ValueError: If weights are missing or left over.
    """
    keys = {key for key, _ in model.named_parameters()}
    if head is None:
        weights.check(keys, spare=[HEAD])
        return None
    key = f"{head.matrix}.weight"
    if key == HEAD and HEAD not in weights and model.config.tie_word_embeddings:
        key = "embed_tokens.weight"
    weights.check(keys | {key}, spare=[HEAD])
    return _row(weights.rows(key, _ids(head, tokenizer)))


def _merged(
    name: str,
    adapter: Source,
    head: Head | None,
    config: Any,
    weights: "Weights",
    dtype: "torch.dtype",
    tokenizer: Qwen3Tokenizer,
) -> tuple[Any, np.ndarray | None]:
    """The base model with an adapter merged into it, and a reranker's row."""
    from qwen3_core.model.weights import check_finite

    matrix = None if head is None else head.matrix
    if HEAD in weights:  # as transformers takes it
        config.tie_word_embeddings = False
    model = _skeleton(config, dtype, matrix)
    base = model if matrix is None else model.model
    keys = {key.removeprefix("model.") for key, _ in model.named_parameters()}
    score = "score.weight"  # which the adapter may bring
    weights.check(keys - {score}, spare=[HEAD, score])
    weights.fill(base, "", dtype, "cpu")
    if matrix is not None:
        if f"{matrix}.weight" in weights:
            weights.fill(getattr(model, matrix), f"{matrix}.", dtype, "cpu")
        elif matrix == "score":  # in the adapter, else refused below
            model.score.to_empty(device="cpu").weight.zero_()
        model.tie_weights()
    model, brought = merge_adapter(model, name, adapter)
    if score in keys - brought:
        weights.check(keys, spare=[HEAD])
    base = model if matrix is None else model.model
    for key, parameter in base.named_parameters():
        check_finite(name, key, parameter)
    if head is None:
        return base, None
    own = model.score if head.matrix == "score" else model.get_output_embeddings()
    rows = own.weight[_ids(head, tokenizer)].detach().float()
    check_finite(name, f"{matrix}.weight", rows)
    return base, _row(rows)


def _ids(head: Head, tokenizer: Qwen3Tokenizer) -> list[int]:
    """The rows of a head's matrix that count."""
    return [tokenizer.word_id(row) if isinstance(row, str) else row for row in head.rows]


def _row(rows: "torch.Tensor") -> np.ndarray:
    """(hidden_size,) float32, whose product with the last hidden state is the log-odds."""
    row: np.ndarray = (rows[0] - rows[1] if len(rows) == 2 else rows[0]).numpy(force=True)
    return row


def _linear(description: Description, dense: Dense) -> Linear:
    """The weights of a Dense module.

    Raises:
        OSError: If they are not there.
        ValueError: If they are a pickle, or not what its config.json says.
    """
    from safetensors.torch import load_file

    file = f"{dense.path}/model.safetensors"
    path = description.path(file)
    if path is None:
        pickled = f"{dense.path}/pytorch_model.bin"
        if description.path(pickled) is not None:
            msg = (
                f"{description.base.name!r} keeps a Dense module in a pickle ({pickled}), which "
                "can run any code when it is read: load it with sentence-transformers and save it "
                "anew"
            )
            raise ValueError(msg)
        msg = f"{file}, the weights of a Dense module, is not there"
        raise FileNotFoundError(msg)
    tensors = load_file(path)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (dense.out_features, dense.in_features)}
    if dense.bias:
        shapes["linear.bias"] = (dense.out_features,)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes:
        msg = (
            f"{path} holds {found}, and {dense.path}/config.json says {shapes}: the files are of "
            "two models, download it again"
        )
        raise ValueError(msg)
    arrays = {name: tensor.float().numpy(force=True) for name, tensor in tensors.items()}
    return arrays["linear.weight"], arrays.get("linear.bias")


def _tokenizer(path: Path | None, name: str) -> Qwen3Tokenizer:
    if path is None:
        # Offline, the hub's client tells a file that is not in the cache like one that is nowhere.
        what = "" if Path(name).expanduser().is_dir() else ", or is out of reach"
        msg = f"{name!r} has no tokenizer.json{what}"
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


def _config(name: str, description: Description) -> Any:
    """The checkpoint's configuration; no code that comes with it is run, and nobody is asked to."""
    from transformers import AutoConfig

    base, head = description.base, description.head
    labels = {"num_labels": head.labels} if head is not None and head.matrix == "score" else {}
    try:
        return AutoConfig.from_pretrained(
            base.place, revision=base.revision, trust_remote_code=False, **labels
        )
    except ValueError as error:
        msg = (
            f"config.json of {name!r} is not one that transformers reads ({_in_short(error)}): "
            "download it again"
        )
        raise ValueError(msg) from error


def _check_end_of_text(name: str, kind: Kind, tokenizer: Qwen3Tokenizer) -> None:
    """Raise ValueError if an embedding model's tokenizer ends texts in another way."""
    if kind == "embedding" and tokenizer.appended != (END_OF_TEXT,):
        msg = (
            f"the tokenizer of {name!r} puts {tokenizer.appended or 'nothing'} behind a text, "
            f"where an embedding model's puts {END_OF_TEXT} once (post_processor in its "
            f"tokenizer.json): use a Qwen3 {kind} model such as {PUBLISHED[kind]!r}"
        )
        raise ValueError(msg)
