"""Progress bars on request."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm


@contextmanager
def progress_bar(what: str, total: int, show: bool) -> Iterator[Callable[[int], object] | None]:
    """Show a bar over `total` items on stderr; yields the function that advances it, or None."""
    if not show:
        yield None
        return
    with tqdm(total=total, desc=what) as bar:
        yield bar.update
