"""Checkpoints that are damaged, mixed up or lie about themselves: refused with a reason, at once.

What is refused before any of that, such as a missing shard, is in `tests/core/test_loading.py`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3_core import Embedder, Reranker
from qwen3_core.model.loading import load
from qwen3_core.settings import ModelKind
from tests.conftest import TINY

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(params=["embedding", "reranker"])
def kind(request: pytest.FixtureRequest) -> ModelKind:
    """Each kind in turn."""
    name: ModelKind = request.param
    return name


@pytest.fixture
def folder(kind: ModelKind, tmp_path: Path) -> Path:
    """A copy of the bundled model of this kind that a test may damage."""
    return shutil.copytree(TINY / kind, tmp_path / kind)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder: Path, kind: ModelKind) -> str:
    """What loading says: a refusal that names the folder or its file, and nothing else."""
    with pytest.raises((ValueError, OSError)) as caught:
        load(folder, kind)
    said = str(caught.value)
    assert str(folder) in said
    return said


@pytest.mark.parametrize(
    "lie",
    [
        {"hidden_size": 64},
        {"num_attention_heads": 2},
        {"num_key_value_heads": 1},
        {"head_dim": 8, "num_attention_heads": 32, "num_key_value_heads": 16},
        {"intermediate_size": 64},
        {"vocab_size": 100},
        {"vocab_size": 20_000},
        {"num_hidden_layers": 0},
        {"hidden_size": "large"},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": "many"},
        {"rope_parameters": {"rope_type": "nope"}},
        {"dtype": "nope"},
    ],
    ids=repr,
)
def test_a_config_that_lies(kind: ModelKind, folder: Path, lie: dict[str, Any]):
    edit(folder / "config.json", lambda config: config.update(lie))
    refusal(folder, kind)


@pytest.mark.parametrize("layers", [1, 9])
def test_another_number_of_layers(kind: ModelKind, folder: Path, layers: int):
    def change(config):
        config.update(num_hidden_layers=layers, layer_types=["full_attention"] * layers)

    edit(folder / "config.json", change)
    said = refusal(folder, kind)
    assert ("that its config.json does not describe" if layers == 1 else "lacks") in said


def test_weights_of_another_shape(kind: ModelKind, folder: Path):
    def shorten(weights):
        name = next(key for key in weights if key.endswith("mlp.up_proj.weight"))
        weights[name] = weights[name][:-1].clone()

    edit_weights(folder, shorten)
    assert "not of one checkpoint" in refusal(folder, kind)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("where", ["embed_tokens.weight", "norm.weight"])
def test_a_weight_that_is_not_finite(kind: ModelKind, folder: Path, where: str, value: float):
    def spoil(weights):
        name = max((key for key in weights if key.endswith(where)), key=len)
        weights[name].view(-1)[-1] = value

    edit_weights(folder, spoil)
    assert "holds NaN or infinity" in refusal(folder, kind)


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_a_head_of_its_own_that_is_not_finite(random_checkpoints, tmp_path: Path, value: float):
    """The head is no parameter of the model that runs, so looking at that one misses it."""
    folder = shutil.copytree(random_checkpoints["untied"], tmp_path / "untied")
    yes = load(folder, "reranker").tokenizer.word_id("yes")
    for shard in folder.glob("*.safetensors"):
        weights = load_file(shard)
        if "lm_head.weight" in weights:
            weights["lm_head.weight"][yes, 3] = value
            save_file(weights, shard, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"weight lm_head\.weight of .* holds NaN or infinity"):
        Reranker(folder).score(["a document"], "a query")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"added_tokens": "none"}', '{"added_tokens": []}', "\x00"],
    ids=repr,
)
def test_a_tokenizer_file_that_is_none(kind: ModelKind, folder: Path, text: str):
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises((ValueError, OSError), match="tokenizer"):
        load(folder, kind)


def test_a_tokenizer_file_that_is_no_text(kind: ModelKind, folder: Path):
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    assert "is not valid JSON" in refusal(folder, kind)


def test_a_tokenizer_of_another_kind(kind: ModelKind, folder: Path):
    edit(folder / "tokenizer.json", lambda data: data["model"].update(type="Nope"))
    assert "is not a Qwen3 model's tokenizer" in refusal(folder, kind)


def test_a_tokenizer_of_a_larger_model(kind: ModelKind, folder: Path):
    """Its ids would be looked up behind the end of the table."""

    def enlarge(data):
        for token in data["added_tokens"]:
            token["id"] += 100_000

    edit(folder / "tokenizer.json", enlarge)
    assert "tokenizer.json belongs to another model" in refusal(folder, kind)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_list_of_modules_that_is_none(kind: ModelKind, folder: Path, text: str):
    (folder / "modules.json").write_text(text)
    refusal(folder, kind)


@pytest.mark.parametrize("size", [0, 7, 8, 1000, -1])
def test_a_truncated_file_of_weights(kind: ModelKind, folder: Path, size: int):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refusal(folder, kind)


def test_a_header_that_promises_four_exabytes(kind: ModelKind, folder: Path):
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    refusal(folder, kind)


def test_a_model_that_overflows_is_an_error_and_not_an_answer(kind: ModelKind, folder: Path):
    """Weights that are finite and states that are not."""

    def blow_up(weights):
        for name, weight in weights.items():
            if name.endswith("norm.weight"):
                weight.fill_(3e38)

    edit_weights(folder, blow_up)

    def ask() -> object:
        if kind == "embedding":
            return Embedder(folder).embed_documents(["a text"])
        return Reranker(folder).score(["a document"], "a query")

    with pytest.raises(FloatingPointError, match=r"NaN or infinity for input \d"):
        ask()


def test_after_a_refusal_the_mended_folder_loads(kind: ModelKind, folder: Path):
    config = (folder / "config.json").read_text("utf-8")
    edit(folder / "config.json", lambda data: data.update(hidden_size=64))
    refusal(folder, kind)
    (folder / "config.json").write_text(config)
    load(folder, kind)
