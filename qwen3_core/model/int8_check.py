"""Compares a model in 8-bit integers with the original: not every model tolerates int8."""

import logging

import torch

from qwen3_core.model.encoder import Encoder
from qwen3_core.model.loading import Checkpoint
from qwen3_core.model.packing import Work

logger = logging.getLogger(__name__)

MOST = 0.02
"""The largest accepted 1 - cosine between a final state in int8 and in the original dtype. Random
weights in the shape of Qwen3-0.6B reach 0.002, the bundled embedding model 0.006. The bundled
reranker, whose weight rows mix very large and very small values, reaches 0.4 and ranks wrongly."""


def int8_encoder(checkpoint: Checkpoint) -> Encoder:
    """An encoder in 8-bit integers.

    Args:
        checkpoint: Loaded with dtype="int8".

    Raises:
        ValueError: If int8 changes the states of a few texts by more than `MOST`.
    """
    name, probe = checkpoint.name, checkpoint.probe
    if probe is None:
        msg = f"{name!r} was not loaded with dtype='int8'"
        raise ValueError(msg)
    exact = probe.final()
    encoder = Encoder(checkpoint.model, int8=True)
    work = Work(probe.sequences)
    worst = 0.0
    while work.waiting:
        pack = encoder.next_pack([([work], encoder.pack_tokens)])
        indices = [index for _, index in pack.members]
        found = torch.from_numpy(encoder.run(pack)).double()
        cosines = torch.cosine_similarity(found, exact[indices].double())
        worst = max(worst, 1 - cosines.min().item())
    if not worst <= MOST:
        msg = (
            f"int8 changes the outputs of {name!r} too much: 1 - cosine = {worst:.2g} on "
            f"{len(exact)} probe texts, limit {MOST}; use dtype='auto'"
        )
        raise ValueError(msg)
    logger.info("%s in 8-bit integers: 1 - cosine is at most %.2g on probe texts", name, worst)
    return encoder
