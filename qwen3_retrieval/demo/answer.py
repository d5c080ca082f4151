"""The LLM that answers, if one is configured in the environment."""

import os
from collections.abc import Sequence

from qwen3_core.common.extras import how_to_install
from qwen3_core.rag import ANSWER_INSTRUCTIONS, fence


def is_configured() -> bool:
    """Whether the environment names a key or a server."""
    return bool(os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"))


def answer(question: str, texts: Sequence[str], model: str) -> str:
    """What the LLM answers from passages, with citations such as [1].

    Raises:
        ImportError: If the openai package is not installed.
        openai.OpenAIError: If no answer came.
    """
    try:
        from openai import OpenAI
    except ImportError as error:
        msg = f"the answer needs the openai package: {how_to_install('server')}"
        raise ImportError(msg) from error
    # A server of one's own wants no key, but the client insists on one.
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
