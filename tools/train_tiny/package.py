"""Write a checkpoint folder that transformers and sentence-transformers load as it is."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from .frames import CONTROL_TOKENS, DEFAULT_TASK, query_prefix, rerank_chat_template
from .model import EPS, MAX_POSITIONS, ROPE_THETA
from .texts import Encoder
from .vocabulary import with_end_of_text
from .workspace import Workspace

ModelKind = Literal["embedding", "reranker"]


def write_sidecars(folder: Path, kind: ModelKind, hidden_size: int, max_length: int) -> None:
    """Add tokenizer settings and sentence-transformers modules to a checkpoint folder.

    Args:
        folder: Holds ``tokenizer.json``, ``config.json`` and ``model.safetensors``.
        kind: Which of the two models it is.
        hidden_size: Width of the last hidden state.
        max_length: Longest input in tokens.
    """
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    if missing := CONTROL_TOKENS.keys() - ids.keys():
        msg = (
            f"{folder / 'tokenizer.json'} lacks the added tokens {sorted(missing)}: train it again"
        )
        raise ValueError(msg)
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokens, kind, max_length))
    if kind == "embedding":
        _write_embedding_modules(folder, hidden_size)
    else:
        (folder / "chat_template.jinja").write_text(rerank_chat_template())
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def export(workspace: Workspace, out: Path) -> None:
    """Write both trained models in bfloat16 to ``out/embedding`` and ``out/reranker``."""
    checkpoints: tuple[tuple[ModelKind, str], ...] = (
        ("embedding", "embedding-context"),
        ("reranker", "reranker"),
    )
    for kind, name in checkpoints:
        state = workspace.load(name)
        if state is None:
            msg = f"{workspace.root / name}.pt is missing: run the {kind} stage first"
            raise FileNotFoundError(msg)
        export_model(state["model"], kind, workspace, out / kind)


def export_model(
    weights: dict[str, torch.Tensor], kind: ModelKind, workspace: Workspace, folder: Path
) -> None:
    """Replace ``folder`` by one model: weights, configuration, tokenizer and sidecars."""
    encoder = Encoder(workspace.tokenizer)
    vocabulary, hidden = weights["embed_tokens.weight"].shape
    width = weights["layers.0.self_attn.q_norm.weight"].shape[0]
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=weights["layers.0.mlp.up_proj.weight"].shape[0],
        num_hidden_layers=1 + max(int(k.split(".")[1]) for k in weights if "layers" in k),
        num_attention_heads=weights["layers.0.self_attn.q_proj.weight"].shape[0] // width,
        num_key_value_heads=weights["layers.0.self_attn.k_proj.weight"].shape[0] // width,
        head_dim=width,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        rms_norm_eps=EPS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=encoder.end,
        pad_token_id=encoder.end,
    )
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "embedding":
        bare = Qwen3Model(config)
        bare.load_state_dict(weights)
        bare.bfloat16().save_pretrained(folder)
        with_end_of_text(workspace.tokenizer).save(str(folder / "tokenizer.json"))
    else:
        causal = Qwen3ForCausalLM(config)
        causal.model.load_state_dict(weights)
        causal.bfloat16().save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        workspace.tokenizer.save(str(folder / "tokenizer.json"))
    write_sidecars(folder, kind, hidden, MAX_POSITIONS)


def _tokenizer_config(
    tokens: list[dict[str, Any]], kind: ModelKind, max_length: int
) -> dict[str, Any]:
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
