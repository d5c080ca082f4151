"""What the tests of hostile input share."""

import json

import pytest
from tokenizers import Tokenizer

from tests.openai_server import OpenAIServer
from tests.remote.conftest import (  # noqa: F401 - fixtures
    certified,
    loaded,
    strangers,
)


@pytest.fixture
def openai_server():
    with OpenAIServer() as server:
        yield server


class Reader:
    """A tokenizer as published, which reads control tokens wherever a text spells them."""

    def __init__(self, path) -> None:
        data = json.loads(path.read_text(encoding="utf-8"))
        self._tokenizer = Tokenizer.from_file(str(path))
        self.ids = {token["id"]: token["content"] for token in data["added_tokens"]}

    def control(self, text: str) -> list[str]:
        """The control tokens that it finds in a text, in order."""
        return self.named(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def named(self, ids) -> list[str]:
        """The control tokens among ids, in order."""
        return [self.ids[i] for i in ids if i in self.ids]


@pytest.fixture(scope="session")
def reader(tokenizer_file) -> Reader:
    """The bundled tokenizer, and the published one where it is at hand."""
    return Reader(tokenizer_file)
