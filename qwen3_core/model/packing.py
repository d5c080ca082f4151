"""Concatenates ragged token sequences into few packs, without padding.

Sequences with the same prefix (an instruction, a query) form one branch of a pack: the prefix comes
once, its segments follow. Tokens of a prefix that are cached from earlier packs are left out. A
pack may hold several branches, so that unrelated work shares a forward pass.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from qwen3_core.tokenizer import Ids


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One sequence to encode: `prefix + ids`. The result is read at its last token."""

    prefix: Ids
    """Token ids shared with other sequences; may be empty."""
    ids: Ids
    """Token ids after the prefix; at least one."""


class Work:
    """One request's unpacked sequences: in order, but those with equal prefixes together."""

    def __init__(self, sequences: Sequence[TokenSequence]) -> None:
        """Queue the sequences.

        Raises:
            ValueError: If a sequence has no tokens after its prefix.
        """
        groups: dict[Ids, list[int]] = {}
        for i, sequence in enumerate(sequences):
            if not sequence.ids:
                msg = f"sequence {i} has no tokens after its prefix"
                raise ValueError(msg)
            groups.setdefault(sequence.prefix, []).append(i)
        self.sequences = sequences
        self._order = [i for members in groups.values() for i in members]
        self._taken = 0

    @property
    def waiting(self) -> bool:
        """Whether any sequence is still unpacked."""
        return self._taken < len(self._order)

    @property
    def waiting_tokens(self) -> int:
        """Unpacked tokens, excluding prefixes."""
        return sum(len(self.sequences[i].ids) for i in self._order[self._taken :])

    def peek(self) -> int:
        """Index of the next sequence."""
        return self._order[self._taken]

    def take(self) -> int:
        """Take the next sequence; returns its index."""
        self._taken += 1
        return self._order[self._taken - 1]

    def give_back(self, count: int) -> None:
        """Return the last `count` sequences to the queue."""
        self._taken -= count


@dataclass(frozen=True, slots=True)
class Branch:
    """One prefix and its segments; slices are rows of the pack."""

    prefix: Ids
    """The prefix's token ids, the cached ones included."""
    cached: int
    """Leading prefix tokens that are already cached, so not computed in this pack."""
    prefix_rows: slice
    """Rows of the other prefix tokens; may be empty."""
    segments: tuple[slice, ...]


W = TypeVar("W", bound=Work)


@dataclass(frozen=True, slots=True)
class Pack(Generic[W]):
    """One row of tokens for one forward pass."""

    ids: list[int]
    positions: list[int]
    branches: tuple[Branch, ...]
    members: tuple[tuple[W, int], ...]
    """For each segment, over all branches: its work, and its index there."""

    @property
    def last_rows(self) -> list[int]:
        """The row of each segment's last token, in the order of `members`."""
        return [s.stop - 1 for branch in self.branches for s in branch.segments]


CachedTokens: TypeAlias = Callable[[Ids], int]
"""The number of leading tokens of a prefix whose keys and values are cached."""

Line: TypeAlias = tuple[Iterable[W], int]
"""A queue of work, and the pack's token limit after drawing from it."""


def nothing_cached(prefix: Ids) -> int:
    """`CachedTokens` of an empty cache."""
    del prefix
    return 0


def next_pack(lines: Iterable[Line[W]], cached: CachedTokens = nothing_cached) -> Pack[W]:
    """Build the next pack, drawing from the queues in order.

    Sequences with equal prefixes become one branch, also those of different callers. A sequence
    longer than its queue's limit gets a pack to itself; it is never truncated.

    Args:
        lines: Queues with their token limits, each at least 1 and not below the one before
            (defaults: `encoder.DEFAULT_PACK_TOKENS`). Sequences in the pack leave their queue.
        cached: How many leading tokens of each prefix are cached.

    Returns:
        The pack; empty if all queues are.
    """
    groups: dict[Ids, list[tuple[W, int]]] = {}
    used = 0
    for works, limit in lines:
        for work in works:
            while work.waiting:
                sequence = work.sequences[work.peek()]
                cost = len(sequence.ids)
                if sequence.prefix not in groups:
                    cost += len(sequence.prefix) - cached(sequence.prefix)
                if used and used + cost > limit:
                    break
                groups.setdefault(sequence.prefix, []).append((work, work.take()))
                used += cost
            if used >= limit:
                break
    return _concatenate(groups, cached)


def _concatenate(groups: dict[Ids, list[tuple[W, int]]], cached: CachedTokens) -> Pack[W]:
    """Each prefix without its cached tokens, followed by its segments."""
    ids: list[int] = []
    positions: list[int] = []
    branches = []
    for prefix, members in groups.items():
        start, skipped = len(ids), cached(prefix)
        ids += prefix[skipped:]
        positions += range(skipped, len(prefix))
        prefix_rows = slice(start, len(ids))
        segments = []
        for work, index in members:
            own = work.sequences[index].ids
            begin = len(ids)
            ids += own
            positions += range(len(prefix), len(prefix) + len(own))
            segments.append(slice(begin, len(ids)))
        branches.append(Branch(prefix, skipped, prefix_rows, tuple(segments)))
    everyone = tuple(member for members in groups.values() for member in members)
    return Pack(ids, positions, tuple(branches), everyone)
