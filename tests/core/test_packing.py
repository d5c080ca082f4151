"""Packs hold every sequence once, in budget, with the positions and rows it needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_core.packing import Pack, TokenSequence, plan

PREFIXES = st.sampled_from([(), (1,), (2, 3), (4, 5, 6, 7), tuple(range(100, 130))])
SEQUENCES = st.lists(
    st.builds(
        TokenSequence,
        PREFIXES,
        st.lists(st.integers(10, 99), min_size=1, max_size=12).map(tuple),
    ),
    max_size=30,
)


def unpack(packs: list[Pack], known: set) -> dict[int, list[tuple[int, int]]]:
    """Each sequence's (position, id) pairs, as a segment of the packs can see them."""
    seen: dict[int, list[tuple[int, int]]] = {}
    carried = None
    laid = {prefix: list(enumerate(prefix)) for prefix in known} | {(): []}
    for pack in packs:
        cells = list(zip(pack.positions, pack.ids, strict=True))
        order = iter(pack.order)
        for branch in pack.branches:
            if branch.prefix_rows.stop > branch.prefix_rows.start:
                laid[branch.prefix] = cells[branch.prefix_rows]
            if branch.prefix and branch.prefix not in known:
                # Its keys and values come from this pack, or were carried over from the last.
                rows = branch.prefix_rows
                assert rows.stop > rows.start or carried == branch.prefix
            for rows in branch.segments:
                before = [] if branch.joined else laid[branch.prefix]
                index = next(order)
                assert index not in seen, "a sequence is laid twice"
                seen[index] = before + cells[rows]
        assert next(order, None) is None
        assert not any(branch.continues for branch in pack.branches[:-1])
        carried = pack.branches[-1].prefix if pack.branches[-1].continues else None
    assert carried is None
    return seen


@given(sequences=SEQUENCES, budget=st.integers(1, 60), known=st.sets(PREFIXES.filter(bool)))
def test_every_sequence_is_laid_once_and_whole(sequences, budget, known):
    packs = list(plan(sequences, budget, known))
    expected = {i: list(enumerate(s.prefix + s.ids)) for i, s in enumerate(sequences)}
    assert unpack(packs, known) == expected


@given(sequences=SEQUENCES, budget=st.integers(1, 60))
def test_a_pack_over_budget_holds_one_sequence_alone(sequences, budget):
    for pack in plan(sequences, budget):
        assert len(pack.ids) <= budget or len(pack.order) == 1


@given(sequences=SEQUENCES, budget=st.integers(1, 60))
def test_a_prefix_is_laid_once(sequences, budget):
    laid = [
        branch.prefix
        for pack in plan(sequences, budget)
        for branch in pack.branches
        if branch.prefix_rows.stop > branch.prefix_rows.start
    ]
    assert sorted(laid) == sorted({s.prefix for s in sequences} - {()})


def test_last_rows_point_at_the_last_tokens():
    (pack,) = plan([TokenSequence((1, 2), (3, 4)), TokenSequence((1, 2), (5,))], 100)
    assert pack.ids == [1, 2, 3, 4, 5]
    assert pack.positions == [0, 1, 2, 3, 2]
    assert pack.last_rows == [3, 4]


def test_different_prefixes_share_a_pack():
    (pack,) = plan([TokenSequence((1,), (2,)), TokenSequence((), (3,))], 100)
    assert len(pack.branches) == 2


def test_nothing_gives_no_pack():
    assert list(plan([], 10)) == []


def test_budget_below_one_is_refused():
    with pytest.raises(ValueError, match="token budget must be at least 1, got 0"):
        list(plan([], 0))


def test_sequence_without_own_token_is_refused():
    with pytest.raises(ValueError, match="sequence 1 has no token of its own"):
        list(plan([TokenSequence((), (1,)), TokenSequence((1,), ())], 10))
