"""Reads a checkpoint's own settings from its small files, before any weights are loaded.

Every setting that changes results is in the `Description`, or the checkpoint is refused. The
reference for sentence-transformers folders is that library (6.2): `encode_query`,
`encode_document`, `CrossEncoder.predict`.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from qwen3_core.common.validation import MIN_DIMENSIONS, is_count
from qwen3_core.model.chat_template import ForeignTemplateError, instruction_in
from qwen3_core.model.files import ADAPTER, ADAPTER_WEIGHTS, INDEX, WEIGHTS, State, states
from qwen3_core.model.source import (
    PUBLISHED,
    Source,
    foreign_weights,
    locate,
    sentence,
    what_to_give,
)
from qwen3_core.prompts import CONTROL_TOKENS, TASKS, query_prefix, query_text
from qwen3_core.settings import ModelKind

logger = logging.getLogger(__name__)

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
OLD_TRANSFORMERS = tuple(
    f"sentence_{name}_config.json"
    for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Older names of that file, which sentence-transformers still reads."""
TOKENIZER = "tokenizer_config.json"
TOKENIZER_JSON = "tokenizer.json"
TEMPLATE = "chat_template.jinja"

PUBLISHED_PROMPT = query_prefix(TASKS["web_search"]) + query_text("")


CORRECT = "correct the file"
"""The remedy for a value that is wrong in any case."""


@dataclass(frozen=True)
class Dense:
    """A linear layer after the pooling."""

    path: str
    """Its folder in the checkpoint."""
    in_features: int
    out_features: int
    bias: bool


@dataclass(frozen=True)
class Head:
    """A reranker's score head: rows of a matrix, the second subtracted from the first.

    Its product with the last hidden state is the log-odds.
    """

    matrix: Literal["lm_head", "score"] = "lm_head"
    rows: tuple[int | str, ...] = ("yes", "no")
    """One or two rows: token ids or labels, or words with a token id."""

    @property
    def labels(self) -> int:
        """Number of rows of the matrix "score"."""
        return len(self.rows)


@dataclass(frozen=True)
class Description:
    """Everything about a checkpoint that changes results, except its weights."""

    name: str
    """The checkpoint, as the user named it."""
    kind: ModelKind
    base: Source
    """Source of config.json and the weights."""
    adapter: Source | None
    """Source of the adapter that is merged into the weights; None if there is none."""
    hidden_size: int
    full_dimensions: int
    """Length of an embedding model's vectors before they are truncated."""
    dimensions: int
    """The same after the checkpoint's own truncation (`truncate_dim`), the default length."""
    after_pooling: tuple[Dense | Literal["normalize"], ...] = ()
    """Layers of an embedding model after the pooling, besides the final normalisation."""
    query_prompt: str | None = None
    """Prompt before a query; None: the published prompt template with an instruction."""
    document_prompt: str = ""
    """Prompt before a document."""
    instruction: str | None = None
    """A reranker's default instruction; None: the published one."""
    head: Head | None = None
    """A reranker's score head; None for an embedding model."""
    max_length: int | None = None
    """The checkpoint's own token limit per input, if below max_position_embeddings."""

    @property
    def pooling(self) -> str:
        """The pooling and, if a Dense module follows a normalisation, all layers after it."""
        kinds = ["dense" if isinstance(step, Dense) else step for step in self.after_pooling]
        while kinds[-1:] == ["normalize"]:  # as vectors are in any case
            kinds.pop()
        return " ".join(["last_token", *kinds]) if "normalize" in kinds else "last_token"

    @property
    def folder(self) -> Path:
        """Folder of the base's files; for a hub model, the snapshot in the hub's cache."""
        return self.base.folder

    def states(self) -> tuple[State, ...]:
        """The present state of its files, to detect changes after loading."""
        own = () if self.adapter is None else (self.adapter.folder,)
        return states((self.folder, *own), self.extra_weights)

    @property
    def extra_weights(self) -> tuple[Path, ...]:
        """Paths of weights in addition to the base's: the adapter's and those of Dense modules.

        For a hub checkpoint the files may not be downloaded yet.
        """
        own = [step.path for step in self.after_pooling if isinstance(step, Dense)]
        places = (self.base,) if self.adapter is None else (self.adapter, self.base)
        dense = [f"{path}/{WEIGHTS}" for path in own]
        found = [next((p for at in places if (p := at.path(file))), None) for file in dense]
        extra = [path or self.folder / file for path, file in zip(found, dense, strict=True)]
        if self.adapter is not None:
            extra += [self.adapter.folder / name for name in (ADAPTER, ADAPTER_WEIGHTS)]
            if (tokenizer := self.adapter.path(TOKENIZER_JSON)) is not None:
                extra.append(tokenizer)
        return tuple(extra)

    def json(self, filename: str, kind: type = dict) -> Any:
        """The contents of a small JSON file, the adapter's or else the base's; None: neither."""
        return _json(self.adapter, self.base, filename, kind)

    def path(self, filename: str) -> Path | None:
        """The path of a file, the adapter's or else the base's; None if neither has it."""
        own = None if self.adapter is None else self.adapter.fetch(filename)
        return own or self.base.fetch(filename)


def _json(adapter: Source | None, base: Source, filename: str, kind: type) -> Any:
    """The contents of a small JSON file, the adapter's or else the base's; None: neither."""
    for files in (adapter, base):
        if files is not None and (data := files.json(filename, kind)) is not None:
            return data
    return None


def describe(name: str, kind: ModelKind, revision: str | None = None) -> Description:
    """Read a checkpoint's own settings.

    Args:
        name: Hub name, local folder, or "tiny" for the bundled pair.
        kind: Its intended use.
        revision: Branch, tag or commit on the hub.

    Raises:
        OSError: If a file cannot be found, downloaded or read.
        ValueError: If the checkpoint is not supported; names the file, the value and the fix.
    """
    try:
        adapter, base, own = _places(name, kind, revision)
        config = base.json("config.json")
        if config is None:
            if reason := foreign_weights(base):
                raise ValueError(reason)
            raise _no_config(base)
        return _Reader(name, kind, base, adapter, config, own).describe()
    except (AttributeError, LookupError, TypeError) as error:
        msg = (
            f"a setting of the {kind} model {name!r} has an unexpected form "
            f"({type(error).__name__}: {error}): download it again"
        )
        raise ValueError(msg) from error
    except OSError as error:
        msg = f"could not load the {kind} model {name!r}: {sentence(error)}\n{what_to_give(kind)}"
        raise OSError(msg) from error


def tokenizer_source(name: str, kind: ModelKind, revision: str | None = None) -> Source:
    """The source of a checkpoint's tokenizer; arguments and errors as in `describe`."""
    adapter, base, _ = _places(name, kind, revision)
    return adapter if adapter is not None and adapter.path(TOKENIZER_JSON) else base


def _places(
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


@dataclass(frozen=True)
class _Reader:
    """Reads the files of one checkpoint."""

    name: str
    kind: ModelKind
    base: Source
    adapter: Source | None
    config: dict[str, Any]
    own: dict[str, Any]
    """The adapter's config."""

    def describe(self) -> Description:
        architecture = self._check_config()
        hidden_size = self.config.get("hidden_size")
        if not is_count(hidden_size):
            self._refuse(
                f"has no valid hidden_size in config.json (got {hidden_size!r})",
                self._advice,
            )
        modules = self._modules()
        settings = self._json(PROMPTS) or {}
        max_length = self._max_length()
        wanted = {"embedding": "SentenceTransformer", "reranker": "CrossEncoder"}[self.kind]
        if (model_type := settings.get("model_type", wanted)) != wanted:
            self._refuse(f"is a {model_type} according to its {PROMPTS}", self._advice)
        if self.kind == "reranker":
            head = self._head(architecture, modules)
            return Description(
                *(self.name, self.kind, self.base, self.adapter),
                *(hidden_size, hidden_size, hidden_size),
                instruction=self._instruction(settings, modules),
                head=head,
                max_length=max_length,
            )
        self._check_modality(modules)
        after = self._after_pooling(modules, hidden_size)
        self._check_similarity(settings, modules, after)
        query, document = self._prompts(settings)
        dense = [step for step in after if isinstance(step, Dense)]
        full = dense[-1].out_features if dense else hidden_size
        return Description(
            *(self.name, self.kind, self.base, self.adapter, hidden_size),
            full,
            min(full, self._truncation(settings) or full),
            # Without Dense modules, the final normalisation is enough.
            after_pooling=after if dense else (),
            query_prompt=query,
            document_prompt=document,
            max_length=max_length,
        )

    @property
    def _advice(self) -> str:
        return f"use a Qwen3 {self.kind} model such as {PUBLISHED[self.kind]!r}"

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        msg = f"{self.name!r} {what}: {remedy}"
        raise ValueError(msg) from None

    def _json(self, filename: str, kind: type = dict) -> Any:
        """The contents of a JSON file, the adapter's or else the base's."""
        return _json(self.adapter, self.base, filename, kind)

    # --- config.json

    def _check_config(self) -> str:
        """Refuse a config.json that is not of a plain Qwen3 model; returns the architecture."""
        config = self.config
        advice = self._advice
        self._check_quantisation()
        for key, value in config.items():
            # transformers takes null as false.
            both_ways = ("bidirectional" in key and value) or (
                key in ("is_causal", "causal", "use_causal_mask") and not value
            )
            if both_ways:
                self._refuse(
                    f"is a bidirectional model ({key} is {value!r} in its config.json), and only "
                    "causal attention is supported",
                    f"{advice}, or run it with sentence-transformers",
                )
        if code := config.get("auto_map"):
            named = ", ".join(map(str, code.values())) if isinstance(code, dict) else code
            self._refuse(
                "requires custom code (trust_remote_code; auto_map in its config.json: "
                f"{named}), and code that comes with a checkpoint is never run here",
                f"{advice}, or remove auto_map if the model is a plain Qwen3",
            )
        model_type = config.get("model_type")
        if model_type != "qwen3":
            images = " that reads images" if "_vl" in str(model_type) else ""
            self._refuse(
                f"is a {model_type} model{images}, not a Qwen3 one (model_type is {model_type!r} "
                "in its config.json)",
                advice,
            )
        named = config.get("architectures") or [None]
        architecture = named[0] if isinstance(named, list) else named
        if architecture not in ("Qwen3ForCausalLM", "Qwen3Model", "Qwen3ForSequenceClassification"):
            self._refuse(
                f"is a {architecture} (architectures in its config.json), whose head or attention "
                "is not supported",
                advice,
            )
        architecture = str(architecture)
        classifies = architecture == "Qwen3ForSequenceClassification"
        if self.adapter is not None and self.own.get("task_type") == "SEQ_CLS":
            classifies, architecture = True, "Qwen3ForSequenceClassification"
        if self.kind == "embedding" and classifies:
            self._refuse(f"is a reranker or a classifier ({architecture})", advice)
        if self.kind == "reranker" and architecture == "Qwen3Model":
            self._refuse("has no language-model head, whose rows score yes and no", advice)
        return architecture

    def _check_quantisation(self) -> None:
        config = self.config
        method: Any = None
        if isinstance(config.get("quantization"), dict):
            method = "MLX"
        elif found := config.get("quantization_config") or config.get("compression_config"):
            found = found if isinstance(found, dict) else {}
            method = str(found.get("quant_method", "")).upper() or "an unnamed method"
            if found.get("load_in_4bit") or found.get("load_in_8bit"):
                method = "BITSANDBYTES"
        if method is not None:
            # vLLM serves these, except MLX.
            served = "mlx-lm" if method == "MLX" else "vLLM"
            self._refuse(
                f"is quantised with {method} (config.json)",
                "use the original checkpoint (with dtype='int8' to save memory), or serve this one "
                f"with {served} and give its base_url",
            )

    # --- modules.json

    def _modules(self) -> list[tuple[str, str]]:
        """Names and folders of the modules after the transformer; [] without modules.json."""
        data = self._json(MODULES, list)
        if data is None:
            return []
        found = []
        for module in data:
            if not isinstance(module, dict) or not isinstance(module.get("type"), str):
                self._refuse(f"has entries without a type in its {MODULES}", "download it again")
            kind, path = module["type"], str(module.get("path", ""))
            if not kind.startswith("sentence_transformers."):
                self._refuse(
                    f"uses a custom module in {MODULES} ({kind}), and code that comes with a "
                    "checkpoint is never run here",
                    "run it with sentence-transformers",
                )
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                self._refuse(f"refers to a folder outside its own in {MODULES}: {path}", CORRECT)
            found.append((kind.rsplit(".", 1)[-1], path))
        names = [kind for kind, _ in found]
        other = "a reranker" if self.kind == "embedding" else "an embedding model"
        if {"embedding": "LogitScore", "reranker": "Pooling"}[self.kind] in names:
            self._refuse(
                f"is {other} according to its {MODULES} ({', '.join(names)})", self._advice
            )
        if names[:1] != ["Transformer"] or PurePosixPath(found[0][1]).parts:
            self._refuse(
                f"has a {MODULES} that does not begin with a Transformer in the folder itself "
                f"({', '.join(f'{kind} in {path!r}' for kind, path in found[:1])})",
                "load it with sentence-transformers and save it anew",
            )
        if self.kind == "embedding" and len(found) == 1:
            self._refuse(
                f"has no Pooling after the Transformer in its {MODULES}, and so no vector",
                "add a Pooling module there, or delete the file if the model pools the last token",
            )
        return found[1:]

    def _module_config(self, path: str) -> dict[str, Any]:
        filename = f"{path}/config.json" if path else "config.json"
        data = self._json(filename)
        if data is None:
            msg = (
                f"{filename}, which {MODULES} names, is missing or not in the cache; download "
                "the checkpoint again"
            )
            raise FileNotFoundError(msg)
        found: dict[str, Any] = data
        return found

    def _after_pooling(
        self, modules: list[tuple[str, str]], hidden_size: int
    ) -> tuple[Dense | Literal["normalize"], ...]:
        if not modules:
            # Without modules.json nothing refers to this folder, but it is there for a purpose.
            if self._json("1_Pooling/config.json") is not None:
                self._check_pooling("1_Pooling", hidden_size)
            return ()
        names = [kind for kind, _ in modules]
        if names[0] != "Pooling":
            self._refuse(
                f"has a {MODULES} with {names[0]} where Pooling is expected",
                "run it with sentence-transformers",
            )
        self._check_pooling(modules[0][1], hidden_size)
        after: list[Dense | Literal["normalize"]] = []
        length = hidden_size
        for kind, path in modules[1:]:
            if kind == "Normalize":
                after.append("normalize")
            elif kind == "Dense":
                dense = self._dense(path, length)
                after.append(dense)
                length = dense.out_features
            else:
                self._refuse(
                    f"has a module {kind} after the pooling ({MODULES}); only linear Dense and "
                    "Normalize are supported",
                    "run it with sentence-transformers",
                )
        return tuple(after)

    def _check_pooling(self, path: str, hidden_size: int) -> None:
        file = f"{path}/config.json"
        config = self._module_config(path)
        flags = {
            key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token"): value
            for key, value in config.items()
            if key.startswith("pooling_mode_")
        }
        old = [mode for mode, value in flags.items() if value] or (["mean"] if flags else [])
        new = config.get("pooling_mode")
        new = [new] if isinstance(new, str) else list(new or [])
        if new and flags and any(flags.values()) and new != old:
            self._refuse(
                f"contradicts itself in {file}: pooling_mode is {new}, the flags say {old}",
                "remove the wrong one",
            )
        modes = new or old or ["mean"]
        if modes != ["lasttoken"]:
            self._refuse(
                f"pools by {' and '.join(map(repr, modes))} ({file}), and only the last token's "
                "state is supported",
                f"use a model with last-token pooling such as {PUBLISHED['embedding']!r}, or run "
                "this one with sentence-transformers",
            )
        for key in ("word_embedding_dimension", "embedding_dimension"):
            if config.get(key, hidden_size) != hidden_size:
                self._refuse(
                    f"contradicts itself: {key} is {config[key]!r} in {file}, hidden_size is "
                    f"{hidden_size} in config.json",
                    "the files belong to two models, download it again",
                )

    def _dense(self, path: str, length: int) -> Dense:
        file = f"{path}/config.json"
        config = self._module_config(path)
        activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
        if not str(activation).startswith("torch."):  # sentence-transformers takes Tanh instead
            self._refuse(
                f"has a Dense module with activation_function {activation!r} ({file}), which is "
                "not torch's",
                "run it with sentence-transformers",
            )
        inputs = config.get("module_input_name", "sentence_embedding")
        outputs = config.get("module_output_name") or inputs
        for what, value, plain in (
            ("activation_function", str(activation).rsplit(".", 1)[-1], "Identity"),
            ("use_residual", bool(config.get("use_residual", False)), False),
            ("module_input_name", inputs, "sentence_embedding"),
            ("module_output_name", outputs, "sentence_embedding"),
        ):
            if value != plain:
                self._refuse(
                    f"has a Dense module with {what} {value!r} ({file}); only {plain!r} is "
                    "computed here",
                    "run it with sentence-transformers",
                )
        before, after = config.get("in_features"), config.get("out_features")
        if before != length or not is_count(after):
            self._refuse(
                f"contradicts itself: the Dense module in {file} maps {before!r} dimensions to "
                f"{after!r}, but its input has {length}",
                "the files belong to two models, download it again",
            )
        return Dense(path, length, after, bool(config.get("bias", True)))

    # --- config_sentence_transformers.json, sentence_bert_config.json, tokenizer_config.json

    def _prompts(self, settings: dict[str, Any]) -> tuple[str | None, str]:
        """The prompts before queries (None: the published prompt template) and before documents."""
        if self._json(PROMPTS) is None:
            return None, ""
        prompts = settings.get("prompts") or {}
        if not isinstance(prompts, dict) or not all(
            isinstance(text, str | None) for text in prompts.values()
        ):
            self._refuse(f"has prompts in {PROMPTS} that are not texts", CORRECT)
        default = settings.get("default_prompt_name")
        if default is not None and default not in {"query", "document", *prompts}:
            self._refuse_default_prompt(default)
        query, document = prompts.get("query") or "", prompts.get("document") or ""
        unused = [name for name in ("passage", "corpus") if prompts.get(name)]
        if unused and not document:
            logger.warning(
                "%s has a prompt %r in %s, which sentence-transformers' encode_document does not "
                "use; it is ignored here too. Name it 'document' to put it before documents",
                self.name,
                unused[0],
                PROMPTS,
            )
        return None if query == PUBLISHED_PROMPT else query, document

    def _refuse_default_prompt(self, name: object) -> NoReturn:
        self._refuse(
            f"contradicts itself: default_prompt_name is {name!r} in {PROMPTS}, which has no such "
            "prompt",
            CORRECT,
        )

    def _truncation(self, settings: dict[str, Any]) -> int | None:
        """The checkpoint's own length of vectors; None if it does not truncate them."""
        length = settings.get("truncate_dim")
        if length is not None and not is_count(length, MIN_DIMENSIONS):
            self._refuse(
                f"truncates vectors to truncate_dim={length!r} ({PROMPTS}), which is not an "
                f"integer from {MIN_DIMENSIONS} on",
                CORRECT,
            )
        return length

    def _check_similarity(
        self,
        settings: dict[str, Any],
        modules: list[tuple[str, str]],
        after: tuple[Dense | Literal["normalize"], ...],
    ) -> None:
        similarity = settings.get("similarity_fn_name") or "cosine"
        normalised = not modules or after[-1:] == ("normalize",)
        if similarity == "cosine" or (similarity in ("dot", "dot_product") and normalised):
            return
        reason = "" if normalised else f", and its {MODULES} does not end in Normalize"
        self._refuse(
            f"compares vectors by {similarity!r} (similarity_fn_name in {PROMPTS}){reason}; "
            "vectors have length 1 here, for which only the cosine is supported",
            "run it with sentence-transformers",
        )

    def _check_modality(self, modules: list[tuple[str, str]]) -> None:
        """Refuse an embedding model whose texts sentence-transformers renders as chat messages."""
        modalities = self._transformer()[1].get("modality_config") or {}
        if modules and "message" in modalities and self._template() is not None:
            self._refuse(
                f"renders texts through its chat template ({TRANSFORMER}: modality_config has "
                "'message'), which is not supported",
                "run it with sentence-transformers, or delete 'message' there if the model was "
                "trained on plain texts",
            )

    def _transformer(self) -> tuple[str, dict[str, Any]]:
        """The settings of sentence-transformers' Transformer module, and the name of their file."""
        for file in (TRANSFORMER, *OLD_TRANSFORMERS):
            if found := self._json(file):
                return file, found
        return TRANSFORMER, {}

    def _check_transformer(self, file: str, config: dict[str, Any]) -> None:
        """Refuse settings of the Transformer module that would change results."""
        remedy = "run it with sentence-transformers"
        for key, value in config.items():
            used = any(value.values()) if isinstance(value, dict) else value
            if key not in _TRANSFORMER_KEYS and used:
                self._refuse(
                    f"prepares texts with {key}={value!r} ({file}), {_UNSUPPORTED}", remedy
                )
        for name in _KWARGS:
            given = config.get(name) or {}
            if not isinstance(given, dict):
                self._refuse(f"has {name}={given!r} in {file}, which is not an object", CORRECT)
            for key, value in given.items():
                if key not in _HARMLESS and key != "model_max_length":
                    self._refuse(
                        f"passes {key}={value!r} to transformers ({name} in {file}), "
                        f"{_UNSUPPORTED}",
                        remedy,
                    )
        task, outputs, output = _TASKS[self.kind]
        if (found := config.get("transformer_task") or task[0]) not in task:
            self._refuse(f"has the transformer_task {found!r} ({file})", self._advice)
        if modalities := config.get("modality_config"):
            text = modalities.get("text") if isinstance(modalities, dict) else None
            plain = {"method": "forward", "method_output_name": outputs}
            if not isinstance(text, dict) or text | plain != text:
                self._refuse(
                    f"has modality_config['text'] = {text!r} in {file}; only {plain} is supported",
                    remedy,
                )
            if (found := config.get("module_output_name")) not in output:
                self._refuse(
                    f"has module_output_name={found!r} in {file}; only {output[0]!r} is supported",
                    remedy,
                )

    def _max_length(self) -> int | None:
        """The checkpoint's own token limit; also checks how its texts are prepared."""
        file, config = self._transformer()
        self._check_transformer(file, config)
        tokenizer = self._json(TOKENIZER) or {}
        for key, plain in (("truncation_side", "right"), ("add_prefix_space", False)):
            if (found := tokenizer.get(key) or plain) != plain:
                self._refuse(
                    f"prepares texts with {key}={found!r} ({TOKENIZER}), {_UNSUPPORTED}",
                    "run it with sentence-transformers",
                )
        own = config.get("processor_kwargs") or config.get("tokenizer_args") or {}
        said = {
            f"model_max_length in {file}": own.get("model_max_length"),
            f"max_seq_length in {file}": config.get("max_seq_length"),
            f"model_max_length in {TOKENIZER}": tokenizer.get("model_max_length"),
            f"max_len in {TOKENIZER}": tokenizer.get("max_len"),
        }
        where, limit = next(((k, v) for k, v in said.items() if v is not None), ("", None))
        if limit is None:
            return None
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
            self._refuse(f"has an invalid token limit, {limit!r} ({where})", CORRECT)
        positions = self.config.get("max_position_embeddings")
        return None if not is_count(positions) or limit >= positions else int(limit)

    # --- a reranker's head and prompt template

    def _head(self, architecture: str, modules: list[tuple[str, str]]) -> Head:
        if architecture == "Qwen3ForSequenceClassification":
            if modules:
                self._refuse(
                    f"has a module {modules[0][0]} after its classifier ({MODULES})",
                    "run it with sentence-transformers",
                )
            return self._classifier()
        if not modules:
            if self._json(MODULES, list) is not None:
                self._refuse(
                    f"has no LogitScore after the Transformer in its {MODULES}, and so no score",
                    "add a LogitScore module there, or delete the file if it scores yes and no",
                )
            return Head()
        names = [kind for kind, _ in modules]
        if names != ["LogitScore"]:
            self._refuse(
                f"has modules after the transformer ({MODULES}: {', '.join(names)}) where only "
                "LogitScore is supported",
                "run it with sentence-transformers",
            )
        file = f"{modules[0][1]}/config.json"
        config = self._module_config(modules[0][1])
        if (taken := config.get("module_input_name", "causal_logits")) != "causal_logits":
            self._refuse(
                f"has a LogitScore whose input is {taken!r} ({file}); only causal_logits is "
                "supported",
                CORRECT,
            )
        true: Any
        false: Any
        true, false = config.get("true_token_id"), config.get("false_token_id")
        rows = (true,) if false is None else (true, false)
        vocabulary = self.config.get("vocab_size", 0)
        if not all(is_count(row, 0) and row < vocabulary for row in rows) or true == false:
            self._refuse(
                f"scores by the tokens {true!r} and {false!r} ({file}), which are not two ids "
                f"below vocab_size={vocabulary}",
                "download it again",
            )
        return Head("lm_head", rows)

    def _classifier(self) -> Head:
        """The head of a model converted to sequence classification, from its labels."""
        labels = self.config.get("id2label")
        said = self.config.get("num_labels")
        if self.adapter is not None and (trained := trained_labels(self.adapter)) is not None:
            labels, said = None, trained
        if isinstance(labels, dict) and said is not None and said != len(labels):
            self._refuse(
                f"contradicts itself in config.json: num_labels is {said!r}, id2label has "
                f"{len(labels)}",
                "remove the wrong one",
            )
        count = said if said is not None else len(labels) if isinstance(labels, dict) else 2
        if count == 1:
            only = next(iter(labels.values()), None) if isinstance(labels, dict) else None
            if isinstance(only, str) and only.casefold() in _NO - {"0"}:
                self._refuse(
                    f"has one label, {only!r} (id2label in config.json), which does not mean "
                    "relevant",
                    "name it 'yes' there if it does",
                )
            return Head("score", (0,))
        if count != 2:
            self._refuse(
                f"is a classifier with {count!r} labels (id2label in config.json), and a reranker "
                "has one or two",
                self._advice,
            )
        kind = self.config.get("problem_type")
        if kind not in (None, "single_label_classification"):
            self._refuse(
                f"has two labels and problem_type={kind!r} (config.json), so that the difference "
                "of their logits is not the log-odds",
                "run it with transformers",
            )
        if not isinstance(labels, dict):
            return Head("score", (1, 0))
        first, second = (str(labels.get(str(i), "")).casefold() for i in (0, 1))
        plain = (first, second) == ("label_0", "label_1") or (first in _NO and second in _YES)
        if not plain and not (first in _YES and second in _NO):
            self._refuse(
                "has labels that do not say which one means relevant (id2label in "
                f"config.json: {labels})",
                "name them 'no' and 'yes' there",
            )
        return Head("score", (1, 0) if plain else (0, 1))

    def _instruction(self, settings: dict[str, Any], modules: list[tuple[str, str]]) -> str | None:
        """The default instruction, for a model with the published prompt template."""
        own = self.config.get("sentence_transformers")
        for file, value in (
            (PROMPTS, settings.get("activation_fn")),
            ("config.json", own.get("activation_fn") if isinstance(own, dict) else None),
            ("config.json", self.config.get("sbert_ce_default_activation_function")),
        ):
            activation = str(value or "").rsplit(".", 1)[-1]
            if activation not in ("", "Sigmoid", "Identity", "Softmax"):
                self._refuse(
                    f"has activation_fn {activation!r} ({file}); scores are log-odds and their "
                    "sigmoid here",
                    "run it with sentence-transformers",
                )
        modality = self._transformer()[1].get("modality_config") or {}
        if self._json(MODULES, list) is not None and "message" not in modality:
            self._refuse(
                f"is a sentence-transformers reranker that reads query and document without a "
                f"prompt (no 'message' in modality_config of {TRANSFORMER})",
                "run it with sentence-transformers",
            )
        template = self._template()
        try:
            found = None if template is None else instruction_in(template)
        except ForeignTemplateError as error:
            self._refuse(
                f"has another prompt template than the published rerankers: {error} "
                f"({TEMPLATE}, or "
                f"chat_template in {TOKENIZER})",
                "run it with sentence-transformers, or serve it with vLLM under its own template "
                "and give its base_url",
            )
        if found is not None and not found.strip():
            self._refuse(
                f"has a chat template without a default instruction ({TEMPLATE})",
                "write one there",
            )
        if found is None and modules:
            file = f"{modules[0][1]}/config.json"
            self._refuse(
                f"is a sentence-transformers reranker ({file}) without a chat template that "
                "takes a query and a document, so its prompt is not the published one",
                "run it with sentence-transformers",
            )
        if found is None and own is not None:
            logger.warning(
                "%s was saved by sentence-transformers (config.json) without a chat template; it "
                "is given the published prompt. If it was trained on bare pairs of query and "
                "document, run it with sentence-transformers",
                self.name,
            )
        prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
        if default is not None:
            if not isinstance(prompts, dict) or not isinstance(prompts.get(default), str):
                self._refuse_default_prompt(default)
            found = str(prompts[default]) or found
        if control := next((t for t in CONTROL_TOKENS if t in (found or "")), None):
            self._refuse(
                f"has the control token {control} in its default instruction ({PROMPTS} or its "
                f"chat template), {_UNSUPPORTED}",
                "run it with sentence-transformers",
            )
        return None if found == TASKS["web_search"] else found

    def _template(self) -> str | None:
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


def trained_labels(adapter: Source) -> int | None:
    """Number of rows of an adapter's own score head; None if it has none."""
    from safetensors import SafetensorError, safe_open

    path = adapter.fetch(ADAPTER_WEIGHTS)
    if path is None:
        return None
    try:
        with safe_open(path, "np") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                if name.endswith("score.weight"):
                    return int(opened.get_slice(name).get_shape()[0])
    except SafetensorError as error:
        msg = f"{path} is damaged ({error}): download it again"
        raise OSError(msg) from error
    return None


_UNSUPPORTED = "which is not supported"

_KWARGS = tuple(
    f"{what}_{how}"
    for what in ("model", "config", "processor", "tokenizer")
    for how in ("kwargs", "args")
)
"""Settings of the Transformer module that sentence-transformers passes to transformers."""

_HARMLESS = {
    *("attn_implementation", "cache_dir", "device_map", "dtype", "local_files_only"),
    *(
        "low_cpu_mem_usage",
        "padding_side",
        "token",
        "torch_dtype",
        "trust_remote_code",
        "use_cache",
    ),
    *("use_fast", "use_safetensors"),
}
"""Arguments of transformers that do not change results."""

_TRANSFORMER_KEYS = {
    *("max_seq_length", "unpad_inputs", "transformer_task", "modality_config"),
    *("module_output_name", *_KWARGS),
}
"""Settings of the Transformer module that are applied, or checked one by one."""

_TASKS = {
    "embedding": (("feature-extraction",), "last_hidden_state", ("token_embeddings",)),
    "reranker": (
        ("text-generation", "sequence-classification"),
        "logits",
        ("causal_logits", "scores"),
    ),
}
"""For each kind: tasks, transformers' output and names of it in the Transformer module."""

_YES = {"yes", "relevant", "true", "positive", "1"}
_NO = {"no", "irrelevant", "not relevant", "not_relevant", "false", "negative", "0"}
