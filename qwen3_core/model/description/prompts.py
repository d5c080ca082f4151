"""Prompts before an embedding model's texts, and a reranker's default instruction."""

import logging
from typing import Any, NoReturn

from qwen3_core.model.chat_template import ForeignTemplateError, instruction_in
from qwen3_core.model.description.checkpoint import (
    CORRECT,
    ELSEWHERE,
    MODULES,
    PROMPTS,
    TEMPLATE,
    TOKENIZER,
    TRANSFORMER,
    UNSUPPORTED,
    Checkpoint,
)
from qwen3_core.model.description.modules import Module
from qwen3_core.model.description.texts import transformer_of
from qwen3_core.prompts import CONTROL_TOKENS, TASKS, query_prefix, query_text

logger = logging.getLogger(__name__)

_PUBLISHED = query_prefix(TASKS["web_search"]) + query_text("")


def prompts_of(checkpoint: Checkpoint, settings: dict[str, Any]) -> tuple[str | None, str]:
    """The prompts before queries (None: the published prompt template) and before documents."""
    if checkpoint.json(PROMPTS) is None:
        return None, ""
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        isinstance(text, str | None) for text in prompts.values()
    ):
        checkpoint.refuse(f"has prompts in {PROMPTS} that are not texts", CORRECT)
    default = settings.get("default_prompt_name")
    if default is not None and default not in {"query", "document", *prompts}:
        _refuse_default_prompt(checkpoint, default)
    query, document = prompts.get("query") or "", prompts.get("document") or ""
    unused = [name for name in ("passage", "corpus") if prompts.get(name)]
    if unused and not document:
        logger.warning(
            "%s has a prompt %r in %s, which sentence-transformers' encode_document does not "
            "use; it is ignored here too. Name it 'document' to put it before documents",
            checkpoint.name,
            unused[0],
            PROMPTS,
        )
    return None if query == _PUBLISHED else query, document


def instruction_of(
    checkpoint: Checkpoint, settings: dict[str, Any], modules: list[Module]
) -> str | None:
    """The default instruction, for a model with the published prompt template."""
    found = _of_template(checkpoint, modules)
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if default is not None:
        if not isinstance(prompts, dict) or not isinstance(prompts.get(default), str):
            _refuse_default_prompt(checkpoint, default)
        found = str(prompts[default]) or found
    if control := next((t for t in CONTROL_TOKENS if t in (found or "")), None):
        checkpoint.refuse(
            f"has the control token {control} in its default instruction ({PROMPTS} or its "
            f"chat template), {UNSUPPORTED}",
            ELSEWHERE,
        )
    return None if found == TASKS["web_search"] else found


def _of_template(checkpoint: Checkpoint, modules: list[Module]) -> str | None:
    """The default instruction of the chat template; None without a template."""
    modality = transformer_of(checkpoint)[1].get("modality_config") or {}
    if checkpoint.json(MODULES, list) is not None and "message" not in modality:
        checkpoint.refuse(
            f"is a sentence-transformers reranker that reads query and document without a "
            f"prompt (no 'message' in modality_config of {TRANSFORMER})",
            ELSEWHERE,
        )
    template = checkpoint.template()
    try:
        found = None if template is None else instruction_in(template)
    except ForeignTemplateError as error:
        checkpoint.refuse(
            f"has another prompt template than the published rerankers: {error} "
            f"({TEMPLATE}, or chat_template in {TOKENIZER})",
            "run it with sentence-transformers, or serve it with vLLM under its own template "
            "and give its base_url",
        )
    if found is not None and not found.strip():
        checkpoint.refuse(
            f"has a chat template without a default instruction ({TEMPLATE})",
            "write one there",
        )
    if found is None and modules:
        file = f"{modules[0].path}/config.json"
        checkpoint.refuse(
            f"is a sentence-transformers reranker ({file}) without a chat template that "
            "takes a query and a document, so its prompt is not the published one",
            ELSEWHERE,
        )
    if found is None and checkpoint.config.get("sentence_transformers") is not None:
        logger.warning(
            "%s was saved by sentence-transformers (config.json) without a chat template; it "
            "is given the published prompt. If it was trained on bare pairs of query and "
            "document, run it with sentence-transformers",
            checkpoint.name,
        )
    return found


def _refuse_default_prompt(checkpoint: Checkpoint, name: object) -> NoReturn:
    checkpoint.refuse(
        f"contradicts itself: default_prompt_name is {name!r} in {PROMPTS}, which has no such "
        "prompt",
        CORRECT,
    )
