"""Memory and time that loading a model takes, in a fresh process.

    python benchmarks/loading.py --shape 4b --dtype int8

writes a checkpoint with random weights in the shape of Qwen3-Embedding-4B, which takes 8 GB of
disk, loads it with `qwen3_core.Embedder`, embeds one text, and deletes it. A text needs its
sequence lengths and no trained weights, so memory and time are those of the published model.

The peak is that of resident memory (VmHWM). It counts the libraries, which take about half a GiB
before anything is loaded, and pages of mapped files, which the system can drop; the peak of
anonymous memory (RssAnon, looked at every 10 ms), which it cannot, stands beside it. The system's
cache of the file counts in neither. On a busy machine the seconds that the cores spent say more
than those that passed. `--checkout FOLDER` measures the code of another checkout.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe

ROOT: Final = Path(__file__).resolve().parent.parent

SHAPES: Final[dict[str, dict[str, Any]]] = {
    "0.6b": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "intermediate_size": 3072,
        "vocab_size": 151_669,
    },
    "4b": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 9728,
        "vocab_size": 151_665,
    },
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 12_288,
        "vocab_size": 151_665,
    },
}
"""Of the published embedding models."""

COMMON: Final[dict[str, Any]] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "dtype": "bfloat16",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000,
    "attention_bias": False,
    "tie_word_embeddings": True,
}

MEASURED = """
    import json, sys, threading, time
    from pathlib import Path

    def of(what):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) / 2**20

    import torch, transformers.models.qwen3.modeling_qwen3
    import qwen3_core
    from qwen3_core.model import encoder

    torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))
    libraries, peak, done = of("VmRSS"), 0.0, threading.Event()

    def watch():
        global peak
        while not done.wait(0.01):
            peak = max(peak, of("RssAnon"))

    threading.Thread(target=watch, daemon=True).start()
    begin, used = time.perf_counter(), time.process_time()
    embedder = qwen3_core.Embedder(sys.argv[1], dtype=sys.argv[2], device="cpu")
    embedder.engine
    loaded, used = time.perf_counter() - begin, time.process_time() - used
    after_load = of("VmHWM"), peak
    begin = time.perf_counter()
    vector = embedder.embed_documents(["How is inserted data stored in Milvus? " * 20])
    answered = time.perf_counter() - begin
    done.set()
    print(json.dumps({
        "code": str(Path(qwen3_core.__file__).parent.parent),
        "libraries, GiB": libraries,
        "peak while loading, GiB": after_load[0],
        "peak while loading, anonymous, GiB": after_load[1],
        "peak with an answer, GiB": of("VmHWM"),
        "resident then, GiB": of("VmRSS"),
        "seconds to load": loaded,
        "seconds of all cores to load": used,
        "seconds to the first answer": answered,
        "finite": bool((vector == vector).all()),
    }))
"""


def write_checkpoint(folder: Path, shape: dict[str, Any], layers: int | None = None) -> int:
    """Write random weights, a layer a file, so that no more than one is in memory.

    Returns:
        Bytes of the weights.
    """
    import torch
    from safetensors.torch import save_file

    shape = shape | ({"num_hidden_layers": layers} if layers else {})
    config = COMMON | shape
    hidden, inner, size = shape["hidden_size"], shape["intermediate_size"], config["head_dim"]
    queries, keys = shape["num_attention_heads"] * size, config["num_key_value_heads"] * size
    maps = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    norms = {
        "input_layernorm": hidden,
        "post_attention_layernorm": hidden,
        "self_attn.q_norm": size,
        "self_attn.k_norm": size,
    }
    random = torch.Generator().manual_seed(0)

    def matrix(*shape: int) -> Any:
        # Narrower for wider inputs, so that states grow alike in all shapes and int8 bears them.
        std = 0.64 / shape[-1] ** 0.5
        return torch.empty(shape, dtype=torch.bfloat16).normal_(std=std, generator=random)

    total, weight_map = 0, {}

    def save(file: str, tensors: dict[str, Any]) -> None:
        nonlocal total
        save_file(tensors, folder / file)
        weight_map.update(dict.fromkeys(tensors, file))
        total += sum(tensor.nbytes for tensor in tensors.values())

    folder.mkdir(parents=True)
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"layers.{layer}."
        tensors = {f"{prefix}{name}.weight": matrix(*of) for name, of in maps.items()}
        for name, length in norms.items():
            tensors[f"{prefix}{name}.weight"] = torch.ones(length, dtype=torch.bfloat16)
        save(f"model-{layer:05}.safetensors", tensors)
    ends = {
        "embed_tokens.weight": matrix(shape["vocab_size"], hidden),
        "norm.weight": torch.ones(hidden, dtype=torch.bfloat16),
    }
    save("model-ends.safetensors", ends)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "qwen3_core" / "tiny" / "embedding" / file, folder)
    return total


def measure(folder: Path, dtype: str, checkout: Path) -> dict[str, Any]:
    """Load and answer once in a process of its own."""
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED), str(folder.resolve()), dtype],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        cwd=checkout,  # which is looked in first
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def main() -> None:
    """Write, measure, print, delete."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "int8"])
    parser.add_argument("--checkout", type=Path, nargs="+", default=[ROOT])
    parser.add_argument("--folder", type=Path, help="where to write, instead of the system's own")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place) / "checkpoint"
        size = write_checkpoint(folder, SHAPES[options.shape], options.layers)
        print(json.dumps(describe(), indent=2))
        print(f"{options.shape}: {size / 2**30:.2f} GiB of weights in bfloat16")
        for dtype in options.dtype:
            for checkout in options.checkout:
                found = measure(folder, dtype, checkout.resolve())
                results.append({"shape": options.shape, "dtype": dtype, "weights": size} | found)
                print(f"\n{dtype}")
                for name, value in found.items():
                    shown = f"{value:.2f}" if isinstance(value, float) else value
                    print(f"  {name:36} {shown}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
