"""What the audit log signs with and whom it asks agrees with its trust policy, or it does not start."""

from __future__ import annotations

import pytest

from sfrl_secure.clock import FixedClock
from sfrl_secure.errors import MalformedError
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.signing import CheckpointSigner
from sfrl_secure.services.audit_log.trust import check_keys, open_witnesses
from sfrl_secure.services.config import AuditLogConfig, WitnessUrls
from sfrl_secure.translog.note import ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup
from sfrl_secure.translog.witness_keys import WitnessKey

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"
FIRST, SECOND, THIRD = LogKeys.generate(), LogKeys.generate(), LogKeys.generate()

NAMES = ("a-ed", "a-pq", "b")
WITNESSES = tuple(
    TrustedWitness(name, WitnessKey.generate(kind).verifier_key(f"{name[0]}.example/w"))
    for name, kind in zip(NAMES, (ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE, ED25519_COSIGNATURE), strict=True)
)


def policy_of(*generations: LogKeys, quorum: str = "none") -> TrustPolicy:
    keys = tuple(key for each in generations for key in (each.note_signer(ORIGIN).key, each.cosigner(ORIGIN).key))
    groups = (WitnessGroup("a", 2, ("a-ed", "a-pq")), WitnessGroup("one", 1, ("a", "b")))
    return TrustPolicy((TrustedLog(ORIGIN, keys),), WITNESSES, groups, quorum)


def signer_of(*generations: LogKeys, origin: str = ORIGIN) -> CheckpointSigner:
    return CheckpointSigner(origin, generations, FixedClock(0))


@pytest.mark.parametrize(
    ("signing", "trusted"),
    [
        ([FIRST], [FIRST]), ([FIRST, SECOND], [FIRST, SECOND]), ([SECOND], [FIRST, SECOND]),
        ([SECOND, THIRD], [FIRST, SECOND, THIRD]),
    ],
)  # fmt: skip
def test_the_newest_generations_sign(signing: list[LogKeys], trusted: list[LogKeys]) -> None:
    check_keys(policy_of(*trusted), signer_of(*signing))


@pytest.mark.parametrize(
    ("signing", "trusted"),
    [
        # What the policy does not have, or has not as its newest; one left out; another order.
        ([SECOND], [FIRST]), ([FIRST], [FIRST, SECOND]), ([FIRST, SECOND], [FIRST]), ([FIRST, SECOND], [SECOND]),
        ([FIRST, THIRD], [FIRST, SECOND, THIRD]), ([SECOND, FIRST], [FIRST, SECOND]), ([FIRST, FIRST], [FIRST]),
    ],
)  # fmt: skip
def test_a_log_that_the_policy_would_not_believe_does_not_start(signing: list[LogKeys], trusted: list[LogKeys]) -> None:
    with pytest.raises(MalformedError, match="newest generations"):
        check_keys(policy_of(*trusted), signer_of(*signing))


def test_a_log_that_the_policy_does_not_list_does_not_start() -> None:
    with pytest.raises(MalformedError):
        check_keys(policy_of(FIRST), signer_of(FIRST, origin="other.example/log"))


def witnesses_of(*names: tuple[str, ...]) -> AuditLogConfig:
    url = "http://w.example/"
    urls = tuple(WitnessUrls(names=each, submission_url=url, monitoring_url=url) for each in names)
    return AuditLogConfig.model_construct(witnesses=urls)


def test_one_endpoint_stands_for_the_names_of_all_its_keys() -> None:
    policy = policy_of(FIRST, quorum="a")
    (witness,) = open_witnesses(witnesses_of(("a-ed", "a-pq")), policy)
    assert witness.names == ("a-ed", "a-pq")
    assert len(open_witnesses(witnesses_of(("a-ed", "a-pq"), ("b",)), policy)) == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([("a-ed",)], "quorum"), ([], "quorum"), ([("a-ed", "a-pq"), ("a-pq",)], "once"), ([("a-ed", "a-ed")], "once"),
        ([("a-ed", "unknown")], "once"), ([("a",)], "once"),
    ],
)  # fmt: skip
def test_endpoints_that_do_not_make_the_quorum_under_their_own_names_are_refused(
    names: list[tuple[str, ...]], said: str
) -> None:
    with pytest.raises(MalformedError, match=said):
        open_witnesses(witnesses_of(*names), policy_of(FIRST, quorum="a"))
