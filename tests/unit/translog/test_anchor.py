"""Anchors: what counts in one, and the time that it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.limits import ANCHOR_BYTES_MAX
from sfrl_secure.translog.anchor import format_anchor, open_anchor, parse_anchor, quorum_time
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import Cosigner
from sfrl_secure.translog.merkle import EMPTY_ROOT
from sfrl_secure.translog.note import (
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    add_signatures,
    format_note,
    parse_note,
)
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup

from .conftest import LOG_TIME, make_cosigner, make_note_signer

ORIGIN = "log.example/anchored"
LOG = make_note_signer(ORIGIN)
LOG_ML_DSA = make_cosigner(ORIGIN, ML_DSA_44_COSIGNATURE)
NEXT_LOG = make_note_signer(ORIGIN)
NEXT_ML_DSA = make_cosigner(ORIGIN, ML_DSA_44_COSIGNATURE)
NAMES = ("w1", "w2", "w3")
WITNESSES = {name: make_cosigner(f"{name}.example", ED25519_COSIGNATURE) for name in NAMES}
TWIN = make_cosigner("w1.example", ML_DSA_44_COSIGNATURE)
LONER = make_cosigner("w9.example", ML_DSA_44_COSIGNATURE)
CHECKPOINT = Checkpoint(ORIGIN, 7, EMPTY_ROOT)
TEXT = format_checkpoint(CHECKPOINT)
POLICY = TrustPolicy(
    (TrustedLog(ORIGIN, (LOG.key, LOG_ML_DSA.key, NEXT_LOG.key, NEXT_ML_DSA.key)),),
    tuple(TrustedWitness(name, each.key) for name, each in WITNESSES.items()),
    (WitnessGroup("two", 2, NAMES),),
    "two",
)


def lines_of(times: Mapping[str, int]) -> list[NoteSignature]:
    return [WITNESSES[name].cosign(TEXT, seconds) for name, seconds in times.items()]


def anchor(lines: Iterable[NoteSignature]) -> bytes:
    return format_note(Note(TEXT, tuple(lines)))


def with_a_flipped_bit(line: NoteSignature) -> NoteSignature:
    return replace(line, value=line.value[:-1] + bytes([line.value[-1] ^ 1]))


GOOD = {"w1": LOG_TIME, "w2": LOG_TIME + 1}


def test_an_anchor_says_what_its_checkpoint_says() -> None:
    raw = anchor([LOG.sign(TEXT), *lines_of(GOOD)])
    assert parse_anchor(raw) == CHECKPOINT
    opened = open_anchor(raw, POLICY)
    assert (opened.checkpoint, opened.time_seconds) == (CHECKPOINT, LOG_TIME + 1)


def test_an_anchor_of_a_published_note_has_its_ed25519_lines_and_no_others() -> None:
    stranger = make_cosigner("stranger.example", ED25519_COSIGNATURE)
    lines = [LOG.sign(TEXT), LOG_ML_DSA.cosign(TEXT, 5), *lines_of(GOOD), stranger.cosign(TEXT, 5)]
    published = add_signatures(Note(TEXT, tuple(lines)), [TWIN.cosign(TEXT, LOG_TIME)])
    raw = format_anchor(format_note(published), POLICY)
    assert parse_note(raw) == Note(TEXT, (lines[0], *lines[2:4]))
    assert len(raw) < 600
    assert open_anchor(raw, POLICY).time_seconds == LOG_TIME + 1


def test_nothing_is_anchored_that_nobody_known_signed() -> None:
    with pytest.raises(MalformedError):
        format_anchor(anchor([LOG_ML_DSA.cosign(TEXT, 5)]), POLICY)


def test_an_anchor_that_nobody_would_take_is_not_made() -> None:
    names = [f"w{number}.{'x' * 200}" for number in range(30)]
    many = {name: make_cosigner(name, ED25519_COSIGNATURE) for name in names}
    policy = replace(
        POLICY, witnesses=tuple(TrustedWitness(name, each.key) for name, each in many.items()), groups=(), quorum="none"
    )
    with pytest.raises(MalformedError):
        format_anchor(anchor([LOG.sign(TEXT), *(each.cosign(TEXT, 5) for each in many.values())]), policy)


def test_an_anchor_is_bounded() -> None:
    lines = [LOG.sign(TEXT), *lines_of(GOOD)]
    beside = len(anchor([*lines, NoteSignature("n", b"1234", b"x" * 72)])) - 1
    full = anchor([*lines, NoteSignature("n" * (ANCHOR_BYTES_MAX - beside), b"1234", b"x" * 72)])
    assert len(full) == ANCHOR_BYTES_MAX
    assert parse_anchor(full) == CHECKPOINT
    with pytest.raises(MalformedError):
        parse_anchor(anchor([*lines, NoteSignature("n" * (ANCHOR_BYTES_MAX - beside + 1), b"1234", b"x" * 72)]))


@pytest.mark.parametrize("raw", [b"", b"text\n", b"a\nb\nc\n\n\xe2\x80\x94 x AAAAAAA=\n", TEXT.encode()])
def test_what_is_no_checkpoint_note_is_no_anchor(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_anchor(raw)
    with pytest.raises(MalformedError):
        open_anchor(raw, POLICY)


def test_an_ed25519_key_of_the_log_must_have_signed() -> None:
    with pytest.raises(SignatureError):
        open_anchor(anchor([LOG_ML_DSA.cosign(TEXT, 5), *lines_of(GOOD)]), POLICY)


@pytest.mark.parametrize("signer", [LOG, NEXT_LOG])
def test_any_generation_of_the_log_may_have_signed(signer: object) -> None:
    assert isinstance(signer, type(LOG))
    assert open_anchor(anchor([signer.sign(TEXT), *lines_of(GOOD)]), POLICY).time_seconds == LOG_TIME + 1


def test_another_log_has_no_anchor_here() -> None:
    policy = replace(POLICY, logs=())
    with pytest.raises(SignatureError):
        open_anchor(anchor([LOG.sign(TEXT), *lines_of(GOOD)]), policy)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_counts_must_hold(place: int) -> None:
    lines = [LOG.sign(TEXT), *lines_of(GOOD)]
    lines[place] = with_a_flipped_bit(lines[place])
    with pytest.raises(SignatureError):
        open_anchor(anchor(lines), POLICY)


def test_lines_in_ml_dsa_are_not_looked_at() -> None:
    lines = [LOG.sign(TEXT), *lines_of(GOOD), with_a_flipped_bit(LOG_ML_DSA.cosign(TEXT, 5))]
    assert open_anchor(anchor(lines), POLICY).time_seconds == LOG_TIME + 1


def test_too_few_witnesses_give_no_time() -> None:
    assert open_anchor(anchor([LOG.sign(TEXT), *lines_of({"w1": LOG_TIME})]), POLICY).time_seconds is None


def test_a_witness_at_time_zero_is_not_there() -> None:
    times = {"w1": LOG_TIME, "w2": 0}
    assert open_anchor(anchor([LOG.sign(TEXT), *lines_of(times)]), POLICY).time_seconds is None


def twins_policy(*second: tuple[str, Cosigner]) -> TrustPolicy:
    """A quorum of one witness with an Ed25519 key and whatever else."""
    witnesses = [TrustedWitness("w1", WITNESSES["w1"].key), *(TrustedWitness(name, each.key) for name, each in second)]
    group = WitnessGroup("all", len(witnesses), tuple(each.name for each in witnesses))
    return replace(POLICY, witnesses=tuple(witnesses), groups=(group,), quorum="all")


def test_the_ed25519_line_of_a_witness_speaks_for_its_ml_dsa_key() -> None:
    raw = anchor([LOG.sign(TEXT), *lines_of({"w1": LOG_TIME})])
    assert open_anchor(raw, twins_policy(("w1-ml-dsa", TWIN))).time_seconds == LOG_TIME


def test_an_ml_dsa_key_of_another_name_is_not_there() -> None:
    raw = anchor([LOG.sign(TEXT), *lines_of({"w1": LOG_TIME})])
    assert open_anchor(raw, twins_policy(("w9", LONER))).time_seconds is None


def test_two_ed25519_keys_of_one_name_are_two_witnesses() -> None:
    name = "witness.example/shared"
    first, second = (make_cosigner(name, ED25519_COSIGNATURE) for _ in range(2))
    both = TrustPolicy(
        POLICY.logs,
        (TrustedWitness("a", first.key), TrustedWitness("b", second.key)),
        (WitnessGroup("both", 2, ("a", "b")),),
        "both",
    )
    lines = [each.cosign(TEXT, LOG_TIME) for each in (first, second)]
    assert open_anchor(anchor([LOG.sign(TEXT), lines[0]]), both).time_seconds is None
    assert open_anchor(anchor([LOG.sign(TEXT), *lines]), both).time_seconds == LOG_TIME
    # Nobody knows whose an ML-DSA key of that name is.
    twin = make_cosigner(name, ML_DSA_44_COSIGNATURE)
    three = replace(
        both,
        witnesses=(*both.witnesses, TrustedWitness("c", twin.key)),
        groups=(WitnessGroup("all", 3, ("a", "b", "c")),),
        quorum="all",
    )
    assert open_anchor(anchor([LOG.sign(TEXT), *lines]), three).time_seconds is None


# Quorum time


@pytest.mark.parametrize(
    ("lie", "expected"), [(1, LOG_TIME + 10), (LOG_TIME + 5, LOG_TIME + 10), (2**62, LOG_TIME + 20)]
)
@pytest.mark.parametrize("liar", NAMES)
def test_one_witness_that_lies_does_not_move_the_time(liar: str, lie: int, expected: int) -> None:
    """Two of three are the quorum: whatever one says, the time lies between two that were right."""
    honest = [name for name in NAMES if name != liar]
    assert quorum_time(POLICY, {liar: lie, honest[0]: LOG_TIME + 10, honest[1]: LOG_TIME + 20}) == expected


@given(times=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)))
def test_the_time_is_the_first_at_which_the_quorum_is_met(times: dict[str, int]) -> None:
    pairs = [max(times[name] for name in pair) for pair in combinations(times, 2)]
    assert quorum_time(POLICY, times) == min(pairs, default=None)


def test_a_policy_that_asks_for_nobody_has_no_time() -> None:
    assert quorum_time(replace(POLICY, quorum="none"), GOOD) is None
