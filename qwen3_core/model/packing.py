"""Lays ragged token sequences behind one another into few packs, without padding.

Sequences that begin with the same prefix (an instruction, a query) form one branch of a pack: the
prefix is laid once, its segments follow. Of a prefix whose first tokens are known from earlier
packs, the rest is laid. A pack may hold several branches, so that unrelated work shares a forward
pass.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from qwen3_core.tokenizer import Ids


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One sequence to encode: `prefix + ids`. The answer sits at its last token."""

    prefix: Ids
    """Token ids shared with other sequences; may be empty."""
    ids: Ids
    """Token ids of its own; at least one."""


class Work:
    """One caller's sequences, waiting to be taken into packs; grouped by prefix, else in order."""

    def __init__(self, sequences: Sequence[TokenSequence]) -> None:
        """Take the sequences.

        Raises:
            ValueError: If a sequence has no token of its own.
        """
        groups: dict[Ids, list[int]] = {}
        for i, sequence in enumerate(sequences):
            if not sequence.ids:
                msg = f"sequence {i} has no token of its own"
                raise ValueError(msg)
            groups.setdefault(sequence.prefix, []).append(i)
        self.sequences = sequences
        self._order = [i for members in groups.values() for i in members]
        self._taken = 0

    @property
    def waiting(self) -> bool:
        """Whether some sequence is in no pack yet."""
        return self._taken < len(self._order)

    @property
    def waiting_tokens(self) -> int:
        """Tokens of its own that the sequences in no pack yet have."""
        return sum(len(self.sequences[i].ids) for i in self._order[self._taken :])

    def peek(self) -> int:
        """Index of the sequence that is next."""
        return self._order[self._taken]

    def take(self) -> int:
        """Take the next sequence; returns its index."""
        self._taken += 1
        return self._order[self._taken - 1]

    def give_back(self, count: int) -> None:
        """Let the sequences taken last wait again."""
        self._taken -= count


@dataclass(frozen=True, slots=True)
class Branch:
    """One prefix and its segments; slices are rows of the pack."""

    prefix: Ids
    """The prefix's token ids, also those that have no rows in this pack."""
    known: int
    """How many of the prefix's first tokens have none, as their keys and values are at hand."""
    prefix_rows: slice
    """Where the rest of the prefix lies; may be empty."""
    segments: tuple[slice, ...]


W = TypeVar("W", bound=Work)


@dataclass(frozen=True, slots=True)
class Pack(Generic[W]):
    """One row of tokens for one forward pass."""

    ids: list[int]
    positions: list[int]
    branches: tuple[Branch, ...]
    members: tuple[tuple[W, int], ...]
    """For each segment, over all branches, whose it is and its index there."""

    @property
    def last_rows(self) -> list[int]:
        """The row of each segment's last token, in the order of `members`."""
        return [s.stop - 1 for branch in self.branches for s in branch.segments]


Known: TypeAlias = Callable[[Ids], int]
"""How many of a prefix's first tokens have keys and values at hand."""

Line: TypeAlias = tuple[Iterable[W], int]
"""Works to take sequences from, and how many tokens a pack may hold when it is done with them."""


def nothing_known(prefix: Ids) -> int:
    """A `Known` without any prefix."""
    del prefix
    return 0


def next_pack(lines: Iterable[Line[W]], known: Known = nothing_known) -> Pack[W]:
    """Take sequences, from the first works of the first line first, into one pack.

    Sequences with an equal prefix become one branch, whosever they are. A sequence longer than the
    line's tokens gets a pack of its own; it is never cut.

    Args:
        lines: Where to take from and up to how many tokens, at least 1, not falling from line to
            line. What is taken is not offered again.
        known: How much of each prefix need not be laid.

    Returns:
        The pack; it is empty if nothing was waiting.
    """
    groups: dict[Ids, list[tuple[W, int]]] = {}
    used = 0
    for works, limit in lines:
        for work in works:
            while work.waiting:
                sequence = work.sequences[work.peek()]
                cost = len(sequence.ids)
                if sequence.prefix not in groups:
                    cost += len(sequence.prefix) - known(sequence.prefix)
                if used and used + cost > limit:
                    break
                groups.setdefault(sequence.prefix, []).append((work, work.take()))
                used += cost
            if used >= limit:
                break
    return _lay(groups, known)


def _lay(groups: dict[Ids, list[tuple[W, int]]], known: Known) -> Pack[W]:
    """Lay what is not known of the prefixes, and behind each its segments."""
    ids: list[int] = []
    positions: list[int] = []
    branches = []
    for prefix, members in groups.items():
        start, skipped = len(ids), known(prefix)
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
