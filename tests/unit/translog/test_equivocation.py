"""Two checkpoints of one log, held against each other."""

from __future__ import annotations

import pytest

from sfrl_secure.errors import ConsistencyError, MalformedError, SignatureError
from sfrl_secure.ids import sha256
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import sign_checkpoint
from sfrl_secure.translog.equivocation import check_one_history
from sfrl_secure.translog.note import ML_DSA_44_COSIGNATURE
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy

from .conftest import Federation, make_cosigner, make_note_signer

TIME = 1_760_000_000


def fork(federation: Federation, size: int) -> bytes:
    return federation.sign(Checkpoint(federation.origin, size, sha256(b"another history")))


def test_two_roots_for_one_size_are_the_evidence_as_they_were_signed(federation: Federation) -> None:
    # Each of two witnesses has seen one of them.
    first = federation.cosigned(federation.signed(7), ["w1"])
    second = federation.cosigned(fork(federation, 7), ["w2"])
    with pytest.raises(ConsistencyError) as caught:
        check_one_history(first, second, federation.policy)
    assert (caught.value.older, caught.value.newer) == (first, second)


def test_one_root_for_one_size_contradicts_nothing_however_often_it_was_signed(federation: Federation) -> None:
    check_one_history(federation.signed(7), federation.cosigned(federation.signed(7), ["w1"]), federation.policy)


def test_two_sizes_are_not_judged_without_the_tree(federation: Federation) -> None:
    check_one_history(federation.signed(7), fork(federation, 8), federation.policy)


def test_a_log_that_signed_one_history_before_its_keys_were_replaced_and_one_after_is_caught(
    federation: Federation,
) -> None:
    signer, cosigner = make_note_signer(federation.origin), make_cosigner(federation.origin, ML_DSA_44_COSIGNATURE)
    keys = (*federation.policy.logs[0].keys, signer.key, cosigner.key)
    policy = TrustPolicy((TrustedLog(federation.origin, keys),), (), (), "none")
    after = sign_checkpoint(Checkpoint(federation.origin, 7, sha256(b"another history")), signer, cosigner, TIME)
    with pytest.raises(ConsistencyError):
        check_one_history(federation.signed(7), after, policy)


@pytest.mark.parametrize("position", [0, 1])
def test_what_the_log_has_not_signed_is_no_evidence(federation: Federation, position: int) -> None:
    keys = make_note_signer(federation.origin), make_cosigner(federation.origin, ML_DSA_44_COSIGNATURE)
    forged = sign_checkpoint(Checkpoint(federation.origin, 7, sha256(b"another history")), *keys, TIME)
    notes = [federation.signed(7), federation.signed(7)]
    notes[position] = forged
    with pytest.raises(SignatureError):
        check_one_history(notes[0], notes[1], federation.policy)


def test_evidence_for_who_trusts_witnesses_only_is_under_the_quorum_twice(federation: Federation) -> None:
    first = federation.cosigned(federation.signed(7), ["w1", "w2"])
    second = fork(federation, 7)
    with pytest.raises(SignatureError, match="quorum"):
        check_one_history(first, second, federation.policy, quorum=True)
    with pytest.raises(ConsistencyError):
        check_one_history(first, federation.cosigned(second, ["w2", "w3"]), federation.policy, quorum=True)


def test_checkpoints_of_two_logs_are_not_compared(federation: Federation) -> None:
    origin = "other.example/log"
    keys = make_note_signer(origin), make_cosigner(origin, ML_DSA_44_COSIGNATURE)
    logs = (*federation.policy.logs, TrustedLog(origin, (keys[0].key, keys[1].key)))
    other = sign_checkpoint(Checkpoint(origin, 7, sha256(b"root")), *keys, TIME)
    with pytest.raises(MalformedError, match="one log"):
        check_one_history(federation.signed(7), other, TrustPolicy(logs, (), (), "none"))
