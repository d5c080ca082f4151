"""Packs hold every sequence once, in budget, with the positions and rows it needs."""

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_core.model.packing import Pack, TokenSequence, Work, next_pack

PREFIXES = st.sampled_from([(), (1,), (2, 3), (2, 3, 8), (4, 5, 6, 7), tuple(range(100, 130))])
SEQUENCES = st.lists(
    st.builds(
        TokenSequence,
        PREFIXES,
        st.lists(st.integers(10, 99), min_size=1, max_size=12).map(tuple),
    ),
    max_size=30,
)


BUDGETS = st.integers(1, 60)
KNOWN = st.dictionaries(PREFIXES, st.integers(0, 30))


def packs_of(works: list[Work], budget: int, known=MappingProxyType({})) -> list[Pack[Work]]:
    packs = []
    while (pack := next_pack([(works, budget)], lambda p: min(known.get(p, 0), len(p)))).members:
        packs.append(pack)
    return packs


def unpack(packs: list[Pack[Work]], known=MappingProxyType({})) -> dict[tuple[Work, int], list]:
    """Each sequence's (position, id) pairs, as its last token can see them."""
    seen: dict[tuple[Work, int], list] = {}
    for pack in packs:
        cells = list(zip(pack.positions, pack.ids, strict=True))
        members = iter(pack.members)
        for branch in pack.branches:
            assert branch.cached == min(known.get(branch.prefix, 0), len(branch.prefix))
            before = list(enumerate(branch.prefix))[: branch.cached]
            before += cells[branch.prefix_rows]
            for rows in branch.segments:
                member = next(members)
                assert member not in seen, "a sequence is laid twice"
                seen[member] = before + cells[rows]
        assert next(members, None) is None
    return seen


@given(callers=st.lists(SEQUENCES, max_size=4), budget=BUDGETS, known=KNOWN)
def test_every_sequence_of_every_caller_is_laid_once_and_whole(callers, budget, known):
    works = [Work(sequences) for sequences in callers]
    assert unpack(packs_of(works, budget, known), known) == {
        (work, i): list(enumerate(sequence.prefix + sequence.ids))
        for work in works
        for i, sequence in enumerate(work.sequences)
    }


@given(sequences=SEQUENCES, budget=BUDGETS)
def test_a_pack_over_budget_holds_one_sequence_alone(sequences, budget):
    for pack in packs_of([Work(sequences)], budget):
        assert len(pack.ids) <= budget or len(pack.members) == 1


@given(callers=st.lists(SEQUENCES, max_size=4), budget=BUDGETS)
def test_a_prefix_is_laid_once_a_pack(callers, budget):
    for pack in packs_of([Work(sequences) for sequences in callers], budget):
        prefixes = [branch.prefix for branch in pack.branches]
        assert len(prefixes) == len(set(prefixes))


def test_last_rows_point_at_the_last_tokens():
    (pack,) = packs_of([Work([TokenSequence((1, 2), (3, 4)), TokenSequence((1, 2), (5,))])], 100)
    assert pack.ids == [1, 2, 3, 4, 5]
    assert pack.positions == [0, 1, 2, 3, 2]
    assert pack.last_rows == [3, 4]


def test_callers_with_an_equal_prefix_share_it():
    works = [Work([TokenSequence((1, 2), (i,))]) for i in range(3, 6)]
    (pack,) = packs_of(works, 100)
    assert pack.ids == [1, 2, 3, 4, 5]


def test_a_small_caller_fills_the_room_that_a_large_one_leaves():
    large = Work([TokenSequence((), (1,) * 6), TokenSequence((), (1,) * 6)])
    small = Work([TokenSequence((), (2,) * 3)])
    pack = next_pack([([large, small], 10)])
    assert [work for work, _ in pack.members] == [large, small]


def test_lines_have_their_own_limits():
    first, second = (Work([TokenSequence((), (i,))] * 10) for i in (1, 2))
    pack = next_pack([([first], 4), ([second], 6)])
    assert pack.ids == [1, 1, 1, 1, 2, 2]


def test_a_known_prefix_takes_no_room_and_a_new_one_takes_its_own():
    work = Work([TokenSequence(prefix, (i,)) for prefix in ((1, 2), (3, 4)) for i in range(5, 8)])
    pack = next_pack([([work], 4)], lambda prefix: 2 * (prefix == (1, 2)))
    assert pack.ids == [5, 6, 7], "another prefix would not fit"
    (whole,) = packs_of([Work([TokenSequence((1, 2), (i,)) for i in range(5, 8)])], 5)
    assert whole.ids == [1, 2, 5, 6, 7], "a prefix is paid for once"


def test_a_full_pack_asks_nobody_else():
    def works():
        yield Work([TokenSequence((), (1,))])
        pytest.fail("asked for more")

    assert next_pack([(works(), 1)]).ids == [1]


def test_what_waits_is_counted_and_can_be_given_back():
    work = Work([TokenSequence((1,), (2,) * n) for n in (1, 2, 3)])
    assert (work.waiting_tokens, work.peek()) == (6, 0)
    assert [work.take(), work.take()] == [0, 1]
    assert (work.waiting_tokens, work.peek()) == (3, 2)
    work.give_back(1)
    assert (work.waiting_tokens, work.peek()) == (5, 1)
    assert [work.take(), work.take()] == [1, 2]
    assert (work.waiting_tokens, work.waiting) == (0, False)


def test_nothing_gives_an_empty_pack():
    assert next_pack([([], 10)]).members == ()


def test_sequence_without_own_token_is_refused():
    with pytest.raises(ValueError, match="sequence 1 has no tokens after its prefix"):
        Work([TokenSequence((), (1,)), TokenSequence((1,), ())])


def test_what_is_given_back_comes_again():
    work = Work([TokenSequence((), (i,)) for i in range(5)])
    assert [work.take() for _ in range(4)] == [0, 1, 2, 3]
    work.give_back(1)
    assert work.take() == 3
    work.give_back(2)
    assert [work.take() for _ in range(3)] == [2, 3, 4]
    assert not work.waiting
