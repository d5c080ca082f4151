"""The installation hint for missing packages of an extra."""


def how_to_install(extra: str) -> str:
    """The end of an error message: the command that installs an extra, such as "langchain"."""
    return (
        f'run `pip install "qwen3-retrieval[{extra}]"` (from a clone: `pip install ".[{extra}]"`)'
    )
