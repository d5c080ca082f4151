"""The installation hint for missing packages of an extra."""


def how_to_install(extra: str) -> str:
    """The end of an error message: the command that installs an extra, such as "langchain".

    The first form adds the extra's packages to the installed distribution, whether it came from a
    clone or from a wheel: pip and uv do not look for another one on the index.
    """
    return (
        f'run `pip install "qwen3-retrieval[{extra}]"` (from a clone: `pip install ".[{extra}]"`)'
    )
