"""Train the embedding model: first a weighted bag of tokens, then the Qwen3 layers grown from it.

The bag becomes the last layer of the model without loss (see bag.py); layers inserted below start
close to the identity.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bag import Bag, as_layer
from .data import DevSet, kept_from_training, vary_query
from .frames import DEFAULT_TASK, OTHER_TASKS
from .model import Shape, TinyQwen3, last_states
from .scoring import rank_metrics
from .texts import Encoder
from .workspace import Workspace, log, seed_everything

#: Matryoshka widths and their shares of the ranking loss.
WIDTHS = ((32, 0.15), (64, 0.2), (128, 0.25), (256, 0.4))
STUDENT_TEMPERATURE = 0.05
TEACHER_TEMPERATURE = 0.05
LABEL_SHARE = 0.5
COSINE_WEIGHT = 4.0
#: Share of each group of sources (see data.GROUPS) in what is drawn.
GROUP_SHARES = (0.27, 0.33, 0.12, 0.28)
CLUSTERS = 400
WARM_UP = 40
MAX_DEV_TOKENS = 256
#: Smooth inverse frequency weighting, a / (a + p), as in Arora et al. 2017.
SMOOTHING = 1e-3
SAVE_EVERY = 50


@dataclass(frozen=True)
class Stage:
    """One training stage of the embedding model."""

    name: str
    layers: int
    steps: int
    batch: int
    chunk: int
    learning_rate: float
    #: The token embeddings' share of it: what the bag has learnt must survive new layers.
    token_share: float
    document_tokens: tuple[int, ...]


BAG = Stage("embedding-bag", 0, 600, 1024, 48, 3e-3, 1.0, (48, 64, 128))
CONTEXT = Stage("embedding-context", 2, 1400, 256, 32, 1e-3, 0.25, (48, 64, 96))

#: Embeds token ids after a shared prefix: float32 (rows, width).
Embed = Callable[[list[list[int]], list[int]], Tensor]


class TeacherTargets:
    """Teacher embeddings rotated so that the first dimensions carry the most.

    The rotation is kept in the workspace: more teacher embeddings must not turn the space in which
    a model is half trained.
    """

    def __init__(self, workspace: Workspace) -> None:
        documents, queries = workspace.teacher("documents"), workspace.teacher("queries")
        self.known_document = np.asarray(documents.any(1))
        self.known_query = np.asarray(queries.any(1))
        path = workspace.root / "rotation.npy"
        if not path.exists():
            np.save(path, _principal_directions(documents[self.known_document]))
        self.rotation = np.load(path)
        self.documents = (documents.astype(np.float32) @ self.rotation).astype(np.float16)
        self.queries = (queries.astype(np.float32) @ self.rotation).astype(np.float16)

    def tokens(self, workspace: Workspace) -> Tensor:
        """Rotated teacher embeddings of the vocabulary, float32 (vocab_size, 384)."""
        rows = workspace.teacher("tokens").astype(np.float32) @ self.rotation
        return torch.from_numpy(rows)


class Batches:
    """Draws pairs in chunks of similar documents, so that a batch has its own hard negatives."""

    def __init__(self, workspace: Workspace, targets: TeacherTargets) -> None:
        pairs = workspace.train
        rows = np.array([workspace.documents[p.document] for p in pairs])
        labels = _cluster(targets.documents, targets.known_document)[rows]
        groups = np.array([p.group for p in pairs])
        sizes = np.bincount(groups, minlength=len(GROUP_SHARES))
        weight = (np.array(GROUP_SHARES) / sizes)[groups]
        drawn = ~np.array([kept_from_training(pair) for pair in pairs])
        self.members, self.weights = [], []
        for label in np.unique(labels):
            members = np.flatnonzero((labels == label) & drawn)
            self.members.append(members.tolist())
            self.weights.append(float(weight[members].sum()))

    def draw(self, size: int, chunk: int, rng: random.Random) -> list[int]:
        """Indices of ``size`` pairs, at most ``chunk`` from each drawn cluster."""
        out: set[int] = set()
        while len(out) < size:
            (members,) = rng.choices(self.members, self.weights)
            out.update(rng.sample(members, min(chunk, len(members), size - len(out))))
        return sorted(out)


def train_embedding(workspace: Workspace, seed: int = 0) -> None:
    """Run both stages, resuming from their checkpoints.

    Writes ``embedding-bag.pt`` and ``embedding-context.pt`` in the workspace.
    """
    trainer = Trainer(workspace)
    bag = new_bag(workspace, trainer.targets)
    trainer.run(BAG, bag, lambda rows, head: bag([row[:-1] for row in rows], head), seed)
    size = workspace.tokenizer.get_vocab_size()
    torch.manual_seed(seed)
    model = insert_layers(
        as_layer(bag, Shape(size, 1), trainer.encoder.end), Shape(size, CONTEXT.layers)
    )
    # with equal weights the last norm gives all texts one length, which the reranker relies on
    model.norm.weight.requires_grad_(False)
    trainer.run(CONTEXT, model, lambda rows, head: last_states(model, rows, head), seed + 1)


def new_bag(workspace: Workspace, targets: TeacherTargets) -> Bag:
    """Teacher embeddings of the tokens, weighted by smooth inverse frequency."""
    size = workspace.tokenizer.get_vocab_size()
    counts = np.ones(size)
    encoder = Encoder(workspace.tokenizer)
    for ids in encoder.all_ids(list(workspace.documents), 64):
        np.add.at(counts, ids, 1)
    share = torch.from_numpy(counts / counts.sum()).float()
    log_weight = (SMOOTHING / (SMOOTHING + share)).log()
    return Bag(targets.tokens(workspace), log_weight)


def insert_layers(model: TinyQwen3, shape: Shape) -> TinyQwen3:
    """A deeper model whose new lower layers start close to the identity."""
    deeper = TinyQwen3(shape)
    new = shape.num_hidden_layers - model.shape.num_hidden_layers
    with torch.no_grad():
        deeper.embed_tokens.load_state_dict(model.embed_tokens.state_dict())
        deeper.norm.load_state_dict(model.norm.state_dict())
        for i in range(shape.num_hidden_layers):
            layer = deeper.layer(i)
            if i < new:
                layer.self_attn.o_proj.weight.mul_(0.05)
                layer.mlp.down_proj.weight.mul_(0.05)
            else:
                layer.load_state_dict(model.layer(i - new).state_dict())
    return deeper


def development_report(embed: Embed, encoder: Encoder, sets: list[DevSet]) -> str:
    """Dense R@1 and MRR@10 of every development set."""
    parts = []
    with torch.no_grad():
        for dev in sets:
            rows = encoder.embedded_queries(dev.queries, DEFAULT_TASK)
            queries = embed(rows, encoder.query_head(DEFAULT_TASK))
            ids = encoder.all_ids(dev.documents, MAX_DEV_TOKENS)
            documents = embed([[*row, encoder.end] for row in ids], [])
            scores = F.normalize(queries, dim=-1) @ F.normalize(documents, dim=-1).T
            result = rank_metrics(scores.numpy(), dev.gold)
            parts.append(f"{dev.name} {result['R@1']:.3f}/{result['MRR@10']:.3f}")
    return " ".join(parts)


class Trainer:
    """Data, targets and the training loop of both stages."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.targets = TeacherTargets(workspace)
        self.batches = Batches(workspace, self.targets)
        self.encoder = Encoder(workspace.tokenizer)
        limit = max(*BAG.document_tokens, *CONTEXT.document_tokens)
        self.documents = self.encoder.all_ids(list(workspace.documents), limit)

    def run(self, stage: Stage, model: nn.Module, embed: Embed, seed: int) -> None:
        """Train ``model``, through which ``embed`` computes, for the stage's steps."""
        rng = seed_everything(seed)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        inner = [p for n, p in named if p.dim() == 2 and n.startswith("layers")]
        others = [p for n, p in named if p.dim() == 1 or not n.startswith("layers")]
        groups = [
            {"params": inner, "weight_decay": 0.05, "share": 1.0},
            {"params": others, "weight_decay": 0.0, "share": stage.token_share},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98), fused=True)
        step = 0
        if state := self.workspace.load(stage.name):
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            rng.setstate(state["rng"])
            step = state["step"]
        average = torch.zeros(2)
        while step < stage.steps:
            for group in optimizer.param_groups:
                share = group["share"] * _learning_rate_share(step, stage.steps)
                group["lr"] = stage.learning_rate * share
            ranking, distance = self._step_losses(stage, embed, rng)
            optimizer.zero_grad()
            (ranking + COSINE_WEIGHT * distance).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            values = torch.stack([ranking.detach(), distance.detach()])
            average = average.lerp(values, 0.05) if average.any() else values
            if step % SAVE_EVERY == 0 or step == stage.steps:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                self.workspace.save(stage.name, state | {"rng": rng.getstate(), "step": step})
                report = development_report(embed, self.encoder, self.workspace.dev)
                losses = f"ranking {average[0]:.3f} distance {average[1]:.3f}"
                log(f"{stage.name} step {step} of {stage.steps} {losses} {report}")

    def _step_losses(self, stage: Stage, embed: Embed, rng: random.Random) -> tuple[Tensor, Tensor]:
        batch = self.batches.draw(stage.batch, stage.chunk, rng)
        chosen = [self.workspace.train[i] for i in batch]
        task = DEFAULT_TASK if rng.random() < 0.7 else rng.choice((*OTHER_TASKS, ""))
        limit, end = rng.choice(stage.document_tokens), [self.encoder.end]
        rows = self.encoder.embedded_queries([vary_query(p, rng) for p in chosen], task)
        queries = embed(rows, self.encoder.query_head(task))
        q = np.array([self.workspace.queries[p.query] for p in chosen])
        d = np.array([self.workspace.documents[p.document] for p in chosen])
        documents = embed([self.documents[i][:limit] + end for i in d], [])
        return _losses(queries, documents, q, d, self.targets)


def _learning_rate_share(step: int, steps: int) -> float:
    """Linear warm-up, then cosine down to 3 % of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM_UP) * (0.03 + 0.97 * cosine)


def _losses(
    queries: Tensor, documents: Tensor, q: np.ndarray, d: np.ndarray, targets: TeacherTargets
) -> tuple[Tensor, Tensor]:
    """Ranking loss over the batch at every width, and mean cosine distance to the teacher."""
    size = len(q)
    same = torch.from_numpy((q[:, None] == q) | (d[:, None] == d))
    same &= ~torch.eye(size, dtype=torch.bool)
    known = torch.from_numpy(targets.known_query[q] & targets.known_document[d])
    teacher_q = torch.from_numpy(targets.queries[q]).float()
    teacher_d = torch.from_numpy(targets.documents[d]).float()
    with torch.no_grad():
        teacher = (teacher_q @ teacher_d.T / TEACHER_TEMPERATURE).masked_fill(same, -torch.inf)
        label = torch.eye(size)
        share = torch.where(known, LABEL_SHARE, 1.0)[:, None]
        soft = teacher.masked_fill(~known[None], -torch.inf).softmax(1).nan_to_num()
        goal = share * label + (1 - share) * soft
    ranking = torch.zeros(())
    answers = torch.arange(size)
    for width, weight in WIDTHS:
        left = F.normalize(queries[:, :width], dim=-1)
        right = F.normalize(documents[:, :width], dim=-1)
        scores = (left @ right.T / STUDENT_TEMPERATURE).masked_fill(same, -1e4)
        forward = -(goal * scores.log_softmax(1)).sum(1).mean()
        ranking = ranking + weight * (forward + 0.25 * F.cross_entropy(scores.T, answers))
    width = queries.shape[1]
    distance = torch.zeros(())
    for student, teacher_rows, has in (
        (queries, teacher_q, torch.from_numpy(targets.known_query[q])),
        (documents, teacher_d, torch.from_numpy(targets.known_document[d])),
    ):
        cosine = F.cosine_similarity(student, teacher_rows[:, :width], dim=-1)
        distance = distance + ((1 - cosine) * has).mean()
    return ranking, distance


def _principal_directions(rows: np.ndarray) -> np.ndarray:
    """Orthogonal (width, width), columns by falling share of the rows' length."""
    sample = np.random.default_rng(0).choice(len(rows), min(20000, len(rows)), replace=False)
    _, _, directions = np.linalg.svd(rows[sample].astype(np.float32), full_matrices=False)
    transposed: np.ndarray = directions.T
    return transposed


def _cluster(rows: np.ndarray, known: np.ndarray, iterations: int = 6) -> np.ndarray:
    """k-means labels by cosine; rows without an embedding share the label -1."""
    points = torch.from_numpy(rows[known]).float()
    generator = torch.Generator().manual_seed(0)
    centres = points[torch.randperm(len(points), generator=generator)[:CLUSTERS]]
    for _ in range(iterations):
        labels = (points @ centres.T).argmax(1)
        centres = F.normalize(torch.zeros_like(centres).index_add_(0, labels, points), dim=-1)
    out = np.full(len(rows), -1)
    out[known] = labels.numpy()
    return out
