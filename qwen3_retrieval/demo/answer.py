"""The LLM that answers, if one is configured in the environment."""

import os
from collections.abc import Sequence

from qwen3_core.common.extras import how_to_install
from qwen3_core.rag import ANSWER_INSTRUCTIONS, fence


def is_configured() -> bool:
    """Whether the environment has a key or a server's address."""
    return bool(os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"))


def answer(question: str, texts: Sequence[str], model: str) -> str:
    """The LLM's answer from passages, with citations such as [1].

    Raises:
        ImportError: If the openai package is not installed.
        openai.OpenAIError: If the LLM does not answer.
    """
    try:
        from openai import OpenAI
    except ImportError as error:
        msg = f"the answer needs the openai package: {how_to_install('server')}"
        raise ImportError(msg) from error
    # A self-hosted server needs no key, but the client requires one.
    with OpenAI(
        api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=120, max_retries=1
    ) as client:
        reply = client.chat.completions.create(
            model=model,
            messages=[
                {"role": "system", "content": ANSWER_INSTRUCTIONS},
                {"role": "user", "content": f"{fence(texts)}\n\nQuestion: {question}"},
            ],
        )
    return reply.choices[0].message.content or ""
