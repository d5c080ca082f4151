"""What a store with an open connection does when it is pickled or copied."""

from typing import Any, ClassVar, Self


class HoldsConnection:
    """Mixin of the frameworks' stores: they cannot be pickled, and copies share the connection."""

    _EMBEDDINGS: ClassVar[str]
    """Name of the first argument of the package's `open_milvus`."""
    _MADE_WITH_IT: ClassVar[str]
    """What users make with a store."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        """Refuse to pickle the store: it has open connections and may have a token.

        Raises:
            TypeError: Always; it names the collection and the fix.
        """
        msg = (
            f"a {type(self).__name__} cannot be pickled, because it holds an open connection (to "
            f"collection {self.collection_name!r}): call open_milvus({self._EMBEDDINGS}, uri=..., "
            f"collection_name={self.collection_name!r}) in the other process, and make the "
            f"{self._MADE_WITH_IT} there"
        )
        raise TypeError(msg)

    def __copy__(self) -> Self:
        """Return the store itself: copies of what is made with it share its connection."""
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return the store itself, as `__copy__` does."""
        return self
