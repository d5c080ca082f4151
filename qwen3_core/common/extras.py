"""What to say where the packages of an extra are missing."""


def how_to_install(extra: str) -> str:
    """The end of an error: the command that installs an extra, such as "langchain".

    The first form adds the extra's packages to an installed distribution, be it from a clone or from
    a wheel: pip and uv look for no other one on the index.
    """
    return (
        f'run `pip install "qwen3-retrieval[{extra}]"` (from a clone: `pip install ".[{extra}]"`)'
    )
