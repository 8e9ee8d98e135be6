"""The server step against the formulas of the specification in Python's integers, in every form of its arguments."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.parts import sparse_where_few
from sfrl_secure.aggregation.server_state import ServerState, parse_server_state, state_bytes_max, state_coordinates
from sfrl_secure.aggregation.server_step import server_step
from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.governance.aggregation_terms import AdaptiveTerms, MomentumTerms, ServerTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.encode import pack_dense
from sfrl_secure.sparse.update import UpdatePart

N = 24

largest = st.sampled_from((VALUE_MAX, -VALUE_MAX))
magnitudes = st.one_of(st.integers(-20, 20), st.integers(-VALUE_MAX, VALUE_MAX), largest)
vectors = st.lists(st.one_of(st.just(0), magnitudes), min_size=N, max_size=N)
sparse_vectors = st.dictionaries(st.integers(0, N - 1), magnitudes, max_size=N // 4).map(
    lambda few: [few.get(at, 0) for at in range(N)]
)
decays = st.one_of(st.sampled_from((0, 1, 32_768, 65_535)), st.integers(0, 65_535))
momenta = st.builds(MomentumTerms, decays, st.one_of(st.sampled_from((1, 65_536, 2**20)), st.integers(1, 2**20)))
adaptives = st.builds(
    AdaptiveTerms, decays, decays, st.one_of(st.sampled_from((1, 2**22)), st.integers(1, 2**22)),
    st.one_of(st.sampled_from((1, VALUE_MAX)), st.integers(1, 2**20)),
)  # fmt: skip


def rhe(numerator: int, denominator: int) -> int:
    return round(Fraction(numerator, denominator))


def cut(value: int) -> int:
    return max(-VALUE_MAX, min(VALUE_MAX, value))


def slow(server: ServerTerms, a: list[int], state: list[int]) -> tuple[list[int], list[int]]:
    """The specification, coordinate by coordinate."""
    if isinstance(server, MomentumTerms):
        m = [cut(rhe(server.decay * old, 65_536) + new) for old, new in zip(state, a, strict=True)]
        return [cut(rhe(server.rate * each, 65_536)) for each in m], m
    pairs = zip(state[:N], a, strict=True)
    m = [rhe(server.decay * old + (65_536 - server.decay) * new, 65_536) for old, new in pairs]
    s = [max(server.decay_max * old // 65_536, abs(new)) for old, new in zip(state[N:], a, strict=True)]
    return [cut(rhe(server.rate * up, max(down, server.floor))) for up, down in zip(m, s, strict=True)], m + s


def vector(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def part_of(values: list[int]) -> UpdatePart:
    """In its one form: with indices where few are not zero."""
    return sparse_where_few(vector(values))


def values_of(part: UpdatePart, size: int) -> list[int]:
    found = np.zeros(size, dtype=np.int64)
    found[part.at] = part.values
    return found.tolist()


@settings(deadline=None, max_examples=300)
@given(st.one_of(momenta, adaptives), st.data())
def test_it_is_what_the_specification_says(server: ServerTerms, data: st.DataObject) -> None:
    """Over three rounds, with steps and states of both forms; the state is what comes back from its object."""
    size = state_coordinates(server, N)
    expected = [0] * size
    state = None
    for _ in range(3):
        a = data.draw(st.one_of(vectors, sparse_vectors))
        u, after = server_step(server, part_of(a), state, N)
        expected_u, expected = slow(server, a, expected)
        assert values_of(u, N) == expected_u
        assert after is not None
        assert values_of(after.values, size) == expected
        raw = after.to_bytes(16)
        assert len(raw) <= state_bytes_max(server, N)
        state = parse_server_state(raw, server, N, 16)
        assert values_of(state.values, size) == expected


@settings(deadline=None, max_examples=100)
@given(st.one_of(momenta, adaptives), sparse_vectors, sparse_vectors)
def test_the_form_of_its_arguments_changes_nothing(server: ServerTerms, a: list[int], m: list[int]) -> None:
    size = state_coordinates(server, N)
    rows = m + [abs(each) for each in m] if size > N else m
    forms = []
    for dense_a in (False, True):
        for dense_state in (False, True):
            step = UpdatePart(slice(0, N), vector(a)) if dense_a else part_of(a)
            values = UpdatePart(slice(0, size), vector(rows)) if dense_state else part_of(rows)
            u, after = server_step(server, step, ServerState(size, values), N)
            assert after is not None
            forms.append((u.at, u.values.tolist(), after.to_bytes(16)))
    for at, values, raw in forms[1:]:
        assert (values, raw) == forms[0][1:]
        assert np.array_equal(np.r_[at], np.r_[forms[0][0]])


@settings(deadline=None, max_examples=60)
@given(adaptives, st.lists(st.integers(-VALUE_MAX, VALUE_MAX), min_size=2 * N, max_size=2 * N))
def test_any_state_that_an_entry_may_name_gives_what_the_formulas_give(server: ServerTerms, state: list[int]) -> None:
    """A liar's state has an s below zero; nothing divides by it."""
    a = [at - 7 for at in range(N)]
    u, after = server_step(server, part_of(a), ServerState(2 * N, part_of(state)), N)
    assert after is not None
    assert (values_of(u, N), values_of(after.values, 2 * N)) == slow(server, a, state)


def test_without_a_server_step_the_aggregate_is_the_step() -> None:
    a = part_of([5] + [0] * (N - 1))
    assert server_step(None, a, None, N) == (a, None)


def test_blocks_of_a_large_model_join_without_a_seam() -> None:
    """Across the size of a block, dense and sparse."""
    count = 3 * 32_768 + 17
    a = (np.arange(count) * 7_919) % 2_001 - 1_000
    few = np.where(np.arange(count) % 10 == 0, a, 0)
    server = AdaptiveTerms(decay=40_000, decay_max=65_000, rate=2**14, floor=9)
    state = None
    m, s = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for step in (few, a, few):
        u, state = server_step(server, sparse_where_few(step), state, count)
        sums = 40_000 * m + 25_536 * step
        m = np.array([rhe(each, 65_536) for each in sums.tolist()])
        s = np.maximum(65_000 * s // 65_536, np.abs(step))
        found = np.zeros(count, dtype=np.int64)
        found[u.at] = u.values
        down = np.maximum(s, 9).tolist()
        assert found.tolist() == [rhe(2**14 * up, each) for up, each in zip(m.tolist(), down, strict=True)]


@pytest.mark.parametrize("server", [MomentumTerms(1, 1), AdaptiveTerms(1, 1, 1, 1)])
def test_a_state_of_another_model_or_step_is_refused(server: ServerTerms) -> None:
    size = state_coordinates(server, N)
    for wrong in (size + 1, size // 2, 3 * N):
        with pytest.raises(MalformedError):
            server_step(server, part_of([0] * N), ServerState(wrong, part_of([0] * wrong)), N)
        with pytest.raises(PayloadError):
            parse_server_state(pack_dense(vector([5] * wrong), value_type="exact", grid_exponent=16), server, N, 16)
    with pytest.raises(PayloadError):
        parse_server_state(pack_dense(vector([5] * size), value_type="exact", grid_exponent=15), server, N, 16)
    with pytest.raises(PayloadError):
        parse_server_state(b"", server, N, 16)


def test_a_state_is_over_all_of_its_coordinates_and_within_bounds() -> None:
    for values in (
        UpdatePart(slice(0, N - 1), vector([1] * (N - 1))),
        UpdatePart(vector([N]), vector([1])),
        UpdatePart(vector([0]), vector([VALUE_MAX + 1])),
    ):
        with pytest.raises(MalformedError):
            ServerState(N, values)
