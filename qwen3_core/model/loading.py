"""Reads the tensors of a checkpoint that `description` has accepted, and builds the model."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen3_core.common.validation import ArgumentError, check_dimensions
from qwen3_core.model.adapters import merge_adapter
from qwen3_core.model.description import (
    Dense,
    Description,
    Head,
    describe,
    tokenizer_source,
    trained_labels,
)
from qwen3_core.model.files import HEAD, INDEX, WEIGHTS, commit_of, shard_names, weight_files
from qwen3_core.model.source import Source, foreign_weights, in_short, sentence, what_to_give
from qwen3_core.model.tokenizer_checks import (
    check_end_of_text,
    check_fit,
    check_tokenizer_config,
    read_tokenizer,
)
from qwen3_core.settings import Dtype, ModelKind, check_settings
from qwen3_core.tokenizer import Qwen3Tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3Model

    from qwen3_core.model.packing import TokenSequence
    from qwen3_core.model.probe import Probe
    from qwen3_core.model.weights import Weights

logger = logging.getLogger(__name__)

ACTIVATIONS = ("silu", "swish")
"""transformers' names of the models' activation."""

ROPES = ("default", "linear", "dynamic", "yarn", "llama3", "proportional")
"""Types of rotary embeddings whose angles depend on the position alone, up to the number of
positions; those of "longrope" depend on the longest text of a batch."""

SCORE = "score.weight"
"""The matrix of a model converted to sequence classification: one row per label."""

Linear = tuple[np.ndarray, np.ndarray | None]
"""Weight, (out_features, in_features) float32, and bias, (out_features,), of a linear layer."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model."""

    name: str
    model: "Qwen3Model"
    """The base model, on its device, in eval mode, with prepacked linear layers."""
    head: np.ndarray | None
    """(hidden_size,) float32: a reranker's log-odds are its product with the last hidden state.
    None for an embedding model."""
    tokenizer: Qwen3Tokenizer
    max_positions: int
    """The longest sequence that the model supports, in tokens."""
    folder: Path
    """Folder of its files; for a hub model, the snapshot in the hub's cache."""
    description: Description
    """The checkpoint's own settings."""
    after_pooling: tuple[Linear | None, ...] = ()
    """Layers that an embedding model applies to the last hidden state: linear layers, and None for
    normalisation to length 1."""
    probe: "Probe | None" = None
    """For a model in 8-bit integers: exact states, computed before quantisation."""


def resolve_device(device: str = "auto") -> str:
    """The device to run on: as given; "auto" takes CUDA, else Apple's MPS, else the CPU.

    A GPU's name has its number, so that "cuda" and "cuda:0" are one device.

    Raises:
        ValueError: If the named device is not available.
    """
    import torch

    if device == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else mps
    try:
        return str(torch.empty(0, device=device).device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        msg = f"device {device!r} is not available here ({error}); use 'cpu' or 'auto'"
        raise ArgumentError(msg, "device") from error


def resolve_dtype(dtype: Dtype, device: str, hidden_size: int = 0) -> "torch.dtype":
    """The dtype to load: as given; "auto" and "int8" take bfloat16 where the hardware supports it.

    Args:
        dtype: "auto", "bfloat16", "float32", "float16" or "int8".
        device: The device it will run on.
        hidden_size: The model's hidden size. From 4096 on (the 8B models), float16 is refused,
            because these models return NaN for some texts (QwenLM/Qwen3-Embedding issue 164).

    Raises:
        ValueError: If the name is unknown, float16 is requested for an 8B model, or int8 on a
            device that does not support it.
    """
    import torch

    if dtype == "int8":
        from qwen3_core.model.int8 import why_not

        if reason := why_not(device):
            msg = f"dtype 'int8' is not available: {reason}; use dtype='auto'"
            raise ArgumentError(msg, "dtype")
    if dtype in ("auto", "int8"):
        kind = torch.device(device).type
        if kind == "cuda":
            # From Ampere on; older GPUs emulate it. `is_bf16_supported` asks the current device.
            native = torch.cuda.get_device_capability(device) >= (8, 0)
            return torch.bfloat16 if native else torch.float32
        return torch.bfloat16 if kind == "cpu" and _cpu_has_bfloat16() else torch.float32
    check_settings(dtype=dtype)
    if dtype == "float16" and hidden_size >= 4096:
        msg = "float16 overflows in the 8B models (NaN for some texts): use 'bfloat16' or 'float32'"
        raise ArgumentError(msg, "dtype")
    resolved: torch.dtype = getattr(torch, dtype)
    return resolved


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    import torch

    # The oldest torch release that we support has no public function for this.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def load(
    name: str | Path,
    kind: ModelKind,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
) -> Checkpoint:
    """Load a checkpoint and check it.

    Weights are read layer by layer, and prepacked or quantised before the next layer is read. An
    adapter is an exception: it is merged into the whole model first.

    Args:
        name: Hub name, local folder, or "tiny" for the bundled pair.
        kind: "embedding" or "reranker".
        revision: Branch, tag or commit on the hub.
        device: See `resolve_device`.
        dtype: See `resolve_dtype`.

    Raises:
        OSError: If the checkpoint cannot be found, downloaded or read.
        ValueError: If it is not a Qwen3 model of this kind; if its own settings are not supported
            (`qwen3_core.model.description`); if its tokenizer does not fit; if weights are missing,
            left over, of wrong shapes or not finite; if an argument is out of range.
        ImportError: If it is an adapter and `peft` is not installed.
    """
    from qwen3_core.model.buffers import is_out_of_memory
    from qwen3_core.model.probe import probe_sequences
    from qwen3_core.model.weights import Weights

    name = str(name)
    known = describe(name, kind, revision)
    try:
        config = _config(name, known)
        tokenizer = read_tokenizer(known.path("tokenizer.json"), name, kind)
        check_fit(name, config, tokenizer)
        check_end_of_text(name, kind, tokenizer)
        check_tokenizer_config(name, known, tokenizer)
        _check_layers(name, config)
        device = resolve_device(device)
        resolved = resolve_dtype(dtype, device, config.hidden_size)
        after_pooling = tuple(
            _linear(known, step) if isinstance(step, Dense) else None
            for step in known.after_pooling
        )
        weights = Weights(name, _weight_files(known.base))
        if known.adapter is None:
            model = _skeleton(config, resolved, device)
            head = _checked_head(model, weights, known.head, config, tokenizer)
            filled = weights
        else:
            model, head = _merged(known, config, weights, tokenizer, resolved, device)
            filled = None
        sequences = None
        if dtype == "int8":
            sequences = probe_sequences(tokenizer, kind, config.max_position_embeddings)
        probe = _read(model, filled, resolved, device, sequences)
    except OSError as error:
        if reason := foreign_weights(known.base):
            raise OSError(reason) from None
        reason = sentence(error)
        msg = f"could not load the {kind} model {name!r}: {reason}\n{what_to_give(kind)}"
        raise OSError(msg) from error
    except Exception as error:
        # transformers raises various errors: RuntimeError, KeyError, its own classes ...
        if isinstance(error, (ValueError, ImportError)) or is_out_of_memory(error):
            raise
        msg = (
            f"the {kind} model {name!r} is damaged, or its files are not of one checkpoint "
            f"({in_short(error)}): download it again"
        )
        raise ValueError(msg) from error
    logger.info("loaded %s on %s in %s", name, device, dtype if probe else resolved)
    return Checkpoint(
        *(name, model, head, tokenizer, config.max_position_embeddings, known.folder, known),
        after_pooling=after_pooling,
        probe=probe,
    )


def _skeleton(config: Any, dtype: "torch.dtype", device: str, matrix: str | None = None) -> Any:
    """A model whose parameters have shapes but no memory (device "meta").

    Args:
        config: The checkpoint's configuration.
        dtype: Dtype of the parameters.
        device: The device that it will run on.
        matrix: None for a Qwen3Model; "lm_head" or "score" for a model with this head.
    """
    import torch
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    classes: dict[str | None, Any] = {
        None: AutoModel,
        "lm_head": AutoModelForCausalLM,
        "score": AutoModelForSequenceClassification,
    }
    with torch.device("meta"):
        model = classes[matrix].from_config(
            config,
            dtype=dtype,
            # Not used, since we have our own. A checkpoint could name compiled code on the hub.
            attn_implementation="sdpa",
            trust_remote_code=False,
        )
    inner = model if matrix is None else model.model
    # The rotary frequencies are computed; no file contains them.
    rotary = inner.rotary_emb = type(inner.rotary_emb)(config=inner.config).to(device)
    if 2 * len(rotary.inv_freq) != inner.config.head_dim:
        msg = (
            f"config.json requests partial rotary embeddings ({2 * len(rotary.inv_freq)} of "
            f"head_dim={inner.config.head_dim}; rope_parameters: {inner.config.rope_parameters}), "
            "but transformers' Qwen3 only supports full rotary: fix the file"
        )
        raise ValueError(msg)
    return model.eval().requires_grad_(False)


def _checked_head(
    model: Any, weights: "Weights", head: Head | None, config: Any, tokenizer: Qwen3Tokenizer
) -> np.ndarray | None:
    """Check that the files contain the required tensors; returns a reranker's head.

    Returns:
        (hidden_size,) float32; None for an embedding model.

    Raises:
        ValueError: If tensors are missing or left over.
    """
    keys = {key for key, _ in model.named_parameters()}
    if head is None:
        weights.check(keys, spare=[HEAD])
        return None
    key = _head_key(config, weights) if head.matrix == "lm_head" else SCORE
    weights.check(keys | {key}, spare=[HEAD])
    count = config.vocab_size if head.matrix == "lm_head" else head.labels
    if weights.shape(key) != (count, config.hidden_size):
        msg = (
            f"weight {key} of {weights.name!r} has the shape {weights.shape(key)}, and its "
            f"config.json says {(count, config.hidden_size)}: the files are not of one checkpoint, "
            "download it again"
        )
        raise ValueError(msg)
    if head.matrix == "score" and config.pad_token_id == tokenizer.rerank_suffix[-1]:
        msg = (
            f"pad_token_id={config.pad_token_id} is the prompt's last token, so transformers would "
            "treat it as padding: fix config.json"
        )
        raise ValueError(msg)
    rows = weights.rows(key, _ids(head, tokenizer)).numpy()
    difference: np.ndarray = rows[0] - rows[1] if len(rows) == 2 else rows[0]
    return difference


def _ids(head: Head, tokenizer: Qwen3Tokenizer) -> list[int]:
    return [tokenizer.word_id(row) if isinstance(row, str) else row for row in head.rows]


def _head_key(config: Any, weights: "Weights") -> str:
    """Name of the matrix that is the language-model head."""
    tied = bool(config.tie_word_embeddings) and HEAD not in weights
    return "embed_tokens.weight" if tied else HEAD


def _merged(
    known: Description,
    config: Any,
    weights: "Weights",
    tokenizer: Qwen3Tokenizer,
    dtype: "torch.dtype",
    device: str,
) -> tuple[Any, np.ndarray | None]:
    """The whole model with its adapter merged, and its head: (hidden_size,) float32.

    Raises:
        ValueError: If the base's weights or the adapter do not fit.
    """
    import torch

    head, adapter = known.head, known.adapter
    if adapter is None:  # no caller does this
        msg = "there is no adapter"
        raise AssertionError(msg)
    whole = _skeleton(config, dtype, device, None if head is None else head.matrix)
    inner = whole if head is None else whole.model
    keys = {key for key, _ in inner.named_parameters()}
    from_adapter = False
    if head is not None and head.matrix == "score":
        from_adapter = SCORE not in weights
        if from_adapter and trained_labels(adapter) is None:
            msg = (
                f"the adapter {known.name!r} has no {SCORE}, and its base has none: its scores "
                "would be random. Save it with modules_to_save=['score']"
            )
            raise ValueError(msg)
        wanted = set() if from_adapter else {SCORE}
    else:
        wanted = set() if head is None else {_head_key(config, weights)}
    weights.check(keys | wanted, spare=[HEAD])
    weights.fill(inner, "", dtype, device)
    if head is not None and head.matrix == "lm_head":
        if HEAD in wanted:
            weights.fill(whole.lm_head, "lm_head.", dtype, device)
        else:
            whole.lm_head.weight = inner.embed_tokens.weight
    elif head is not None and not from_adapter:
        weights.fill(whole.score, "score.", dtype, device)
    elif head is not None:
        empty = torch.zeros(whole.score.weight.shape, dtype=dtype, device=device)
        whole.score.weight = torch.nn.Parameter(empty, requires_grad=False)
    whole = merge_adapter(whole, known.name, adapter)
    for parameter in whole.parameters():  # modules that an adapter replaces may have another dtype
        parameter.data = parameter.data.to(dtype)
        if not torch.isfinite(parameter).all():
            msg = f"the adapter {known.name!r} makes weights NaN or infinite: train it again"
            raise ValueError(msg)
    whole.eval().requires_grad_(False)
    if head is None:
        return whole, None
    matrix = whole.score if head.matrix == "score" else whole.lm_head
    rows = [matrix.weight[i].float().numpy(force=True) for i in _ids(head, tokenizer)]
    return whole.model, rows[0] - rows[1] if len(rows) == 2 else rows[0]


def _read(
    model: Any,
    weights: "Weights | None",
    dtype: "torch.dtype",
    device: str,
    sequences: "list[TokenSequence] | None",
) -> "Probe | None":
    """Read a model's weights layer by layer; each layer is prepacked before the next is read.

    Args:
        model: The result of `_skeleton`.
        weights: The checkpoint's weights; None if the model has them already.
        dtype: The dtype to convert them to.
        device: The device to put them on.
        sequences: Sequences to compute exactly, with each layer before it is quantised to int8;
            None keeps the layers in `dtype`.

    Returns:
        The exact states of these sequences; None without them.
    """
    from qwen3_core.model.linear import prepack
    from qwen3_core.model.probe import Probe

    if weights is not None:
        weights.fill(model.embed_tokens, "embed_tokens.", dtype, device)
        weights.fill(model.norm, "norm.", dtype, device)
    probe = None if sequences is None else Probe(model, sequences)
    for index, layer in enumerate(model.layers):
        if weights is not None:
            weights.fill(layer, f"layers.{index}.", dtype, device)
        if probe is not None:
            probe.run(layer)
        prepack(layer, int8=probe is not None)
    return probe


def _weight_files(base: Source) -> list[Path]:
    """The files of a checkpoint's weights, downloaded if necessary."""
    commit = commit_of(base.folder)  # of config.json: the branch may have moved since
    if base.local or commit is None or replace(base, revision=commit).fetch(WEIGHTS):
        return weight_files(base.folder)
    if index := base.path(INDEX):
        names = shard_names(index)
        # Skip the hub if all shards are cached: some huggingface_hub releases fail offline here.
        if not all((base.folder / name).is_file() for name in names):
            from huggingface_hub import snapshot_download

            snapshot_download(base.place, revision=commit, allow_patterns=names)
    return weight_files(base.folder)


def vector_length(
    name: str | Path, dimensions: int | None = None, *, revision: str | None = None
) -> int:
    """Length of an embedding model's vectors, from its small files; loads no weights and no torch.

    Args:
        name: As in `load`.
        dimensions: The requested length; None for the checkpoint's own.
        revision: As in `load`.

    Raises:
        OSError: If a file cannot be found, downloaded or read.
        ValueError: If the checkpoint is not supported, or `dimensions` is out of range.
    """
    known = describe(str(name), "embedding", revision)
    return check_dimensions(dimensions, known.full_dimensions) or known.dimensions


def load_tokenizer(
    name: str | Path, kind: ModelKind, *, revision: str | None = None
) -> Qwen3Tokenizer:
    """Load a checkpoint's tokenizer, without its weights; arguments and errors as in `load`."""
    try:
        source = tokenizer_source(str(name), kind, revision)
        return read_tokenizer(source.path("tokenizer.json"), str(name), kind)
    except OSError as error:
        reason = sentence(error)
        msg = f"could not load the tokenizer of {str(name)!r}: {reason}\n{what_to_give(kind)}"
        raise OSError(msg) from error


def _linear(description: Description, dense: Dense) -> Linear:
    """The weights of a Dense module.

    Raises:
        OSError: If they are missing.
        ValueError: If they are a pickle, or do not match their config.json.
    """
    from safetensors.torch import load_file

    file = f"{dense.path}/{WEIGHTS}"
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
        msg = f"{file}, the weights of a Dense module, is missing"
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
    if not all(bool(np.isfinite(array).all()) for array in arrays.values()):
        msg = f"{path} holds NaN or infinity: download the model again"
        raise ValueError(msg)
    return arrays["linear.weight"], arrays.get("linear.bias")


def _check_layers(name: str, config: Any) -> None:
    """Raise ValueError if config.json describes layers that differ from ours."""
    rope = config.rope_parameters.get("rope_type")
    remedy = "run it with sentence-transformers or transformers"
    for what, known in (
        (f"the activation hidden_act={config.hidden_act!r}", config.hidden_act in ACTIVATIONS),
        (
            f"sliding-window or other attention (layer_types={config.layer_types})",
            set(config.layer_types) == {"full_attention"},
        ),
        (f"rotary embeddings of type {rope!r} (rope_parameters, rope_scaling)", rope in ROPES),
        (f"rms_norm_eps={config.rms_norm_eps}", 0 <= config.rms_norm_eps < 1),
    ):
        if not known:
            msg = f"{name!r} has {what} in its config.json, which is not supported: {remedy}"
            raise ValueError(msg)


def _config(name: str, description: Description) -> Any:
    """The checkpoint's configuration; its own code is never run, and the user is not asked to."""
    from transformers import AutoConfig

    base, head = description.base, description.head
    labels = {"num_labels": head.labels} if head is not None and head.matrix == "score" else {}
    try:
        return AutoConfig.from_pretrained(
            base.place, revision=base.revision, trust_remote_code=False, **labels
        )
    except Exception as error:  # its own classes of errors too
        if isinstance(error, OSError):
            raise
        msg = (
            f"config.json of {name!r} is not one that transformers reads ({in_short(error)}): "
            "download it again"
        )
        raise ValueError(msg) from error
