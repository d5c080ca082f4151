"""What to say where the packages of an extra are missing."""


def how_to_install(extra: str) -> str:
    """The end of an error: the command that installs an extra, such as "langchain"."""
    return (
        f'run `pip install "qwen3-retrieval[{extra}]"` (from a clone: `pip install ".[{extra}]"`)'
    )
