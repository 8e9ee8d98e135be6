"""A log that replaced its keys: what opens as current, what as archived, and what a stolen old key is good for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import sha256
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import Cosigner, log_lines
from sfrl_secure.translog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSigner,
    add_signatures,
    format_note,
    parse_note,
)
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import (
    TrustedLog,
    TrustedWitness,
    TrustPolicy,
    format_trust_policy,
    parse_trust_policy,
)

from .conftest import make_cosigner, make_note_signer

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"
CHECKPOINT = Checkpoint(ORIGIN, 7, sha256(b"root"))
TIME = 1_760_000_000

Pair = tuple[NoteSigner, Cosigner]


def make_pair() -> Pair:
    return make_note_signer(ORIGIN), make_cosigner(ORIGIN, ML_DSA_44_COSIGNATURE)


FIRST, SECOND, THIRD = make_pair(), make_pair(), make_pair()
WITNESS = make_cosigner("w.example/witness", ED25519_COSIGNATURE)


def policy_of(*pairs: Pair) -> TrustPolicy:
    keys = tuple(signer.key for pair in pairs for signer in pair)
    return TrustPolicy((TrustedLog(ORIGIN, keys),), (TrustedWitness("w", WITNESS.key),), (), "w")


def signed(*pairs: Pair, witnessed: bool = False) -> bytes:
    lines = [line for pair in pairs for line in log_lines(CHECKPOINT, *pair, TIME)]
    if witnessed:
        lines.append(WITNESS.cosign(format_checkpoint(CHECKPOINT), TIME))
    return format_note(Note(format_checkpoint(CHECKPOINT), tuple(lines)))


OLD, BOTH, NEW = policy_of(FIRST), policy_of(FIRST, SECOND), policy_of(SECOND)


def test_pairs_in_the_order_of_the_file_are_generations_and_the_first_is_in_genesis() -> None:
    policy = parse_trust_policy(format_trust_policy(policy_of(FIRST, SECOND, THIRD)))
    (log,) = policy.logs
    assert log.generations == tuple((signer.key, cosigner.key) for signer, cosigner in (FIRST, SECOND, THIRD))
    assert log.genesis_vkeys == (FIRST[0].key.vkey, FIRST[1].key.vkey)


@pytest.mark.parametrize(
    ("types", "in_genesis"),
    [
        ([ED25519], False), ([ML_DSA_44_COSIGNATURE], False), ([ED25519, ED25519], False),
        ([ML_DSA_44_COSIGNATURE, ED25519], True), ([ED25519, ML_DSA_44_COSIGNATURE, ED25519], False),
        ([ED25519, ED25519, ML_DSA_44_COSIGNATURE, ML_DSA_44_COSIGNATURE], False),
        ([ED25519, ML_DSA_44_COSIGNATURE, ML_DSA_44_COSIGNATURE, ED25519], False),
    ],
)  # fmt: skip
def test_keys_that_are_not_pairs_are_one_generation_that_is_demanded_whole(types: list[int], in_genesis: bool) -> None:
    signers = [
        make_note_signer(ORIGIN) if kind == ED25519 else make_cosigner(ORIGIN, ML_DSA_44_COSIGNATURE) for kind in types
    ]
    log = TrustedLog(ORIGIN, tuple(signer.key for signer in signers))
    assert log.generations == (log.keys,)
    if in_genesis:
        assert log.genesis_vkeys == (signers[1].key.vkey, signers[0].key.vkey)
    else:
        with pytest.raises(MalformedError):
            _ = log.genesis_vkeys
    policy, text = TrustPolicy((log,), (), (), "none"), format_checkpoint(CHECKPOINT)
    lines = [each.sign(text) if isinstance(each, NoteSigner) else each.cosign(text, TIME) for each in signers]
    assert open_checkpoint(format_note(Note(text, tuple(lines))), policy, quorum=False).is_current
    for left_out in range(len(lines)):
        kept = (*lines[:left_out], *lines[left_out + 1 :])
        for archived in (False, True):
            with pytest.raises((SignatureError, MalformedError)):
                open_checkpoint(format_note(Note(text, kept)), policy, quorum=False, archived=archived)


@pytest.mark.parametrize("policy", [OLD, BOTH, NEW])
def test_under_both_generations_a_checkpoint_opens_for_who_has_the_old_policy_and_for_who_has_the_new(
    policy: TrustPolicy,
) -> None:
    raw = signed(FIRST, SECOND, witnessed=True)
    assert open_checkpoint(raw, policy, quorum=True).is_current
    assert open_checkpoint(raw, policy, quorum=True, archived=True).is_current


def test_under_the_new_generation_alone_it_opens_for_who_has_the_new_policy_only() -> None:
    raw = signed(SECOND)
    assert open_checkpoint(raw, BOTH, quorum=False).is_current
    with pytest.raises(SignatureError, match="key of the log"):
        open_checkpoint(raw, OLD, quorum=False, archived=True)


def test_what_the_old_generation_signed_opens_as_archived_and_not_as_current() -> None:
    raw = signed(FIRST, witnessed=True)
    assert open_checkpoint(raw, OLD, quorum=True).is_current
    with pytest.raises(SignatureError, match="key of the log"):
        open_checkpoint(raw, BOTH, quorum=True)
    opened = open_checkpoint(raw, BOTH, quorum=True, archived=True)
    assert (opened.checkpoint, opened.is_current, opened.quorum_met) == (CHECKPOINT, False, True)


def test_a_stolen_old_generation_opens_nothing_where_the_quorum_is_demanded() -> None:
    forged = signed(FIRST)
    for archived in (False, True):
        with pytest.raises(SignatureError):
            open_checkpoint(forged, BOTH, quorum=True, archived=archived)
    assert not open_checkpoint(forged, BOTH, quorum=False, archived=True).quorum_met


def test_lines_of_two_generations_do_not_make_one() -> None:
    text = format_checkpoint(CHECKPOINT)
    mixed = [
        (FIRST[0].sign(text), SECOND[1].cosign(text, TIME)),
        (SECOND[0].sign(text), FIRST[1].cosign(text, TIME)),
        (FIRST[0].sign(text), SECOND[0].sign(text)),
    ]
    for lines in mixed:
        with pytest.raises(SignatureError, match="key of the log"):
            open_checkpoint(format_note(Note(text, lines)), BOTH, quorum=False, archived=True)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("position", [0, 1])
def test_a_line_of_a_retired_key_that_does_not_hold_rejects_the_note(position: int, archived: bool) -> None:
    other = log_lines(Checkpoint(ORIGIN, 8, sha256(b"other")), *FIRST, TIME)[position]
    damaged = add_signatures(parse_note(signed(SECOND)), [other])
    with pytest.raises(SignatureError):
        open_checkpoint(format_note(damaged), BOTH, quorum=False, archived=archived)


def test_the_generation_in_the_middle_opens_as_archived_too() -> None:
    raw = signed(SECOND)
    three = policy_of(FIRST, SECOND, THIRD)
    assert not open_checkpoint(raw, three, quorum=False, archived=True).is_current
    with pytest.raises(SignatureError):
        open_checkpoint(raw, three, quorum=False)


def test_the_order_of_a_policys_lines_tells_which_generation_is_the_newest() -> None:
    turned = policy_of(SECOND, FIRST)
    assert open_checkpoint(signed(FIRST), turned, quorum=False).is_current
    assert replace(turned.logs[0], keys=BOTH.logs[0].keys) == BOTH.logs[0]
