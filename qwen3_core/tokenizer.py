"""Token ids from text: control tokens come from the prompt template alone, never from user text.

Only queries and documents are truncated.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Final

from qwen3_core.prompts import (
    CONTROL_TOKENS,
    END_OF_TEXT,
    PROMPT_TOKENS,
    RERANK_HEAD,
    RERANK_SUFFIX,
    query_prefix,
    query_text,
    rerank_document,
    rerank_question,
)

Ids = tuple[int, ...]

PUBLISHED_VOCABULARY: Final = 151643
"""Size of the published models' vocabulary; the ids of control tokens begin here."""

PUBLISHED_SUFFIX: Final[Ids] = (151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271)
"""Ids of the reranker's suffix in the published tokenizer (QwenLM/Qwen3-Embedding, README)."""

SHORT: Final = 4_000
"""Total characters up to which texts are tokenised one by one in the caller's thread, in about a
millisecond: the shared threads for parallel tokenisation may be busy for longer."""


class TruncationWarning(UserWarning):
    """A text is longer than `max_length`; the rest of it is ignored."""


class Qwen3Tokenizer:
    """The parts of the models' prompts as token ids.

    User text is encoded by a copy of the tokenizer without control tokens, so that `<|im_end|>` or
    `</think>` in a text stays text. The published tokenizer's `split_special_tokens` would still
    encode `<think>` as a control token, because it is not marked special. Words that a fine-tune
    added (neither special nor control tokens of the published models) stay tokens. The copy never
    truncates or pads and is never changed, so threads can share it.
    """

    def __init__(self, tokenizer_json: str) -> None:
        """Build from the text of a `tokenizer.json`.

        Raises:
            ValueError: If it has no `<|endoftext|>`, or has the published vocabulary but another
                id for it.
        """
        from tokenizers import Tokenizer

        data: dict[str, Any] = json.loads(tokenizer_json)
        self._control = {token["content"]: int(token["id"]) for token in data["added_tokens"]}
        words = [t["content"] for t in data["added_tokens"] if _is_word(t)]
        # Includes the published ones: a server's model may differ from the tokenizer's.
        spelled = dict.fromkeys((*self._control, *CONTROL_TOKENS))
        for word in words:
            del spelled[word]
        self._spelled_control = re.compile("|".join(map(re.escape, spelled)))
        self._require(END_OF_TEXT)
        # Added words keep their ids only among all added tokens, of which the others are read as
        # text then.
        added = [t | {"special": not _is_word(t)} for t in data["added_tokens"]] if words else []
        self._text = Tokenizer.from_str(
            json.dumps(data | {"added_tokens": added, "post_processor": None})
        )
        self._text.encode_special_tokens = True
        self._text.no_truncation()
        self._text.no_padding()
        # There are few instructions, and every query repeats one.
        self._encode_instruction = lru_cache(maxsize=64)(self.encode)
        self._split_prompt = lru_cache(maxsize=16)(self._split)
        self.end_of_text: int = self._control[END_OF_TEXT]
        self.size: int = 1 + max(*self._text.get_vocab().values(), *self._control.values())
        """Upper bound (exclusive) of all ids."""
        self.added_tokens: Mapping[str, int] = self._control
        """Ids of all added tokens."""
        self.words: tuple[str, ...] = tuple(words)
        """Those that are words of texts, not control tokens of prompts."""
        self.own_parts: tuple[str, ...] = _own_parts(data)
        """Parts that are not those of the published Qwen3 tokenizer."""
        self.around: tuple[tuple[str, ...], tuple[str, ...]] = self._around(data)
        """Tokens that the tokenizer, used as published, puts before and after a text."""
        if self._is_published and self.end_of_text != PUBLISHED_VOCABULARY:
            msg = (
                f"the tokenizer's ids differ from the published ones: {END_OF_TEXT} is "
                f"{self.end_of_text}, expected {PUBLISHED_VOCABULARY}; "
                "download the checkpoint again"
            )
            raise ValueError(msg)

    @property
    def _is_published(self) -> bool:
        """Whether it has the size of the published vocabulary."""
        return self._text.get_vocab_size(with_added_tokens=False) == PUBLISHED_VOCABULARY

    def _require(self, *tokens: str) -> None:
        """Raise ValueError if control tokens are missing."""
        if missing := set(tokens) - set(self._control):
            msg = (
                f"the tokenizer has no {', '.join(sorted(missing))}: "
                "it does not belong to a Qwen3 embedding or reranking model"
            )
            raise ValueError(msg)

    @cached_property
    def rerank_head(self) -> Ids:
        """The reranker's prompt before the question.

        Raises:
            ValueError: If the tokenizer lacks control tokens of rerankers. Those of
                Qwen3-Embedding-4B and 8B have no `<think>`.
        """
        return self._encode_frame(RERANK_HEAD)

    @cached_property
    def rerank_suffix(self) -> Ids:
        """The reranker's prompt after the document.

        Raises:
            ValueError: If the tokenizer lacks control tokens of rerankers, or has the published
                vocabulary but not the published ids.
        """
        found = self._encode_frame(RERANK_SUFFIX)
        if self._is_published and found != PUBLISHED_SUFFIX:
            msg = (
                "the tokenizer's ids differ from the published ones: the reranker's suffix is "
                f"{found}, expected {PUBLISHED_SUFFIX}; download the checkpoint again"
            )
            raise ValueError(msg)
        return found

    def _around(self, data: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tokens that the post-processor puts before and after a text."""
        from tokenizers import Tokenizer

        if data.get("post_processor") is None:
            return (), ()
        model = {"type": "BPE", "vocab": {}, "merges": []}
        bare = Tokenizer.from_str(json.dumps(data | {"added_tokens": [], "model": model}))
        plain = self._text.encode("a", add_special_tokens=False)
        whole = bare.post_processor.process(plain, None, True)
        own = [i for i, n in enumerate(whole.sequence_ids) if n is not None]
        names = {n: token for token, n in self._control.items()}
        tokens = [names.get(n, str(n)) for n in whole.ids]
        if not own or whole.ids[own[0] : own[-1] + 1] != plain.ids:
            return tuple(tokens), ()
        return tuple(tokens[: own[0]]), tuple(tokens[own[-1] + 1 :])

    def is_ordinary(self, token: object) -> bool:
        """Whether it is a token of texts, by its spelling in the vocabulary."""
        found = isinstance(token, str) and self._text.token_to_id(token) is not None
        return found and token not in self._control

    def word_id(self, word: str) -> int:
        """The id of a word that is one token, such as `yes`.

        Raises:
            ValueError: If it is not one token.
        """
        ids = self.encode(word)
        if len(ids) != 1:
            msg = f"{word!r} is {len(ids)} tokens of this tokenizer, not one"
            raise ValueError(msg)
        return ids[0]

    def encode(self, text: str) -> Ids:
        """Ids of a text, without control tokens."""
        return tuple(self._text.encode(text, add_special_tokens=False).ids)

    def _encode_frame(self, text: str) -> Ids:
        """Ids of a text of ours, in which `PROMPT_TOKENS` are control tokens."""
        self._require(*PROMPT_TOKENS)
        parts = re.split(f"({'|'.join(map(re.escape, PROMPT_TOKENS))})", text)
        ids = ((self._control[p],) if p in PROMPT_TOKENS else self.encode(p) for p in parts)
        return tuple(chain.from_iterable(ids))

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` for many texts, in parallel if they are long enough to benefit."""
        if sum(map(len, texts)) <= SHORT:
            return [self.encode(text) for text in texts]
        encodings = self._text.encode_batch_fast(list(texts), add_special_tokens=False)
        return [tuple(encoding.ids) for encoding in encodings]

    def cut_text(self, text: str, tokens: int) -> str:
        """The beginning of a text that has at most `tokens` tokens on its own."""
        encoding = self._text.encode(text, add_special_tokens=False)
        while len(encoding.ids) > tokens:
            # Repeated, because the end of a truncated text may be split differently.
            end = encoding.offsets[tokens - 1][1] if tokens else 0
            text = text[: min(end, len(text) - 1)]
            encoding = self._text.encode(text, add_special_tokens=False)
        return text

    def without_control_tokens(self, text: str) -> str:
        """Insert a space into each control token in the text, after its first character.

        Servers read `<|im_end|>` in a text as the end of a turn; local models do not need this. The
        text is also normalised to Unicode's NFC, as the model's tokenizer does and llama.cpp's does
        not.
        """
        text = unicodedata.normalize("NFC", text)
        return self._spelled_control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def split_prompt(self, prompt: str) -> tuple[Ids, str]:
        """Split a checkpoint's own prompt into ids that no following text changes, and the rest.

        The tokenizer joins the end of a prompt with the following text (a space with a word), so
        the rest must be encoded together with the text. Control tokens in the prompt are kept.
        """
        if not prompt:
            return (), ""
        return self._split_prompt(prompt)

    def _split(self, prompt: str) -> tuple[Ids, str]:
        ids: list[int] = []
        begin = 0
        for found in self._spelled_control.finditer(prompt):
            if found[0] in self._control:
                ids += [*self.encode(prompt[begin : found.start()]), self._control[found[0]]]
                begin = found.end()
        tail = unicodedata.normalize("NFC", prompt[begin:])
        splitter = self._text.pre_tokenizer
        # Word ends in the tail that do not depend on the following text; each probe may change the
        # last words.
        ends = [
            {piece[1][1] for piece in splitter.pre_tokenize_str(tail + probe)}
            for probe in (".", "a", "1", " ", " a", "\n", "'s")
        ]
        words = [piece[1][0] for piece in splitter.pre_tokenize_str(tail)]
        # The last word may grow even if no probe changes it.
        stable = [end for end in set.intersection(*ends) if words and end <= words[-1]]
        cut = max(stable, default=0)
        return (*ids, *self.encode(tail[:cut])), tail[cut:]

    def embedding_prefix(self, instruction: str) -> Ids:
        """The ids at the beginning of all queries with one instruction."""
        return self._encode_instruction(query_prefix(instruction))

    def embedding_queries(self, queries: Sequence[str], length: int) -> tuple[list[Ids], list[int]]:
        """Ids of queries after `embedding_prefix`, each ending in `<|endoftext|>`.

        Args:
            queries: The query texts.
            length: The most tokens after the prefix, `<|endoftext|>` included.

        Returns:
            The ids, and the positions of truncated queries.
        """
        return self._cut([query_text(q) for q in queries], length, (self.end_of_text,))

    def embedding_documents(self, texts: Sequence[str], length: int) -> tuple[list[Ids], list[int]]:
        """Ids of documents, each ending in `<|endoftext|>`; arguments as in `embedding_queries`."""
        return self._cut(texts, length, (self.end_of_text,))

    def rerank_prefix(self, instruction: str, query: str) -> Ids:
        """The ids at the beginning of all documents' prompts for one query."""
        return self.rerank_head + self.encode(rerank_question(instruction, query))

    def rerank_template_length(self, instruction: str) -> int:
        """Number of tokens of a prompt without query and document."""
        bare = self._encode_instruction(rerank_question(instruction, ""))
        return len(self.rerank_head) + len(bare) + len(self.rerank_suffix)

    def rerank_documents(self, texts: Sequence[str], length: int) -> tuple[list[Ids], list[int]]:
        """Ids of documents after `rerank_prefix`, each with the whole suffix.

        Args:
            texts: The documents' texts.
            length: The most tokens after the prefix, the suffix included.

        Returns:
            The ids, and the positions of truncated documents.
        """
        return self._cut([rerank_document(t) for t in texts], length, self.rerank_suffix)

    def _cut(self, texts: Sequence[str], length: int, suffix: Ids) -> tuple[list[Ids], list[int]]:
        room = length - len(suffix)
        rows = self.encode_many(texts)
        cut = [i for i, row in enumerate(rows) if len(row) > room]
        return [row[:room] + suffix for row in rows], cut


def _is_word(token: dict[str, Any]) -> bool:
    """Whether an added token is a word of texts, not a control token of prompts."""
    return not token.get("special") and token["content"] not in CONTROL_TOKENS


_NORMALIZER: Final = {"type": "NFC"}
_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MODEL: Final[dict[str, tuple[Any, ...]]] = {
    "type": ("BPE",),
    "dropout": (None,),
    "unk_token": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "fuse_unk": (None, False),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


def _own_parts(data: dict[str, Any]) -> tuple[str, ...]:
    """Parts of a tokenizer.json that differ from the published Qwen3 tokenizer's."""
    steps = (data.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    split: dict[str, Any] = {
        "type": "Split",
        "pattern": {"Regex": _PATTERN},
        "behavior": "Isolated",
    }
    read: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    standard = {
        "normalizer": data.get("normalizer") == _NORMALIZER,
        "pre_tokenizer": len(steps) == 2
        and all(
            {key: step.get(key) for key in part} == part and not step.get("invert")
            for step, part in zip(steps, (split, read), strict=True)
        ),
        "model": all(data["model"].get(key) in values for key, values in _MODEL.items()),
    }
    return tuple(part for part, plain in standard.items() if not plain)
