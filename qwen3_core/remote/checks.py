"""Checks that a server runs the model as published, by a question with known answers.

It detects the most common faults: no chat template or two of them, no end-of-text token, mean
pooling, a converted model without its head.
"""

from typing import Final

import numpy as np

from qwen3_core.remote.errors import SelfCheckError

QUERY = "What is the capital of China?"
RELEVANT = "The capital of China is Beijing."
IRRELEVANT = (
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical "
    "objects and is responsible for the movement of planets around the sun."
)
"""Query and documents of the models' cards, which give cosines of 0.76 and 0.14 for the 0.6B model
(https://huggingface.co/Qwen/Qwen3-Embedding-0.6B)."""

MIN_MARGIN = 0.25
"""Required difference between the cosines of the relevant and the irrelevant document. The
published model reaches 0.62; with mean pooling, where the instruction drowns the query, it is at
most 0.1."""

HF_OVERRIDES: Final = (
    '{"architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no", "yes"], '
    '"is_original_qwen3_reranker": true}'
)
"""With them `vllm serve --hf-overrides` runs the published model as a reranker (vLLM's examples,
`pooling/score`)."""

SWITCH = "Server(self_check=False) switches this check off."


def check_embedding(vectors: np.ndarray, tokens: int | None, expected: int) -> None:
    """Judge the vectors of `QUERY` (in its prompt), `RELEVANT` and `IRRELEVANT`.

    Args:
        vectors: (3, dimensions) float32, rows of length 1.
        tokens: The tokens that the server reports; None if it reports none.
        expected: The tokens that it should have read, end-of-text tokens included.

    Raises:
        SelfCheckError: If the server's answer is wrong.
    """
    if tokens is not None and expected - tokens == len(vectors):
        msg = (
            f"the server read {tokens} tokens of {len(vectors)} texts where the model reads "
            f"{expected}: it leaves out the <|endoftext|> after each text, which holds the "
            "meaning. Use Server(append_end_of_text=True), or convert the model again with a "
            f"tokenizer that adds it. {SWITCH}"
        )
        raise SelfCheckError(msg)
    if tokens is not None and tokens - expected == len(vectors):
        msg = (
            f"the server read {tokens} tokens of {len(vectors)} texts where the model reads "
            f"{expected}: it appends one more token to each text, such as a second "
            "<|endoftext|>. "
            f"Leave append_end_of_text off, and serve the published tokenizer. {SWITCH}"
        )
        raise SelfCheckError(msg)
    relevant, other = (float(vectors[0] @ vectors[i]) for i in (1, 2))
    if not relevant - other >= MIN_MARGIN:
        msg = (
            f"the server embeds wrongly: a query's cosine with its answer is {relevant:.3f}, with "
            f"an unrelated text {other:.3f}. Likely it does not pool the last token (vLLM: "
            '--pooler-config \'{"pooling_type": "LAST"}\'; llama.cpp: --pooling last), or it '
            f"serves another model, such as the reranker. {SWITCH}"
        )
        raise SelfCheckError(msg)


def check_rerank(
    log_odds: np.ndarray, tokens: int | None, expected: int, template: int, template_hint: str
) -> None:
    """Judge the scores of `RELEVANT` and `IRRELEVANT` for `QUERY`.

    Args:
        log_odds: (2,) float32.
        tokens: The tokens that the server reports; None if it reports none.
        expected: The tokens that it should have read.
        template: Those of them that are prompt template and instruction, for both documents.
        template_hint: How to correct the template.

    Raises:
        SelfCheckError: If the server's answer is wrong.
    """
    if tokens is not None and tokens <= expected - template // 2:
        msg = (
            f"the server read {tokens} tokens where the model's prompts have {expected}: it does "
            "not apply the reranker's prompt template. Either the template is missing, or "
            f"it does not run the model as a reranker (vLLM: --hf-overrides '{HF_OVERRIDES}'), or "
            f"this is the address of the embedding server. {template_hint} {SWITCH}"
        )
        raise SelfCheckError(msg)
    if tokens is not None and tokens >= expected + template // 2:
        msg = (
            f"the server read {tokens} tokens where the model's prompts have {expected}: the "
            f"prompt template is applied twice. {template_hint} {SWITCH}"
        )
        raise SelfCheckError(msg)
    relevant, other = map(float, log_odds)
    shown = f"log-odds of {relevant:.3f} for an answer and {other:.3f} for an unrelated text"
    if abs(relevant - other) < 0.1:
        msg = (
            f"the server's scores are all alike ({shown}). Likely the model was converted without "
            "its head (GGUF: convert with a current llama.cpp; vLLM: "
            f"--hf-overrides '{HF_OVERRIDES}'), or its chat template drops query and document. "
            f"{template_hint} {SWITCH}"
        )
        raise SelfCheckError(msg)
    if not relevant > 0 > other:
        msg = (
            f"the server ranks wrongly: {shown}, where the first must be above 0 and the second "
            f"below. Likely a template is missing or wrong. {template_hint} {SWITCH}"
        )
        raise SelfCheckError(msg)
