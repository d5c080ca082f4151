"""A checkpoint that is not what it should be is refused with advice."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3_core import Embedder, Reranker
from qwen3_core.model.loading import load, resolve_device, resolve_dtype, vector_length
from tests.conftest import TINY


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
    with pytest.raises(
        OSError, match=r"could not load the embedding model './nowhere': there is no"
    ):
        load("./nowhere", "embedding")


def test_name_that_can_be_on_no_hub():
    with pytest.raises(OSError, match=r"'tinny': there is no such folder; did you mean 'tiny'\?"):
        load("tinny", "embedding")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(OSError, match=r"the folder has no config.json\n(?s:.*)or 'tiny'"):
        load(tmp_path, "embedding")


def test_name_that_no_hub_has(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        OSError, match=r"'Qwen/No-Such-Model'(?s:.*)or 'tiny' for the bundled model"
    ):
        load("Qwen/No-Such-Model", "reranker")


def test_another_architecture(embedding):
    edit(embedding, model_type="bert", architectures=["BertModel"])
    with pytest.raises(ValueError, match="is a bert model, not a Qwen3 one: use a Qwen3 embedding"):
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
        ValueError, match=r"is an embedding model, by its modules.json .*: use a Qwen3 reranker"
    ):
        load(embedding, "reranker")


def test_reranker_as_embedding_model(reranker):
    with pytest.raises(
        ValueError, match=r"puts nothing behind a text, where an embedding model's puts"
    ):
        load(reranker, "embedding")


def test_weights_that_are_not_finite(reranker):
    def change(weights, name):
        weights[name][0, 0] = float("inf")

    edit_weight(reranker, "layers.1.mlp.up_proj.weight", change)
    with pytest.raises(
        ValueError, match=r"weight layers.1.mlp.up_proj.weight of .* NaN or infinity"
    ):
        load(reranker, "reranker")


def test_weights_that_are_missing(reranker):
    edit_weight(reranker, "layers.1.mlp.up_proj.weight", lambda weights, name: weights.pop(name))
    with pytest.raises(ValueError, match=r"lacks 1 weights \(first: .*layers.1.mlp.up_proj.weight"):
        load(reranker, "reranker")


def test_truncated_weights_file(reranker):
    path = reranker / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(OSError, match="could not load the reranker model"):
        load(reranker, "reranker")


def test_missing_shard(random_checkpoints, tmp_path):
    folder = shutil.copytree(random_checkpoints["untied"], tmp_path / "sharded")
    shards = sorted(folder.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    shards[-1].unlink()
    with pytest.raises(OSError, match="could not load the reranker model"):
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
    with pytest.raises(ValueError, match=r"auto_map in its config.json: evil.Config, .*never run"):
        load(reranker, "reranker")
    assert not ran.exists()


def test_device_that_is_not_there():
    with pytest.raises(ValueError, match="device 'cuda:99' is not available here"):
        resolve_device("cuda:99")


def test_float16_is_refused_for_the_largest_models():
    with pytest.raises(ValueError, match="float16 overflows in the 8B models"):
        resolve_dtype("float16", "cpu", 4096)
    assert resolve_dtype("float16", "cpu", 1024) is torch.float16


def test_dtype_is_what_was_asked_for():
    assert Embedder("tiny", dtype="float32").engine.encoder.model.dtype is torch.float32
    assert Embedder("tiny", dtype="bfloat16").engine.encoder.model.dtype is torch.bfloat16


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
    with pytest.raises(ValueError, match=rf"says no hidden_size in its config.json \({length!r}\)"):
        vector_length(embedding)


def test_a_model_without_a_config_is_named(tmp_path):
    with pytest.raises(
        OSError, match=r"could not load the embedding model '.*': the folder has no"
    ):
        vector_length(tmp_path)
