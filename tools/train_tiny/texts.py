"""Token ids of queries and documents in the prompts of both models."""

from tokenizers import Tokenizer

from .frames import RERANK_SUFFIX, query_prefix, rerank_head

MAX_QUERY_TOKENS = 64


class Encoder:
    """Builds id lists; a prompt is split only where its ids do not depend on what follows."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end = self.id_of("<|endoftext|>")
        self.yes = self.id_of("yes")
        self.no = self.id_of("no")
        self.suffix = self.ids(RERANK_SUFFIX)

    def id_of(self, token: str) -> int:
        """Id of one entry of the vocabulary; ValueError when it has none."""
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            msg = f"the vocabulary lacks {token!r}: train it on more text or more frames"
            raise ValueError(msg)
        return found

    def ids(self, text: str) -> list[int]:
        """Ids of a text, nothing added."""
        out: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return out

    def all_ids(self, texts: list[str], limit: int) -> list[list[int]]:
        """Ids of many texts, each cut at ``limit`` tokens."""
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [e.ids[:limit] for e in encoded]

    def words(self) -> list[int]:
        """A number for each entry of the vocabulary, equal for what differs by case and space only.

        -1 for entries without a letter or digit.
        """
        numbers: dict[str, int] = {}
        found = []
        for i in range(self.tokenizer.get_vocab_size()):
            word = self.tokenizer.decode([i]).strip().lower()
            known = any(map(str.isalnum, word))
            found.append(numbers.setdefault(word, len(numbers)) if known else -1)
        return found

    def query_head(self, task: str) -> list[int]:
        """Shared beginning of all embedded queries with one instruction.

        It ends before the colon: the pre-tokenizer may join a colon to the next word.
        """
        return self.ids(query_prefix(task).removesuffix(":"))

    def embedded_queries(self, queries: list[str], task: str) -> list[list[int]]:
        """What follows ``query_head`` for each query, end of text included."""
        texts = [f":{q}" if task else q for q in queries]
        return [[*ids, self.end] for ids in self.all_ids(texts, MAX_QUERY_TOKENS)]

    def rerank_head(self, task: str) -> list[int]:
        """Shared beginning of all reranker inputs with one instruction."""
        return self.ids(rerank_head(task))

    def rerank_query(self, query: str) -> list[int]:
        """What follows ``rerank_head`` up to the document."""
        middle = self.ids("\n<Document>:")
        ids = self.ids(f" {query}\n<Document>:")
        limit = MAX_QUERY_TOKENS + len(middle)
        return ids if len(ids) <= limit else ids[:MAX_QUERY_TOKENS] + middle
