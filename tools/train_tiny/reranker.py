"""The reranker: weights that are set (`compare.py`), and weighed on lists of training pairs."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from .compare import FrameIds, calibrate, comparing_start, reranker_shape
from .data import DevSet, kept_from_training, vary_query
from .embedding import CONTEXT, MAX_DEV_TOKENS, TeacherTargets
from .frames import DEFAULT_TASK
from .mining import choose_pool, embed, near_documents
from .model import Shape, TinyQwen3, last_states
from .texts import Encoder
from .workspace import Workspace, log, seed_everything

#: Pairs of each group of sources (see data.GROUPS) that inverse document frequencies and negatives
#: are taken from.
POOL = (6000, 9000, 2500, 6000)
DOCUMENT_TOKENS = 192
#: At most so many lists that the reranker is weighed on, of pairs kept from the embedding model:
#: one answer, near documents, and random ones.
LISTS, NEAR, RANDOM = 300, 8, 2
DEV_LIST = 10
#: What questions begin with. Here a space precedes a query, where it is embedded none does; inside
#: of texts these words, in capitals, are rare.
FIRST_WORDS = (
    "How",
    "What",
    "Why",
    "When",
    "Where",
    "Which",
    "Who",
    "Can",
    "Is",
    "Are",
    "Does",
    "Do",
)


def build_reranker(workspace: Workspace, seed: int = 1) -> None:
    """Set and weigh the weights; writes ``reranker.pt``."""
    rng = seed_everything(seed)
    targets, encoder = TeacherTargets(workspace), Encoder(workspace.tokenizer)
    embedding = _load_embedding(workspace)
    pool = choose_pool(workspace, targets, POOL)
    ids = encoder.all_ids([f" {p.document}" for p in pool], DOCUMENT_TOKENS)
    words = torch.tensor(encoder.words())
    model = TinyQwen3(reranker_shape(len(words)))
    idf = word_idf(ids, words)
    comparing_start(model, embedding.state_dict(), idf, words, frame_ids(encoder))

    kept = [row for row, pair in enumerate(pool) if kept_from_training(pair)]
    chosen = rng.sample(kept, min(LISTS, len(kept)))
    near = near_documents(workspace, pool, chosen, embedding, encoder, targets, NEAR)
    rows = []
    for row, others in zip(chosen, near, strict=True):
        query = encoder.rerank_query(vary_query(pool[row], rng))
        others = [*others, *rng.sample(range(len(pool)), RANDOM)]
        rows += [query + ids[i] + encoder.suffix for i in [row, *others]]
    size = 1 + NEAR + RANDOM
    found = calibrate(model, lambda: log_odds(model, rows, DEFAULT_TASK, encoder), size)
    log(f"weights of squares, constant and evidence: {found}")
    workspace.save("reranker", {"model": model.state_dict()})
    for dev in workspace.dev:
        log(DevLists(dev, embedding, encoder).report(model, encoder))


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
    vocabulary = encoder.tokenizer.get_vocab()
    spaced = [(f"\u0120{word}", word) for word in FIRST_WORDS]  # its spelling of a space
    return FrameIds(
        instruct=encoder.id_of("<Instruct"),
        query=encoder.id_of("<Query"),
        document=encoder.id_of("<Document"),
        thought_end=encoder.id_of("</think>"),
        # "assistant" without a space before it is rare in texts
        sinks=tuple(
            encoder.id_of(token) for token in ("<|im_start|>", "<|im_end|>", "<think>", "assistant")
        ),
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
                ("?\u010a", "?"),  # and of a line break
                *(pair for pair in spaced if vocabulary.keys() >= set(pair)),
            )
        ),
    )


class DevLists:
    """A development set as the reranker's input: the dense top ten of each query."""

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


def _load_embedding(workspace: Workspace) -> TinyQwen3:
    state = workspace.load(CONTEXT.name)
    if state is None:
        msg = f"{workspace.root}/{CONTEXT.name}.pt is missing: run the embedding stage first"
        raise FileNotFoundError(msg)
    model = TinyQwen3(Shape(workspace.tokenizer.get_vocab_size(), CONTEXT.layers))
    model.load_state_dict(state["model"])
    return model.eval()
