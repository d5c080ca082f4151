"""Train the reranker on lists of one answer and seven negatives."""

import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .compare import (
    ANSWER,
    CODES,
    CONTENT,
    MARKS,
    FrameIds,
    calibrate,
    comparing_start,
    reranker_shape,
)
from .data import DevSet, vary_query
from .embedding import CONTEXT, MAX_DEV_TOKENS, TeacherTargets, learning_rate_share
from .frames import DEFAULT_TASK, OTHER_TASKS
from .mining import OVERLAP_WEIGHT, TEACHER_WEIGHT, Overlap, choose_pool, embed, mine
from .model import Shape, TinyQwen3, last_states
from .texts import Encoder
from .workspace import Workspace, log, seed_everything

LIST_LENGTH = 8
LISTS = 12
STEPS = 1000
LEARNING_RATE = 1e-4
WARM_UP = 40
#: Pairs of each group of sources (see data.GROUPS) that lists are made of.
POOL = (6000, 9000, 2500, 6000)
TARGET_TEMPERATURE = 0.1
LABEL_BONUS = 0.15
SAVE_EVERY = 25
EVALUATE_EVERY = 100
DEV_LIST = 10


def train_reranker(workspace: Workspace, seed: int = 1, steps: int = STEPS) -> None:
    """Mine negatives, set the first weights, train; resumes; writes ``reranker.pt``."""
    rng = seed_everything(seed)
    targets, encoder = TeacherTargets(workspace), Encoder(workspace.tokenizer)
    size = workspace.tokenizer.get_vocab_size()
    embedding = _load_embedding(workspace)
    lists = Lists(workspace, targets, encoder, embedding)
    model = TinyQwen3(reranker_shape(size))
    words = torch.tensor(encoder.words())
    idf = word_idf(lists.ids, words)
    comparing_start(model, embedding.state_dict(), idf, words, frame_ids(encoder))
    dev = [DevLists(d, embedding, encoder) for d in workspace.dev]
    optimizer = _optimizer(model)
    step = 0
    if state := workspace.load("reranker"):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rng.setstate(state["rng"])
        lists.order = state.get("order", [])
        step = state["step"]
    else:
        sample = lists.sample(seed, 1000)
        answers = torch.tensor([1.0] + [0.0] * (LIST_LENGTH - 1)).repeat(len(sample) // LIST_LENGTH)
        found = calibrate(model, lambda: log_odds(model, sample, DEFAULT_TASK, encoder), answers)
        log("start " + " ".join(d.report(model, encoder) for d in dev) + f" weights {found}")
    average = torch.zeros(4)
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * group["share"] * learning_rate_share(step, steps, WARM_UP)
        task = DEFAULT_TASK if rng.random() < 0.75 else rng.choice(OTHER_TASKS)
        rows, target = lists.draw(rng)
        scores = log_odds(model, rows, task, encoder).view(-1, LIST_LENGTH)
        loss, values = _loss(scores, target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        average = average.lerp(values, 0.05) if average.any() else values
        if step % SAVE_EVERY == 0 or step == steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            workspace.save(
                "reranker", state | {"rng": rng.getstate(), "order": lists.order, "step": step}
            )
            report = ""
            if step % EVALUATE_EVERY == 0 or step == steps:
                report = " ".join(d.report(model, encoder) for d in dev)
            kl, ce, bce, top = average.tolist()
            log(f"step {step} kl {kl:.3f} ce {ce:.3f} bce {bce:.3f} top {top:.3f} {report}")


def log_odds(model: TinyQwen3, rows: list[list[int]], task: str, encoder: Encoder) -> Tensor:
    """``logit[yes] - logit[no]`` of each row (query and document, without the head), float32."""
    states = last_states(model, rows, encoder.rerank_head(task))
    weight = model.embed_tokens.weight
    return states @ (weight[encoder.yes] - weight[encoder.no])


def word_idf(documents: Sequence[Sequence[int]], words: Tensor) -> Tensor:
    """Inverse document frequency of every token's word, scaled to [0, 1]; 0 where it has none."""
    number = words.tolist()
    counts = Counter(word for ids in documents for word in {number[i] for i in ids})
    size = len(documents)
    values = [0.0 if w < 0 else math.log(1 + size / (counts[w] + 1)) for w in number]
    return torch.tensor(values) / math.log(1 + size)


def frame_ids(encoder: Encoder) -> FrameIds:
    """The frame's tokens, found by name."""
    return FrameIds(
        instruct=encoder.id_of("<Instruct"),
        query=encoder.id_of("<Query"),
        document=encoder.id_of("<Document"),
        thought_end=encoder.id_of("</think>"),
        sinks=tuple(encoder.id_of(t) for t in ("<|im_start|>", "<|im_end|>", "<think>")),
        last=encoder.suffix[-1],
        end_of_text=encoder.end,
        yes=encoder.yes,
        no=encoder.no,
        alike=tuple(
            (encoder.id_of(token), encoder.id_of(other))
            for token, other in (
                ("<Instruct", "Instruct"),
                ("<Query", "Query"),
                (">:", ":"),
                ("?\u010a", "?"),  # the vocabulary's spelling of a line break
            )
        ),
    )


class Lists:
    """Draws training lists: the answer first, then hard and random negatives."""

    def __init__(
        self,
        workspace: Workspace,
        targets: TeacherTargets,
        encoder: Encoder,
        embedding: TinyQwen3,
    ) -> None:
        self.encoder = encoder
        pool = choose_pool(workspace, targets, POOL)
        self.pairs = [workspace.train[i] for i in pool]
        documents = [p.document for p in self.pairs]
        self.overlap = Overlap(documents)
        self.ids = encoder.all_ids([f" {d}" for d in documents], 192)
        queries = [p.query for p in self.pairs]
        self.queries, self.documents = embed(embedding, queries, documents, encoder)
        self.candidates = mine(workspace, self.pairs, self.queries, self.documents, targets)
        log(f"mined negatives for {len(pool)} pairs")
        d = [workspace.documents[p.document] for p in self.pairs]
        q = [workspace.queries[p.query] for p in self.pairs]
        self.teacher_d, self.teacher_q = targets.documents[d], targets.queries[q]
        self.same_group: dict[int, list[int]] = {}
        for row, pair in enumerate(self.pairs):
            self.same_group.setdefault(pair.group, []).append(row)
        self.order: list[int] = []

    def draw(self, rng: random.Random) -> tuple[list[list[int]], Tensor]:
        """Token ids of some lists, and their soft relevance, shape (lists, LIST_LENGTH)."""
        limit = rng.choices((48, 64, 128), (0.4, 0.4, 0.2))[0]
        rows: list[list[int]] = []
        target = []
        for _ in range(max(1, LISTS * 64 // max(limit, 64))):
            if not self.order:
                self.order = list(range(len(self.pairs)))
                rng.shuffle(self.order)
            right = self.order.pop()
            chosen = [right, *self._negatives(right, rng)]
            pair = self.pairs[right]
            query = self.encoder.rerank_query(vary_query(pair, rng))
            rows += [query + self.ids[i][:limit] + self.encoder.suffix for i in chosen]
            own = (self.documents[chosen] @ self.queries[right]).numpy()
            teacher = self.teacher_d[chosen].astype(np.float32) @ self.teacher_q[right]
            overlap = np.array([self.overlap(pair.query, i) for i in chosen], np.float32)
            target.append(own + TEACHER_WEIGHT * teacher + OVERLAP_WEIGHT * overlap)
        return rows, torch.from_numpy(np.stack(target)).float()

    def sample(self, seed: int, rows: int) -> list[list[int]]:
        """Token ids of lists, at least ``rows`` of them; what training draws stays as it was."""
        order, self.order = self.order, []
        rng, out = random.Random(seed), list[list[int]]()
        while len(out) < rows:
            out += self.draw(rng)[0]
        self.order = order
        return out

    def _negatives(self, right: int, rng: random.Random) -> list[int]:
        found = self.candidates[right]
        near = rng.sample(found.student[:15], min(4, len(found.student)))
        near += rng.sample(found.teacher, min(2, len(found.teacher)))
        negatives = dict.fromkeys(near)
        text = self.pairs[right].document[:150]
        while len(negatives) < LIST_LENGTH - 1:
            everywhere = rng.random() < 0.3
            group = rng.choice(list(self.same_group)) if everywhere else self.pairs[right].group
            row = rng.choice(self.same_group[group])
            if self.pairs[row].document[:150] != text:
                negatives[row] = None
        return list(negatives)


class DevLists:
    """A development set as the reranker meets it: the dense top ten of each query."""

    def __init__(
        self, dev: DevSet, embedding: TinyQwen3, encoder: Encoder, queries: int = 75
    ) -> None:
        self.dev = dev
        q, d = embed(embedding, dev.queries, dev.documents, encoder, MAX_DEV_TOKENS)
        self.top = (q @ d.T).topk(DEV_LIST, 1).indices[:queries]
        self.gold = torch.tensor(dev.gold)[:queries, None]
        self.ids = encoder.all_ids([f" {t}" for t in dev.documents], MAX_DEV_TOKENS)

    def report(self, model: TinyQwen3, encoder: Encoder) -> str:
        """R@1 and MRR of the dense order and of ours, and mean probabilities."""
        rows = []
        for query, top in zip(self.dev.queries, self.top.tolist(), strict=False):
            head = encoder.rerank_query(query)
            rows += [head + self.ids[i] + encoder.suffix for i in top]
        with torch.no_grad():
            scores = log_odds(model, rows, DEFAULT_TASK, encoder).view(self.top.shape)
        right = self.top == self.gold
        order = torch.arange(DEV_LIST, 0, -1).expand(self.top.shape).float()
        parts = [_list_metrics(order, right), _list_metrics(scores, right)]
        yes, no = scores[right].sigmoid().mean(), scores[~right].sigmoid().mean()
        return f"{self.dev.name} {parts[0]}->{parts[1]} p {yes:.2f}/{no:.2f}"


def _list_metrics(scores: Tensor, right: Tensor) -> str:
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    rank = 1 + ((scores >= best) & ~right).sum(1)
    found = right.any(1)
    mrr = torch.where(found, 1 / rank, 0).mean()
    return f"{(found & (rank == 1)).float().mean():.3f}/{mrr:.3f}"


def _loss(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    target = target.clone()
    target[:, 0] += LABEL_BONUS
    goal = (target / TARGET_TEMPERATURE).softmax(1)
    kl = F.kl_div(scores.log_softmax(1), goal, reduction="batchmean")
    ce = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
    label, weight = torch.zeros_like(scores), torch.ones_like(scores)
    label[:, 0], weight[:, 0] = 1, 3
    bce = F.binary_cross_entropy_with_logits(scores, label, weight=weight)
    top = (scores.argmax(1) == 0).float().mean()
    values = torch.stack([kl.detach(), ce.detach(), bce.detach(), top])
    return kl + 0.5 * ce + 0.5 * bce, values


def _optimizer(model: TinyQwen3) -> torch.optim.AdamW:
    """What decides who looks at whom stays as it began, and so do the marks that it is made of.

    Masks multiply small marks by large numbers, so that a step which is small elsewhere breaks
    them: with all weights free, the loss rose to that of guessing between steps 50 and 150.
    """
    for name, parameter in model.named_parameters():
        part = name.rpartition(".weight")[0].rpartition(".")[2]
        marks = name.startswith(f"layers.{MARKS}.self_attn")
        if marks or part in ("q_proj", "k_proj", "q_norm", "k_norm"):
            parameter.requires_grad_(False)
        elif part in ("o_proj", "down_proj"):
            parameter.register_hook(lambda g: _without_marks(g, 0))  # type: ignore[no-untyped-call]
        elif part == "embed_tokens":
            parameter.register_hook(lambda g: _without_marks(g, 1))  # type: ignore[no-untyped-call]
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if "embed" not in n], "share": 1.0},
        {"params": [model.embed_tokens.weight], "share": 0.25},
    ]
    return torch.optim.AdamW(
        groups, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )


def _without_marks(gradient: Tensor, dimension: int) -> Tensor:
    """The gradient, zero where a weight writes a mark or a code."""
    marks = torch.tensor([*range(CONTENT, ANSWER), *CODES])
    return gradient.index_fill(dimension, marks, 0)


def _load_embedding(workspace: Workspace) -> TinyQwen3:
    state = workspace.load(CONTEXT.name)
    if state is None:
        msg = f"{workspace.root}/{CONTEXT.name}.pt is missing: run the embedding stage first"
        raise FileNotFoundError(msg)
    model = TinyQwen3(Shape(workspace.tokenizer.get_vocab_size(), CONTEXT.layers))
    model.load_state_dict(state["model"])
    return model.eval()
