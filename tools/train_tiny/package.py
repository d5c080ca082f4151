"""Write a checkpoint folder that transformers and sentence-transformers load as it is."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from .frames import CONTROL_TOKENS, DEFAULT_TASK, query_prefix, rerank_chat_template

Kind = Literal["embedding", "reranker"]


def write_sidecars(folder: Path, kind: Kind, hidden_size: int, max_length: int) -> None:
    """Add tokenizer settings and sentence-transformers modules beside config, weights and tokenizer.

    Args:
        folder: Holds ``tokenizer.json``, ``config.json`` and ``model.safetensors``.
        kind: Which of the two models it is.
        hidden_size: Width of the last hidden state.
        max_length: Longest input in tokens.
    """
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    if missing := CONTROL_TOKENS.keys() - ids.keys():
        msg = f"{folder / 'tokenizer.json'} lacks the added tokens {sorted(missing)}: train it again"
        raise ValueError(msg)
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokens, kind, max_length))
    if kind == "embedding":
        _write_embedding_modules(folder, hidden_size)
    else:
        (folder / "chat_template.jinja").write_text(rerank_chat_template())
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy weights, configuration and tokenizer, replacing what the target holds."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(source / name, target / name)


def _tokenizer_config(tokens: list[dict[str, Any]], kind: Kind, max_length: int) -> dict[str, Any]:
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tokens}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>" if kind == "embedding" else "<|im_end|>",
        "errors": "replace",
        "model_max_length": max_length,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _write_embedding_modules(folder: Path, hidden_size: int) -> None:
    st = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{st}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{st}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{st}.Normalize"},
    ]
    pooling = {
        "word_embedding_dimension": hidden_size,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    settings = {
        "prompts": {"query": query_prefix(DEFAULT_TASK), "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir(exist_ok=True)
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "2_Normalize" / "config.json", {})
    _write(folder / "config_sentence_transformers.json", settings)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
