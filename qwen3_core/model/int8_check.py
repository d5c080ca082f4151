"""A model in 8-bit integers, compared with what it was before: not every model bears it."""

import logging

import torch

from qwen3_core.model.encoder import Encoder
from qwen3_core.model.loading import Checkpoint
from qwen3_core.model.packing import TokenSequence, Work
from qwen3_core.prompts import TASKS

logger = logging.getLogger(__name__)

MOST = 0.02
"""The largest 1 - cosine of a final state in integers and as it was. With random weights in the
shape of Qwen3-0.6B it is 0.002 at most, of the bundled embedding model 0.006. In the bundled
reranker, whose rows hold large masks beside small codes of words, it is 0.4, and the order of its
passages is lost."""

QUERY = "How is inserted data stored?"
TEXTS = (
    "Inserted data is written to a log first, and to object storage once a segment is full.",
    "The museum opens at 9:30 a.m.; tickets are 12 euros, for children under 14 they are free.",
    "索引让搜索更快，但是需要更多的内存。",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)",
)


def int8_encoder(checkpoint: Checkpoint) -> Encoder:
    """An encoder in 8-bit integers.

    Raises:
        ValueError: If states of a few texts turn by more than `MOST`.
    """
    name, model = checkpoint.name, checkpoint.model
    sequences = _sequences(checkpoint)
    with torch.inference_mode():
        rows = [torch.tensor([[*s.prefix, *s.ids]]) for s in sequences]
        exact = torch.stack([model(input_ids=ids).last_hidden_state[0, -1] for ids in rows])
    encoder = Encoder(model, int8=True)
    work = Work(sequences)
    turned = 0.0
    while work.waiting:
        pack = encoder.next_pack([([work], encoder.pack_tokens)])
        places = [index for _, index in pack.members]
        found = torch.from_numpy(encoder.run(pack)).double()
        cosines = torch.cosine_similarity(found, exact[places].double())
        turned = max(turned, 1 - cosines.min().item())
    if not turned <= MOST:
        msg = (
            f"{name!r} loses too much in 8-bit integers: its states of {len(TEXTS)} texts turn by "
            f"up to 1 - cosine = {turned:.2g}, and {MOST} is the most that is let pass; use "
            "dtype='auto'"
        )
        raise ValueError(msg)
    logger.info("%s in 8-bit integers: states turn by 1 - cosine = %.2g at most", name, turned)
    return encoder


def _sequences(checkpoint: Checkpoint) -> list[TokenSequence]:
    """The texts as this kind of model reads them."""
    tokenizer, length = checkpoint.tokenizer, checkpoint.max_positions
    if checkpoint.head is None:
        rows, _ = tokenizer.embedding_documents(TEXTS, length)
        return [TokenSequence((), ids) for ids in rows]
    prefix = tokenizer.rerank_prefix(TASKS["web_search"], QUERY)
    rows, _ = tokenizer.rerank_documents(TEXTS, length - len(prefix))
    return [TokenSequence(prefix, ids) for ids in rows]
