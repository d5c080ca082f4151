"""A pair of checkpoints in the shape of Qwen3-0.6B with random weights, for speed measurements.

    python -m benchmarks.checkpoints FOLDER

writes them to FOLDER/embedding and FOLDER/reranker (2.4 GB), for several measurements.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from qwen3_core.prompts import END_OF_TEXT

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "qwen3_core" / "tiny"
DATA = Path(os.environ.get("QWEN3_TEST_DATA", ROOT.parent / "shared" / "data"))

SHAPE: dict[str, Any] = {
    "vocab_size": 151669,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
"""Shape of Qwen3-Embedding-0.6B and Qwen3-Reranker-0.6B (their config.json)."""


def random_pair(folder: Path) -> tuple[Path, Path]:
    """Write an embedding model and a reranker with random bfloat16 weights below a folder.

    Returns:
        The folders of the two.

    Raises:
        FileNotFoundError: If the published tokenizer is not available.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    tokenizer = DATA / "qwen3-tokenizer"
    if not (tokenizer / "tokenizer.json").exists():
        msg = (
            f"no tokenizer.json in {tokenizer}; set QWEN3_TEST_DATA to a folder whose "
            "qwen3-tokenizer/ holds the published tokenizer.json and tokenizer_config.json"
        )
        raise FileNotFoundError(msg)
    config = Qwen3Config(**SHAPE)
    found = []
    torch.set_default_dtype(torch.bfloat16)
    for seed, (kind, model) in enumerate(
        (("embedding", Qwen3Model), ("reranker", Qwen3ForCausalLM))
    ):
        torch.manual_seed(seed)
        target = folder / kind
        model(config).save_pretrained(target)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, target / name)
        # The published files have it; transformers 5 does not write it, and 4 reads nothing else.
        settings = json.loads((target / "config.json").read_text(encoding="utf-8"))
        settings["rope_theta"] = SHAPE["rope_theta"]
        (target / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        found.append(target)
    torch.set_default_dtype(torch.float32)
    embedding, reranker = found
    _append_end_of_text(embedding / "tokenizer.json")
    # Beside the weights sentence-transformers reads the same at every size, but for one number.
    for name in ("1_Pooling", "2_Normalize"):
        shutil.copytree(TINY / "embedding" / name, embedding / name)
    for name in ("modules.json", "config_sentence_transformers.json"):
        shutil.copyfile(TINY / "embedding" / name, embedding / name)
    pooling = embedding / "1_Pooling" / "config.json"
    settings = json.loads(pooling.read_text(encoding="utf-8"))
    settings["word_embedding_dimension"] = SHAPE["hidden_size"]
    pooling.write_text(json.dumps(settings), encoding="utf-8")
    name = "chat_template.jinja"
    shutil.copyfile(TINY / "reranker" / name, reranker / name)
    return embedding, reranker


def _append_end_of_text(file: Path) -> None:
    """Make a tokenizer append `<|endoftext|>` to every text, like the embedding model's."""
    data = json.loads(file.read_text(encoding="utf-8"))
    (end,) = (token["id"] for token in data["added_tokens"] if token["content"] == END_OF_TEXT)
    step = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [end], "tokens": [END_OF_TEXT]}},
    }
    steps = [data["post_processor"], step]
    data["post_processor"] = {"type": "Sequence", "processors": steps}
    file.write_text(json.dumps(data), encoding="utf-8")


if __name__ == "__main__":
    random_pair(Path(sys.argv[1]))
