"""The published way to run the models, with transformers alone, to compare ours with.

After the usage examples of https://github.com/QwenLM/Qwen3-Embedding: left padding, the last
token's state, one normalisation; and for the reranker the whole prompt, full logits, a softmax over
yes and no. Slow and simple on purpose; nothing here is shared with the package.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

TASK = "Given a web search query, retrieve relevant passages that answer the query"
HEAD = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class ReferenceEmbedder:
    """Left-padded batches through AutoModel, pooled at the last token."""

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModel.from_pretrained(folder, dtype=dtype).eval()

    @torch.no_grad()
    def embed(self, texts: Sequence[str], max_length: int, dimensions: int | None = None):
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        states = self.model(**batch).last_hidden_state[:, -1]
        return torch.nn.functional.normalize(states[:, :dimensions].float(), dim=1).numpy()


def query_prompt(query: str, task: str = TASK) -> str:
    return f"Instruct: {task}\nQuery:{query}"


class ReferenceReranker:
    """Left-padded batches of whole prompts through AutoModelForCausalLM, all logits computed."""

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.head = self.tokenizer.encode(HEAD, add_special_tokens=False)
        self.tail = self.tokenizer.encode(TAIL, add_special_tokens=False)
        self.yes = self.tokenizer.convert_tokens_to_ids("yes")
        self.no = self.tokenizer.convert_tokens_to_ids("no")

    @torch.no_grad()
    def log_odds(self, pairs: Sequence[tuple[str, str]], max_length: int, task: str = TASK):
        bodies = [f"<Instruct>: {task}\n<Query>: {q}\n<Document>: {d}" for q, d in pairs]
        room = max_length - len(self.head) - len(self.tail)
        rows = self.tokenizer(
            bodies,
            padding=False,
            truncation="longest_first",
            max_length=room,
            add_special_tokens=False,
            return_attention_mask=False,
        )["input_ids"]
        rows = [self.head + row + self.tail for row in rows]
        batch = self.tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
        logits = self.model(**batch).logits[:, -1].float()
        return (logits[:, self.yes] - logits[:, self.no]).numpy()
