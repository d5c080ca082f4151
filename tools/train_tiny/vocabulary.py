"""Train the byte-level BPE vocabulary that both models share."""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors, trainers

from .data import Pair
from .frames import CONTROL_TOKENS, DEFAULT_TASK, RERANK_SUFFIX, query_prefix, rerank_head

FRAME_REPEATS = 3000
MIN_FREQUENCY = 5


def train_tokenizer(qwen3_tokenizer: Path, pairs: list[Pair], size: int) -> Tokenizer:
    """Learn ``size`` entries with the Qwen3 normaliser, pre-tokenizer and decoder.

    Args:
        qwen3_tokenizer: ``tokenizer.json`` of any Qwen3 model; only its pipeline is used.
        pairs: Texts to learn from; the prompts' own words are added often enough to be whole.
        size: Entries, control tokens included.
    """
    pipeline = json.loads(qwen3_tokenizer.read_text(encoding="utf-8"))
    pipeline["added_tokens"] = []
    pipeline["model"] |= {"vocab": {}, "merges": []}
    tokenizer = Tokenizer.from_str(json.dumps(pipeline))
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
    )

    def texts() -> Iterator[str]:
        for pair in pairs:
            yield pair.query
            yield pair.document
        frame = rerank_head(DEFAULT_TASK) + " x\n<Document>: x" + RERANK_SUFFIX
        for token in CONTROL_TOKENS:
            frame = frame.replace(token, "\n")
        for _ in range(FRAME_REPEATS):
            yield frame + query_prefix(DEFAULT_TASK)
            yield "yes"
            yield "no"

    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_tokens(
        [
            AddedToken(text, special=special, normalized=False)
            for text, special in CONTROL_TOKENS.items()
        ]
    )
    if tokenizer.get_vocab_size() != size:
        msg = f"the texts give {tokenizer.get_vocab_size()} entries, {size} were asked for"
        raise ValueError(msg)
    return tokenizer


def with_end_of_text(tokenizer: Tokenizer) -> Tokenizer:
    """A copy whose post-processor appends ``<|endoftext|>``, as Qwen3-Embedding's does."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    end = "<|endoftext|>"
    copy.post_processor = processors.Sequence(
        [
            processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
            processors.TemplateProcessing(
                single=f"$A {end}",
                pair=f"$A {end} $B:1 {end}:1",
                special_tokens=[(end, copy.token_to_id(end))],
            ),
        ]
    )
    return copy
