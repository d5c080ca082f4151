#!/usr/bin/env python3
"""Write a Qwen3 embedding or reranking checkpoint as GGUF, the format of llama.cpp.

    python tools/convert_to_gguf.py FOLDER FILE.gguf [--no-eos] [--no-template] [--q8-0]

Needs the gguf package alone (tools/setup_llama_cpp.py installs it). For the published checkpoints
llama.cpp's convert_hf_to_gguf.py does the same; it refuses the bundled pair, whose vocabulary it
does not know. Weights are written as float32, so that nothing is lost, or as Q8_0.

A folder is an embedding model's if it says how to pool (1_Pooling), else a reranker's.

--no-eos     llama.cpp puts no <|endoftext|> behind a text, as with old conversions
--no-template  llama.cpp joins query and document bare, so that whole prompts can be sent, with an
             instruction (Server(template="client")); otherwise it has the default instruction
--q8-0       matrices in 8 bits, in blocks of 32 with a scale each
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.utility import LocalTensor, SafetensorsLocal

END_OF_TEXT = "<|endoftext|>"
#: The published prompt with the default instruction; llama.cpp replaces what is in braces.
TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that "
    "answer the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
BARE_TEMPLATE = "{query}{document}"


def convert(
    folder: Path, file: Path, *, add_eos: bool = True, template: bool = True, q8_0: bool = False
) -> None:
    """Write one checkpoint.

    Args:
        folder: Has config.json, tokenizer.json and *.safetensors.
        file: The GGUF file to write.
        add_eos: Of an embedding model: llama.cpp puts <|endoftext|> behind each text.
        template: Of a reranker: llama.cpp puts query and document into the published prompt.
        q8_0: Round matrices to 8 bits.

    Raises:
        OSError: If a file is missing.
        ValueError: If the checkpoint is not a Qwen3 model's.
    """
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "qwen3":
        msg = f"{folder} holds a {config['model_type']!r} model, not a 'qwen3' one"
        raise ValueError(msg)
    reranker = not (folder / "1_Pooling").is_dir()
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
    writer.add_name(folder.name)
    file_type = gguf.LlamaFileType.MOSTLY_Q8_0 if q8_0 else gguf.LlamaFileType.ALL_F32
    writer.add_file_type(file_type)
    _add_shape(writer, config)
    vocabulary = _add_tokenizer(writer, folder, config["vocab_size"])
    if reranker:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        chosen = TEMPLATE if template else BARE_TEMPLATE
        writer.add_chat_template([{"name": "rerank", "template": chosen}])
    else:
        writer.add_pooling_type(gguf.PoolingType.LAST)
        writer.add_eos_token_id(vocabulary[END_OF_TEXT])
        writer.add_add_eos_token(add_eos)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    # The larger models have their own head; the others use their embeddings as the head.
    head = "embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    for part in sorted(folder.glob("*.safetensors")):
        for name, tensor in SafetensorsLocal(part).tensors.items():
            target = names.get_name(name, try_suffixes=(".weight",))
            if target is None:
                msg = f"{part} has a tensor {name!r}, which no Qwen3 model has"
                raise ValueError(msg)
            weights = _weights(tensor)
            if reranker and name.endswith(head):
                rows = weights[[vocabulary["yes"], vocabulary["no"]]]  # the score is the first's
                writer.add_tensor("cls.output.weight", rows)
            if q8_0 and weights.ndim == 2:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(target, gguf.quants.quantize(weights, kind), raw_dtype=kind)
            else:
                writer.add_tensor(target, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Write the model's shape from config.json."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or config  # transformers 5, and before
    writer.add_rope_freq_base(rope["rope_theta"])


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> dict[str, int]:
    """Vocabulary and merges of tokenizer.json; returns the ids of the tokens."""
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = dict(data["model"]["vocab"])
    kinds = dict.fromkeys(vocabulary.values(), gguf.TokenType.NORMAL)
    for added in data["added_tokens"]:
        vocabulary[added["content"]] = added["id"]
        special = added["special"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
    by_id = {i: token for token, i in vocabulary.items()}
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre("qwen2")  # how text is split before it
    writer.add_token_list([by_id.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([kinds.get(i, gguf.TokenType.UNUSED) for i in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in data["model"]["merges"]])
    return vocabulary


def _weights(tensor: LocalTensor) -> np.ndarray:
    """A tensor's values as float32."""
    kind = gguf.GGMLQuantizationType[tensor.dtype]  # safetensors and GGUF share the names
    raw = tensor.mmap_bytes().reshape(*tensor.shape[:-1], -1)
    values: np.ndarray = gguf.quants.dequantize(raw, kind)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--no-eos", dest="eos", action="store_false")
    parser.add_argument("--no-template", dest="template", action="store_false")
    parser.add_argument("--q8-0", action="store_true")
    given = parser.parse_args()
    options = {"add_eos": given.eos, "template": given.template, "q8_0": given.q8_0}
    convert(given.folder, given.file, **options)


if __name__ == "__main__":
    main()
