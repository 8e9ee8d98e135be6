"""The attacks of the TUF specification (1.5.2) and on root rotation (5.3), on the log as it is and on python-tuf.

Each attack is made on both sides with the same keys: there on a client of python-tuf, the oracle for the verdict; here
on a log whose sequencer has let it in, so that the entry stands there and the fold gives the reason why it is void.
Where python-tuf is laxer, the difference has a test of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from simulated_federation import DAY_US, SEGMENT, UNTIL_US
from simulator import Simulator

from sfrl_secure.crypto.envelope import Envelope, Signature, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError, SignatureError, VerificationError
from sfrl_secure.governance.build import build_root, build_rules, build_services
from sfrl_secure.governance.documents import RootDocument, RulesDocument, ServicesDocument, Signatory, Thresholds
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.participant.known_roots import KnownRoots
from sfrl_secure.participant.rounds import OpenRound, open_round
from sfrl_secure.wire.content import parse_content

from .tuf_repository import TufClient

MALLORY = SigningKey.generate("ed25519")
NEW = {name: SigningKey.generate("ed25519") for name in ("kim", "leo", "mia")}


class Both:
    """One federation and one TUF repository: three operators, two of whom must sign; version 2 of the rules."""

    def __init__(self, folder: Path) -> None:
        self.sim = Simulator(folder)
        self.sim.publish_rules(cedar="")
        self.first = dict(self.sim.operators)
        self.ann, self.bob, self.eve = self.first.values()
        self.tuf = TufClient(self.first, 2, list(NEW.values()))
        assert self.tuf.take_timestamp(2, [self.ann, self.bob])

    def log(self, payload_type: str, raw: bytes, *keys: SigningKey) -> str:
        """Why the entry is void that a lying log made of this; empty where it has effect."""
        return self.log_envelope(sign_envelope(payload_type, raw, keys))

    def log_envelope(self, envelope: Envelope) -> str:
        index = self.sim.log.force(envelope)
        # The refusal is in the log: whoever reads it finds the entry and comes to the same reason.
        assert self.sim.log.envelope_at(index) == envelope
        return self.sim.log.voids.get(index, "")

    def rules_raw(self, **changes: Any) -> bytes:
        given = {**self.sim.succession(("rules", "")), "cedar": "// as before\n", "expires_us": UNTIL_US}
        return build_rules(**{**given, **changes})

    def rules(self, *keys: SigningKey, **changes: Any) -> str:
        return self.log(RulesDocument.payload_type, self.rules_raw(**changes), *keys)

    def root(self, operators: dict[str, SigningKey], *keys: SigningKey, threshold: int = 2, **changes: Any) -> str:
        others = min(2, len(operators))
        raw = self.sim.root_raw(operators, thresholds=Thresholds(threshold, others, others, 1), **changes)
        return self.log(RootDocument.payload_type, raw, *keys)

    @property
    def in_force(self) -> Digest:
        document = self.sim.state.placed["rules", ""].document
        return document.digest


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.sim.close()


@dataclass(frozen=True)
class Attack:
    """What is done on either side, and the reason that our log's reader gives; none where both take it."""

    ours: Callable[[Both], str]
    theirs: Callable[[Both], bool]
    reason: str


def damaged_rules(both: Both) -> str:
    envelope = sign_envelope(RulesDocument.payload_type, both.rules_raw(), [both.ann, both.bob])
    return both.log_envelope(Envelope(envelope.payload_type, envelope.statement + b"\n", envelope.signatures))


def other_history(both: Both) -> str:
    return both.rules(both.ann, both.bob, previous=sha256(b"another version 2"))


def back_to_the_first(both: Both) -> str:
    return both.log_envelope(
        sign_envelope(RulesDocument.payload_type, both.sim.log.envelope_at(2).statement, [both.bob, both.eve])
    )


def endless(both: Both) -> str:
    raw = both.rules_raw(cedar="//" + "x" * 50_000 + "\n")
    longer = raw.replace(b"x\\n", b"x" * 10_000 + b"\\n")
    envelope = sign_envelope(RulesDocument.payload_type, longer, [both.ann, both.bob])
    with pytest.raises(MalformedError):
        parse_content(envelope)
    return both.log_envelope(envelope)


DOCUMENTS = {
    "nothing is wrong": Attack(
        lambda b: b.rules(b.ann, b.bob), lambda b: b.tuf.take_timestamp(3, [b.ann, b.bob]), ""
    ),
    "arbitrary document by strangers": Attack(
        lambda b: b.rules(MALLORY), lambda b: b.tuf.take_timestamp(3, [MALLORY]), "threshold"
    ),
    "arbitrary document by two strangers": Attack(
        lambda b: b.rules(MALLORY, NEW["kim"]), lambda b: b.tuf.take_timestamp(3, [MALLORY, NEW["kim"]]), "threshold"
    ),
    "arbitrary document by a participant": Attack(
        lambda b: b.rules(*b.sim.rovers.values()),
        lambda b: b.tuf.take_timestamp(3, list(b.sim.rovers.values())),
        "threshold",
    ),
    "one key of two is stolen": Attack(
        lambda b: b.rules(b.eve), lambda b: b.tuf.take_timestamp(3, [b.eve]), "threshold"
    ),
    "one key is stolen and a stranger fills up": Attack(
        lambda b: b.rules(b.eve, MALLORY), lambda b: b.tuf.take_timestamp(3, [b.eve, MALLORY]), "threshold"
    ),
    "bytes changed after signing": Attack(
        damaged_rules, lambda b: b.tuf.take_timestamp(3, [b.ann, b.bob], is_damaged=True), "threshold"
    ),
    "rollback to version 1": Attack(
        back_to_the_first, lambda b: b.tuf.take_timestamp(1, [b.bob, b.eve]), "known"
    ),
    "rollback to a new version 1": Attack(
        lambda b: b.rules(b.ann, b.bob, version=1), lambda b: b.tuf.take_timestamp(1, [b.ann, b.bob]), "version"
    ),
    "another version 2": Attack(
        lambda b: b.rules(b.ann, b.bob, version=2), lambda b: b.tuf.take_timestamp(2, [b.ann, b.bob]), "version"
    ),
    "mix and match": Attack(
        other_history, lambda b: b.tuf.take_timestamp(3, [b.ann, b.bob], snapshot=b.tuf.twin), "previous"
    ),
    "indefinite freeze": Attack(
        lambda b: b.rules(b.ann, b.bob, expires_us=b.sim.clock.now_us()),
        lambda b: b.tuf.take_timestamp(3, [b.ann, b.bob], days_left=-1),
        "expired",
    ),
    "endless data": Attack(
        endless, lambda b: b.tuf.take_timestamp(3, [b.ann, b.bob], snapshot=b.tuf.endless), "malformed"
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_gets_the_oracles_verdict(both: Both, name: str) -> None:
    attack, before = DOCUMENTS[name], both.in_force
    assert attack.theirs(both) is (attack.reason == "")
    assert attack.ours(both) == attack.reason
    assert (both.in_force == before) is (attack.reason != "")


def roots(
    version: int,
    operators: Callable[[Both], dict[str, SigningKey]],
    signers: Callable[[Both], list[SigningKey]],
    reason: str,
    *,
    threshold: int = 2,
) -> Attack:
    """The same root on both sides."""
    return Attack(
        lambda b: b.root(operators(b), *signers(b), version=version, threshold=threshold),
        lambda b: b.tuf.take_root(version, operators(b), threshold, signers(b)),
        reason,
    )


def new(both: Both) -> dict[str, SigningKey]:
    return NEW


def one_replaced(both: Both) -> dict[str, SigningKey]:
    return {"ann": both.ann, "bob": both.bob, "mia": NEW["mia"]}


def new_key_for_eve(both: Both) -> dict[str, SigningKey]:
    return {"bob": both.bob, "eve": NEW["mia"]}


KIM, LEO, MIA = NEW.values()

ROOTS = {
    "honest": roots(2, new, lambda b: [b.ann, b.bob, KIM, LEO], ""),
    "honest, the same people": roots(2, lambda b: b.first, lambda b: [b.ann, b.eve], ""),
    "honest, one is replaced and two stay": roots(2, one_replaced, lambda b: [b.ann, b.bob], ""),
    "signed by the old alone": roots(2, new, lambda b: [b.ann, b.bob, b.eve], "threshold"),
    "signed by the new alone": roots(2, new, lambda b: [KIM, LEO, MIA], "threshold"),
    "one of the old, all of the new": roots(2, new, lambda b: [b.ann, KIM, LEO, MIA], "threshold"),
    "all of the old, one of the new": roots(2, new, lambda b: [b.ann, b.bob, b.eve, KIM], "threshold"),
    "one of the old counts once for each": roots(2, one_replaced, lambda b: [b.ann, MIA], "threshold"),
    "a new key does not count for the old root": roots(2, new_key_for_eve, lambda b: [b.bob, MIA], "threshold"),
    "the old key does not count for the new root": roots(2, new_key_for_eve, lambda b: [b.bob, b.eve], "threshold"),
    "both keys of one who changes count": roots(2, new_key_for_eve, lambda b: [b.bob, b.eve, MIA], ""),
    "one thief lowers the threshold": roots(2, lambda b: {"m": MALLORY}, lambda b: [MALLORY], "threshold", threshold=1),
    "one operator and a thief": roots(
        2, lambda b: {"m": MALLORY}, lambda b: [b.eve, MALLORY], "threshold", threshold=1
    ),
    "a higher threshold binds itself at once": roots(
        2, new, lambda b: [b.ann, b.bob, KIM, LEO], "threshold", threshold=3
    ),
    "a version is left out": roots(3, new, lambda b: [b.ann, b.bob, KIM, LEO], "version"),
    "fast forward": roots(2**31, new, lambda b: [b.ann, b.bob, KIM, LEO], "version"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_a_root_gets_the_oracles_verdict(both: Both, name: str) -> None:
    attack, before = ROOTS[name], both.sim.state.root
    assert attack.theirs(both) is (attack.reason == "")
    assert attack.ours(both) == attack.reason
    assert (both.sim.state.root == before) is (attack.reason != "")


def test_the_same_version_of_a_root_again_is_refused(both: Both) -> None:
    signers = [both.ann, both.bob, KIM, LEO]
    assert both.tuf.take_root(2, NEW, 2, signers)
    assert not both.tuf.take_root(2, NEW, 2, signers)
    assert both.root(NEW, *signers) == ""
    assert both.root(NEW, KIM, LEO, version=2) == "version"
    # As it was before the rotation: another version 2 by those who had the say then.
    twin = both.sim.root_raw(both.first, version=2, previous=both.sim.root.digest)
    assert both.log(RootDocument.payload_type, twin, *both.first.values()) == "threshold"
    assert not both.tuf.take_root(2, both.first, 2, list(both.first.values()))


def test_who_was_replaced_signs_nothing_any_more(both: Both) -> None:
    """Key compromise, found out: the stolen keys are rotated away, and are worth nothing from then on."""
    assert both.root(NEW, both.ann, both.bob, KIM, LEO) == ""
    assert both.tuf.take_root(2, NEW, 2, [both.ann, both.bob, KIM, LEO])
    for signers, reason in (([both.ann, both.bob], "threshold"), ([both.ann, KIM], "threshold"), ([KIM, LEO], "")):
        assert both.rules(*signers) == reason
        assert both.tuf.take_timestamp(3, signers) is (reason == "")
    assert both.root(both.first, both.ann, both.bob, both.eve) == "threshold"
    assert not both.tuf.take_root(3, both.first, 2, [both.ann, both.bob, both.eve])


def test_a_document_that_was_signed_for_the_root_before_comes_too_late(both: Both) -> None:
    raw = both.rules_raw()
    assert both.root(NEW, both.ann, both.bob, KIM, LEO) == ""
    assert both.log(RulesDocument.payload_type, raw, both.ann, both.bob) == "threshold"
    assert both.tuf.take_root(2, NEW, 2, [both.ann, both.bob, KIM, LEO])
    assert not both.tuf.take_timestamp(3, [both.ann, both.bob])


def test_an_expired_root_is_passed_and_an_expired_last_one_takes_nothing(both: Both) -> None:
    honest = [both.ann, both.bob, KIM, LEO]
    # Expired when we look: its successor is taken, a document is not.
    assert both.tuf.take_root(2, NEW, 2, honest, days_left=-1)
    assert not both.tuf.take_timestamp(3, [KIM, LEO])
    assert both.root(NEW, *honest, expires_us=both.sim.clock.now_us() + DAY_US) == ""
    both.sim.clock.advance(2 * DAY_US)
    assert both.rules(KIM, LEO) == "expired"
    for kind in ("join", "participant"):
        raw = both.sim.join_raw("rover-9", MALLORY) if kind == "join" else both.sim.record_raw("rover-1")
        assert both.log(f"application/vnd.sfrl.{kind}.v1+json", raw, KIM, LEO) == "expired"

    assert both.tuf.take_root(3, NEW, 2, [KIM, LEO])
    assert both.tuf.take_timestamp(3, [KIM, LEO])
    assert both.root(NEW, KIM, LEO) == ""
    assert both.rules(KIM, LEO) == ""


def test_a_root_that_has_expired_already_is_refused_here_alone(both: Both) -> None:
    """python-tuf passes it as one on the way; here it would bar everything until the next, so it has no effect."""
    honest = [both.ann, both.bob, KIM, LEO]
    assert both.tuf.take_root(2, NEW, 2, honest, days_left=-1)
    assert both.root(NEW, *honest, expires_us=both.sim.clock.now_us()) == "expired"
    assert both.root(NEW, *honest, expires_us=both.sim.clock.now_us() + 1) == ""


def test_a_fast_forward_is_no_way_to_lock_operators_out(both: Both) -> None:
    """TUF takes any higher version and recovers by changing keys; here a gap is refused, and nothing needs mending."""
    thieves = [both.ann, both.bob]
    assert both.rules(*thieves, version=2**62) == "version"
    assert both.rules(*thieves) == ""
    assert both.tuf.take_timestamp(2**31, thieves)
    assert not both.tuf.take_timestamp(3, thieves)


def test_a_signature_too_many_is_refused_here_alone(both: Both) -> None:
    honest = [both.ann, both.bob, KIM, LEO]
    assert both.tuf.take_timestamp(3, [both.ann, both.bob, MALLORY])
    assert both.rules(both.ann, both.bob, MALLORY) == "threshold"
    assert both.tuf.take_root(2, NEW, 2, [*honest, MALLORY])
    assert both.root(NEW, *honest, MALLORY) == "threshold"


def test_one_operator_signs_once_whatever_is_written_down(both: Both) -> None:
    raw = both.rules_raw()
    (once,) = sign_envelope(RulesDocument.payload_type, raw, [both.eve]).signatures
    with pytest.raises(MalformedError):
        Envelope(RulesDocument.payload_type, raw, (once, once))
    # Under a key id that is nobody's, the same signature is a stranger's.
    renamed = Signature(sha256(b"eve again"), once.suite, once.value)
    both_signatures = tuple(sorted((once, renamed), key=lambda signature: signature.key_id))
    assert both.log_envelope(Envelope(RulesDocument.payload_type, raw, both_signatures)) == "threshold"
    assert not both.tuf.take_timestamp(3, [both.eve, both.eve])


def test_a_root_with_one_key_under_two_names_is_refused(both: Both) -> None:
    twice = {"kim": KIM, "kim-again": KIM, "leo": LEO}
    assert both.root(twice, both.ann, both.bob, KIM, LEO) == "threshold"


def test_a_root_that_gives_an_operator_anothers_key_is_refused(both: Both) -> None:
    """Nobody signs in another's name: a key serves one name for ever, also through rotations."""
    swapped = {"ann": both.bob, "bob": both.ann}
    assert both.root(swapped, both.ann, both.bob) == "key_reused"
    robbed = {"ann": both.ann, "kim": both.sim.rovers["rover-1"]}
    assert both.root(robbed, both.ann, both.bob, both.sim.rovers["rover-1"]) == "key_reused"


@pytest.mark.parametrize("key", ["trust_domain", "log_host"])
def test_a_root_takes_the_federation_nowhere_else(both: Both, key: str) -> None:
    assert both.root(both.first, both.ann, both.bob, **{key: "venus.example"}) == "root_changed"


def test_a_root_of_another_federation_is_refused(both: Both) -> None:
    raw = both.sim.root_raw(both.first, federation_id=sha256(b"another"))
    assert both.log(RootDocument.payload_type, raw, both.ann, both.bob) == "wrong_federation"


def test_the_first_root_comes_once(both: Both) -> None:
    raw = build_root(
        expires_us=UNTIL_US,
        trust_domain="mars.example",
        log_host="log.mars.example",
        operators={"m": MALLORY.public_key},
        thresholds=Thresholds(1, 1, 1, 1),
    )
    assert both.log(RootDocument.payload_type, raw, MALLORY) == "wrong_federation"
    first = both.sim.log.fold.state.placed["root", ""].document
    assert both.log(RootDocument.payload_type, first.raw, both.ann, both.bob) == "version"


@pytest.mark.parametrize("kept", ["ed25519", "ml-dsa-44"])
def test_a_hybrid_key_is_one_key_and_not_the_half_that_is_left(both: Both, kept: str) -> None:
    """Nearest there: two keys that must both sign, of which one is left."""
    hybrid = SigningKey.generate("ed25519+ml-dsa-44")
    assert both.root({"kim": KIM, "hya": hybrid}, both.ann, both.bob, KIM, hybrid) == ""
    good = sign_envelope(RulesDocument.payload_type, both.rules_raw(), [KIM, hybrid])
    (whole,) = [each for each in good.signatures if each.key_id == hybrid.public_key.key_id]
    (other,) = [each for each in good.signatures if each is not whole]
    if kept == "ed25519":
        forgeries = [
            Signature(whole.key_id, "ed25519", whole.value[:64]),
            Signature(whole.key_id, whole.suite, whole.value[:64] + bytes(2420)),
        ]
    else:
        forgeries = [Signature(whole.key_id, whole.suite, bytes(64) + whole.value[64:])]
    for forged in forgeries:
        signatures = tuple(sorted((forged, other), key=lambda signature: signature.key_id))
        assert both.log_envelope(Envelope(good.payload_type, good.statement, signatures)) == "threshold"
    assert both.log_envelope(good) == ""
    assert not both.tuf.take_timestamp(3, [both.ann])


def test_a_light_client_is_not_frozen_and_not_taken_back(both: Both, tmp_path: Path) -> None:
    """Who asks for rounds has no fold: a stale checkpoint is a freeze, an answer before a known root a rollback."""
    sim, known = both.sim, KnownRoots(tmp_path / "known")
    sim.open_round()
    before = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    assert both.root(NEW, both.ann, both.bob, KIM, LEO) == ""
    after = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    assert isinstance(open_round(after, SEGMENT, sim.policy, sim.clock.now_us(), known), OpenRound)
    with pytest.raises(VerificationError, match="version 2"):
        open_round(before, SEGMENT, sim.policy, sim.clock.now_us(), known)
    with pytest.raises(VerificationError, match="older than"):
        open_round(after, SEGMENT, sim.policy, sim.clock.now_us() + DAY_US, known)


def test_a_light_client_takes_no_document_that_a_lying_log_let_in(both: Both) -> None:
    """Mix and match: a true round beside services of the thieves', signed by one operator."""
    sim = both.sim
    sim.open_round()
    raw = build_services(
        **sim.succession(("services", "")),
        services=[Signatory(spiffe_id, MALLORY.public_key) for spiffe_id in list(sim.keys)[:1]],
    )
    assert both.log(ServicesDocument.payload_type, raw, both.eve) == "threshold"
    answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    size = len(sim.log.raw)
    forged = sim.log.logged_entry(size - 1, size)
    with pytest.raises((VerificationError, SignatureError)):
        open_round(
            type(answer)(**{**{name: getattr(answer, name) for name in answer.__slots__}, "services": (forged,)}),
            SEGMENT, sim.policy, sim.clock.now_us(),
        )  # fmt: skip
