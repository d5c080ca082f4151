"""The packages of the extra `evaluation`, and the error if they are missing."""

from importlib.util import find_spec
from typing import Final

from qwen3_core.common.extras import how_to_install

PACKAGES: Final = {
    "bm25s": "bm25s",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "pytrec_eval": "pytrec-eval-terrier",
    "rich": "rich",
    "scipy": "scipy",
}
"""Import name -> distribution."""


def check_installed() -> None:
    """Check that the extra is installed, before hours of work fail for lack of it.

    Raises:
        ImportError: If a package of it is missing; the text names the extra.
    """
    missing = [distribution for name, distribution in PACKAGES.items() if find_spec(name) is None]
    if missing:
        msg = f"evaluation needs {', '.join(missing)}: {how_to_install('evaluation')}"
        raise ImportError(msg)
