"""A checkpoint that is not what it should be is refused with advice."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3Model

from qwen3_core import Embedder, Reranker
from qwen3_core.model.buffers import give_back_freed
from qwen3_core.model.loading import load, resolve_device, resolve_dtype, vector_length
from qwen3_core.model.probe import Probe, probe_sequences
from tests.conftest import TINY, naming
from tests.core.test_int8 import needs_int8
from tests.core.test_linear import megabytes


@pytest.fixture
def embedding(tmp_path):
    """A copy of the bundled embedding model that a test may damage."""
    return shutil.copytree(TINY / "embedding", tmp_path / "embedding")


@pytest.fixture
def reranker(tmp_path):
    """A copy of the bundled reranker that a test may damage."""
    return shutil.copytree(TINY / "reranker", tmp_path / "reranker")


def edit(folder, file="config.json", **changes):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


def edit_weight(folder, name, change):
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith(name))
    change(weights, name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_folder():
    with pytest.raises(OSError, match=naming("embedding", "'./nowhere'", "'tiny'")):
        load("./nowhere", "embedding")


def test_name_that_can_be_on_no_hub():
    with pytest.raises(OSError, match=naming("'tinny'", "did you mean 'tiny'?")):
        load("tinny", "embedding")


def test_folder_without_a_model(tmp_path):
    # The lines after the first name config.json in any case.
    with pytest.raises(OSError, match=rf"{tmp_path}.*config\.json.*\n(?s:.*)'tiny'"):
        load(tmp_path, "embedding")


def test_name_that_no_hub_has(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=naming("'Qwen/No-Such-Model'", "'tiny'")):
        load("Qwen/No-Such-Model", "reranker")


def test_another_architecture(embedding):
    edit(embedding, model_type="bert", architectures=["BertModel"])
    with pytest.raises(
        ValueError, match=naming("'bert'", "model_type", "config.json", "Qwen/Qwen3-Embedding-0.6B")
    ):
        load(embedding, "embedding")


def test_a_classifier_without_its_head(reranker):
    edit(reranker, architectures=["Qwen3ForSequenceClassification"])
    with pytest.raises(ValueError, match=r"lacks 1 weights \(first: score.weight\)"):
        load(reranker, "reranker")


def test_embedding_model_as_reranker(embedding):
    with pytest.raises(ValueError, match="no language-model head"):
        load(embedding, "reranker")
    # The published embedding checkpoints name the causal class; modules.json tells.
    edit(embedding, architectures=["Qwen3ForCausalLM"])
    with pytest.raises(
        ValueError,
        match=naming("modules.json", "Pooling", "Qwen/Qwen3-Reranker-0.6B"),
    ):
        load(embedding, "reranker")


def test_reranker_as_embedding_model(reranker):
    with pytest.raises(
        ValueError, match=naming("<|endoftext|>", "tokenizer.json", "Qwen/Qwen3-Embedding-0.6B")
    ):
        load(reranker, "embedding")


def test_weights_that_are_not_finite(reranker):
    def change(weights, name):
        weights[name][0, 0] = float("inf")

    edit_weight(reranker, "layers.1.mlp.up_proj.weight", change)
    with pytest.raises(
        ValueError, match=naming(str(reranker), "layers.1.mlp.up_proj.weight", "NaN", "download")
    ):
        load(reranker, "reranker")


def test_weights_that_are_missing(reranker):
    edit_weight(reranker, "layers.1.mlp.up_proj.weight", lambda weights, name: weights.pop(name))
    with pytest.raises(
        ValueError, match=naming("1 weights", "layers.1.mlp.up_proj.weight", "Download")
    ):
        load(reranker, "reranker")


def test_truncated_weights_file(reranker):
    path = reranker / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(
        OSError, match=naming("reranker model", str(reranker / "model.safetensors"), "download it")
    ):
        load(reranker, "reranker")


def test_missing_shard(random_checkpoints, tmp_path):
    folder = shutil.copytree(random_checkpoints["untied"], tmp_path / "sharded")
    shards = sorted(folder.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    shards[-1].unlink()
    with pytest.raises(
        OSError, match=naming("reranker model", str(folder), shards[-1].name, "download the rest")
    ):
        load(folder, "reranker")


def test_pickle_checkpoint_is_refused(reranker):
    torch.save(load_file(reranker / "model.safetensors"), reranker / "pytorch_model.bin")
    (reranker / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"\*\.safetensors"):
        load(reranker, "reranker")


def test_broken_tokenizer_file(reranker):
    (reranker / "tokenizer.json").write_text("{")
    with pytest.raises(OSError, match="is not valid JSON"):
        load(reranker, "reranker")


def test_remote_code_is_not_run(reranker, tmp_path):
    ran = tmp_path / "ran"
    (reranker / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\n")
    edit(reranker, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Config"})
    with pytest.raises(
        ValueError,
        match=naming("auto_map", "evil.Config", "Qwen/Qwen3-Reranker-0.6B", "remove auto_map"),
    ):
        load(reranker, "reranker")
    assert not ran.exists()


def test_device_that_is_not_there():
    with pytest.raises(ValueError, match=naming("'cuda:99'", "'cpu'", "'auto'")):
        resolve_device("cuda:99")


def test_float16_is_refused_for_the_largest_models():
    with pytest.raises(ValueError, match=naming("float16", "'bfloat16'", "'float32'")):
        resolve_dtype("float16", "cpu", 4096)
    assert resolve_dtype("float16", "cpu", 1024) is torch.float16


def test_dtype_is_what_was_asked_for():
    assert Embedder("tiny", dtype="float32").engine.encoder.model.dtype is torch.float32
    assert Embedder("tiny", dtype="bfloat16").engine.encoder.model.dtype is torch.bfloat16


def test_weights_in_integers_are_refused(reranker):
    def change(weights, name):
        weights[name] = weights[name].to(torch.int8)

    edit_weight(reranker, "layers.1.mlp.up_proj.weight", change)
    with pytest.raises(
        ValueError, match=naming("layers.1.mlp.up_proj.weight", "I8", "BF16", "dtype='int8'")
    ):
        load(reranker, "reranker")


def test_weights_under_two_names_are_refused(reranker):
    def change(weights, name):
        weights[name.removeprefix("model.")] = weights[name].clone()

    edit_weight(reranker, "layers.1.mlp.up_proj.weight", change)
    with pytest.raises(
        ValueError, match=naming("layers.1.mlp.up_proj.weight", "twice", "'model.'")
    ):
        load(reranker, "reranker")


def test_weights_that_a_dtype_does_not_hold_are_refused(reranker):
    def change(weights, name):
        weights[name][0, 0] = 1e30

    edit_weight(reranker, "layers.1.mlp.up_proj.weight", change)
    with pytest.raises(ValueError, match=naming("layers.1.mlp.up_proj.weight", "NaN", "download")):
        load(reranker, "reranker", dtype="float16")


def test_a_head_of_its_own_counts_in_a_model_that_says_it_has_none(random_checkpoints, tmp_path):
    """As in transformers, which ties the two only where the file does not have the head."""
    folder = shutil.copytree(random_checkpoints["untied"], tmp_path / "tied")
    expected = load(folder, "reranker").head
    edit(folder, tie_word_embeddings=True)
    np.testing.assert_array_equal(load(folder, "reranker").head, expected)


def test_several_files_on_the_hub(random_checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit, repo = "c0ffee" * 6 + "c0ff", tmp_path / "models--acme--Reranker"
    folder = shutil.copytree(random_checkpoints["untied"], repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    found = load("acme/Reranker", "reranker")
    assert found.folder == folder
    np.testing.assert_array_equal(found.head, load(folder, "reranker").head)
    next(folder.glob("*-of-*.safetensors")).unlink()
    # The cause is named by whichever library misses the file first, which depends on the release.
    with pytest.raises(OSError, match=naming("reranker model", "'acme/Reranker'")):
        load("acme/Reranker", "reranker")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An embedding model of 12 layers and 80 MiB, in two files."""
    folder = tmp_path_factory.mktemp("wide")
    config = Qwen3Config(
        vocab_size=20_000,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3Model(config).bfloat16()
    model.save_pretrained(folder, max_shard_size="50MB")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / "embedding" / file, folder)
    return folder, sum(p.nbytes for p in model.parameters()) / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is held")
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("int8", marks=needs_int8)])
def test_loading_takes_the_models_own_memory(wide, dtype):
    folder, size = wide
    load(TINY / "embedding", "embedding", dtype=dtype)  # what the first one loads
    give_back_freed()
    before = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    held = load(folder, "embedding", dtype=dtype)
    table, layer = 20_000 * 512 * 2 / 2**20, 6.0
    final = size if dtype == "bfloat16" else table + (size - table) / 2
    # At most a layer in its stored dtype and one in the making; the third is the allocator's.
    assert megabytes("VmHWM") - before < 1.1 * final + 3 * layer
    assert megabytes("VmRSS") - before < 1.1 * final + layer
    del held


def test_a_probe_is_the_models_own_forward_pass(random_checkpoints):
    folder = random_checkpoints["embedding"]
    tokenizer = load(folder, "embedding").tokenizer
    model = Qwen3Model.from_pretrained(folder, dtype=torch.float32).eval()
    sequences = probe_sequences(tokenizer, "embedding", 1024)
    probe = Probe(model, sequences)
    for layer in model.layers:
        probe.run(layer)
    with torch.inference_mode():
        exact = [model(torch.tensor([s.ids])).last_hidden_state[0, -1] for s in sequences]
    torch.testing.assert_close(probe.final(), torch.stack(exact), rtol=0, atol=1e-5)


def test_head_is_the_difference_of_two_rows(random_checkpoints):
    weights: dict[str, torch.Tensor] = {}
    for shard in random_checkpoints["untied"].glob("*.safetensors"):
        weights |= load_file(shard)
    loaded = load(random_checkpoints["untied"], "reranker", dtype="float32")
    yes, no = loaded.tokenizer.word_id("yes"), loaded.tokenizer.word_id("no")
    rows = weights["lm_head.weight"]
    torch.testing.assert_close(torch.from_numpy(loaded.head), rows[yes] - rows[no])


def test_revision_reaches_the_hub(monkeypatch):
    asked = {}

    def snapshot_download(name, **kwargs):
        asked.update(kwargs)
        raise OSError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(OSError, match="not here"):
        Reranker("Qwen/Qwen3-Reranker-0.6B", revision="e61197ed").rerank(["document"], "query")
    assert asked["revision"] == "e61197ed"


def test_the_vectors_length_is_read_without_the_weights(tmp_path):
    assert vector_length("tiny") == 256
    config = tmp_path / "config.json"
    config.write_bytes((TINY / "embedding" / "config.json").read_bytes())
    assert vector_length(tmp_path) == 256


@pytest.mark.parametrize("length", [None, "256", 0, True])
def test_a_config_that_says_no_length_is_refused(embedding, length):
    edit(embedding, hidden_size=length)
    with pytest.raises(
        ValueError,
        match=naming("hidden_size", "config.json", f"got {length!r}", "Qwen/Qwen3-Embedding-0.6B"),
    ):
        vector_length(embedding)


def test_a_model_without_a_config_is_named(tmp_path):
    with pytest.raises(OSError, match=rf"{tmp_path}.*config\.json.*\n(?s:.*)'tiny'"):
        vector_length(tmp_path)
