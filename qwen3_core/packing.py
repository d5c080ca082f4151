"""Lays ragged token sequences behind one another into few packs, without padding.

Sequences that begin with the same prefix (an instruction, a query) form one branch of a pack: the
prefix is laid once, its segments follow. A pack may hold several branches, so that unrelated work
shares a forward pass.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One sequence to encode: `prefix + ids`. The answer sits at its last token."""

    prefix: Ids
    """Token ids shared with other sequences; may be empty."""
    ids: Ids
    """Token ids of its own; at least one."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One prefix and its segments; slices are rows of the pack."""

    prefix: Ids
    """The prefix's token ids, also when its rows are not in this pack."""
    prefix_rows: slice
    """Where the prefix lies in this pack; empty when its keys and values are known already."""
    segments: tuple[slice, ...]
    joined: bool
    """True if the only segment includes the prefix's rows, as one plain causal sequence."""
    continues: bool
    """True if the next pack begins with more segments of this prefix, which is not laid there."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One row of tokens for one forward pass."""

    ids: list[int]
    positions: list[int]
    branches: tuple[Branch, ...]
    order: tuple[int, ...]
    """For each segment, over all branches, the index of its sequence in the caller's list."""

    @property
    def last_rows(self) -> list[int]:
        """The row of each segment's last token, in the order of `order`."""
        return [s.stop - 1 for branch in self.branches for s in branch.segments]


class _Builder:
    """A pack while it is being filled."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.branches: list[Branch] = []
        self.order: list[int] = []

    def add(
        self, prefix: Ids, members: list[tuple[int, Ids]], *, known: bool, continues: bool
    ) -> None:
        """Lay one prefix (unless its keys and values are known) and the segments behind it."""
        start = len(self.ids)
        if not known:
            self._lay(prefix, 0)
        prefix_rows = slice(start, len(self.ids))
        joined = not known and bool(prefix) and len(members) == 1
        segments = []
        for index, ids in members:
            begin = start if joined else len(self.ids)
            self._lay(ids, len(prefix))
            segments.append(slice(begin, len(self.ids)))
            self.order.append(index)
        self.branches.append(Branch(prefix, prefix_rows, tuple(segments), joined, continues))

    def _lay(self, ids: Ids, position: int) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))

    def pack(self) -> Pack:
        return Pack(self.ids, self.positions, tuple(self.branches), tuple(self.order))


def plan(
    sequences: Sequence[TokenSequence], budget: int, known: Collection[Ids] = ()
) -> Iterator[Pack]:
    """Group sequences by prefix and lay them into packs of at most `budget` tokens.

    Packs must be run in the order they come: a prefix is laid in the first pack that needs it, and
    the packs after it rely on its keys and values. Sequences of one prefix keep their order. A
    sequence longer than the budget gets a pack of its own; it is never cut.

    Args:
        sequences: What to encode; each with at least one token of its own.
        budget: Tokens per pack, at least 1.
        known: Prefixes whose keys and values are at hand already.

    Raises:
        ValueError: If the budget is below 1 or a sequence has no token of its own.
    """
    if budget < 1:
        msg = f"the token budget must be at least 1, got {budget}"
        raise ValueError(msg)
    groups: dict[Ids, list[tuple[int, Ids]]] = {}
    for i, sequence in enumerate(sequences):
        if not sequence.ids:
            msg = f"sequence {i} has no token of its own"
            raise ValueError(msg)
        groups.setdefault(sequence.prefix, []).append((i, sequence.ids))

    builder = _Builder()
    for prefix, members in groups.items():
        laid = not prefix or prefix in known
        begin = 0
        while begin < len(members):
            room = budget - len(builder.ids) - (0 if laid else len(prefix))
            end = begin
            while end < len(members) and len(members[end][1]) <= room:
                room -= len(members[end][1])
                end += 1
            if end == begin and builder.ids:
                yield builder.pack()
                builder = _Builder()
                continue
            end = max(end, begin + 1)
            more = end < len(members)
            builder.add(prefix, members[begin:end], known=laid, continues=more)
            laid, begin = True, end
    if builder.ids:
        yield builder.pack()
