"""What to say when the packages of the extra "langchain" are not there."""


def not_installed(package: str) -> str:
    """The text of the error, which says how to install the package."""
    return (
        f'{package} is not installed: run `pip install "qwen3-retrieval[langchain]"` '
        '(from a clone: `pip install ".[langchain]"`)'
    )
