"""Enrolment: getting in uninvited, getting in twice, and getting an identity that somebody else should have.

The attacker has no token, a token of yesterday or of another name, a signing key, another participant's TLS identity,
or a gatekeeper's keys. Each request is refused by a running service for its reason, and the log holds the refusal,
counted. What a stolen gatekeeper writes by itself, the log refuses; and a log that takes it is found out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from simulator import DAY_US, HOUR_US, Simulator, auditor_id, operator_id, participant_id, service_id

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey, signing_key_from_pem
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.x509 import generate_tls_key
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.build import build_participant
from sfrl_secure.governance.documents import KeyRevocation, ParticipantRecord
from sfrl_secure.governance.statements import IdentityIssued, PeerClass, Statement
from sfrl_secure.ids import ZERO_DIGEST, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.operating.acts import draft_invitation, draft_participant_revocation
from sfrl_secure.rpc.channel import ClientTls
from sfrl_secure.rpc.clients import IdentityClient
from sfrl_secure.rpc.identity_requests import AskedIdentity, ask_identity
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.identity_service import EnrolResponse

from .arena import Arena
from .live import DOMAIN, ENROL, Live, running

live_only = pytest.mark.integration
PARTICIPANT = PeerClass.PARTICIPANT
RECORD_DAYS = 30.0


def name_of(path: str) -> SpiffeId:
    return parse_spiffe_id(f"spiffe://{DOMAIN}/{path}")


@dataclass
class Newcomer:
    """Who was handed an invitation, and has made its keys; or who pretends so."""

    live: Live
    name: str
    token: SigningKey
    expires_us: int
    record_expires_us: int
    key: SigningKey
    tls_key: SecretBytes

    def record(self, *, token: SigningKey | None = None, **changes: Any) -> Envelope:
        """The record as the invitation wants it, but for `changes`."""
        federation_id = changes.get("federation_id", self.live.site.federation.federation_id)
        name, key = changes.get("name", self.name), changes.pop("signing_key", self.key)
        given = {
            "federation_id": federation_id,
            "expires_us": self.record_expires_us,
            "name": name,
            "key": key.public_key,
            "possession": prove_possession(key, federation_id, name),
            "clearance": 5,
            "groups": ["rovers"],
        }
        raw = build_participant(**{**given, **changes})
        return sign_envelope(ParticipantRecord.payload_type, raw, [token or self.token])

    def asked(self, *, key: SigningKey | None = None, new_tls_key: bool = False, off_us: int = 0) -> AskedIdentity:
        """A request for an identity, for the newcomer's TLS key or a new one."""
        return ask_identity(
            name_of(f"participant/{self.name}"), self.live.site.federation.federation_id, key or self.key,
            SystemClock().now_us() + off_us, tls_key=None if new_tls_key else self.tls_key,
        )  # fmt: skip

    def enrol(
        self, record: Envelope | None = None, asked: AskedIdentity | None = None, csr: bytes | None = None
    ) -> EnrolResponse:
        """Ask to be enrolled, over a connection of its own."""
        asked = asked or self.asked()
        with self.live.channel(self.live.anonymous(), ENROL) as channel:
            return IdentityClient(channel).enrol(record or self.record(), asked.request, csr or asked.csr)


def invite(live: Live, name: str, *, hours: float = 1.0) -> Newcomer:
    token = SigningKey.generate("ed25519")
    live.publish(
        lambda state, now: draft_invitation(
            state, name, token.public_key, clearance=5, groups=["rovers"], hours=hours, record_days=RECORD_DAYS,
            now_us=now,
        ),
        "alice", "bob",
    )  # fmt: skip
    join = live.state().join(name)
    assert join is not None
    key, (tls_key, _) = SigningKey.generate("ed25519"), generate_tls_key()
    return Newcomer(live, name, token, join.expires_us, join.record_expires_us, key, tls_key)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("enrolment")) as made:
        yield made


@pytest.fixture(scope="module")
def invited(live: Live) -> Newcomer:
    """Who is invited, and not enrolled yet. None of the attacks spends its token."""
    return invite(live, "rover-9")


@pytest.fixture(scope="module")
def member(live: Live) -> Newcomer:
    """Who has enrolled, and lost a copy of this or that."""
    made = invite(live, "rover-8")
    made.enrol()
    return made


# Tokens and records

OTHER_FEDERATION = sha256(b"another federation")
Attack = Callable[[Newcomer], object]


def stranger(who: Newcomer) -> object:
    """A name that nobody invited."""
    uninvited = replace(who, name="rover-7")
    return uninvited.enrol()


def after_expiry(who: Newcomer) -> object:
    late = invite(who.live, "rover-6", hours=1.5 / 3_600)
    time.sleep(max(0.0, (late.expires_us - SystemClock().now_us()) / 1e6) + 0.05)
    return late.enrol()


def with_superseded_token(who: Newcomer) -> object:
    old, _new = invite(who.live, "rover-5"), invite(who.live, "rover-5")
    return old.enrol()


def with_another_s_token(who: Newcomer) -> object:
    return who.enrol(who.record(token=invite(who.live, "rover-4").token))


def by_own_token(who: Newcomer) -> object:
    """A token of the attacker's own making."""
    return who.enrol(who.record(token=SigningKey.generate("ed25519")))


def without_possession(who: Newcomer) -> object:
    """Somebody else's public key under one's own name."""
    possession = prove_possession(SigningKey.generate("ed25519"), who.live.site.federation.federation_id, who.name)
    return who.enrol(who.record(possession=possession))


def key_of_another(who: Newcomer) -> object:
    key = who.live.site.profile("rover-1").open_signing_key()
    return who.enrol(who.record(signing_key=key), who.asked(key=key))


def tls_key_of_another(who: Newcomer) -> object:
    tls_key = who.live.tls("rover-1").key
    return who.enrol(asked=replace(who, tls_key=tls_key).asked())


def differing(**changes: Any) -> Attack:
    return lambda who: who.enrol(who.record(**changes))


RECORDS: dict[str, tuple[str, Attack]] = {
    "nobody-invited": ("no_invitation", stranger),
    "expired": ("invitation_expired", after_expiry),
    "superseded": ("bad_signature", with_superseded_token),
    "own-token": ("bad_signature", by_own_token),
    "token-of-another-name": ("bad_signature", with_another_s_token),
    "no-possession": ("bad_signature", without_possession),
    "another-s-signing-key": ("key_reused", key_of_another),
    "another-s-tls-key": ("key_reused", tls_key_of_another),
    "higher-clearance": ("record_differs", differing(clearance=6)),
    "lower-clearance": ("record_differs", differing(clearance=4)),
    "more-groups": ("record_differs", differing(groups=["operators", "rovers"])),
    "no-groups": ("record_differs", differing(groups=[])),
    "longer-life": ("record_differs", differing(expires_us=2**62)),
    "suspended": ("record_differs", differing(state="suspended")),
    "later-version": ("record_differs", differing(version=2, previous=sha256(b"none"))),
    "record-of-another-federation": ("wrong_federation", differing(federation_id=OTHER_FEDERATION)),
    "record-of-another-name": ("wrong_peer", differing(name="rover-3")),
}  # fmt: skip


@live_only
@pytest.mark.parametrize("attack", RECORDS)
def test_a_record_that_the_invitation_does_not_cover_is_refused(live: Live, invited: Newcomer, attack: str) -> None:
    reason, act = RECORDS[attack]
    live.refused(reason, lambda: act(invited), at=ENROL)


# Requests


def csr_for(key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def broken_csr(who: Newcomer) -> bytes:
    csr = bytearray(who.asked().csr)
    csr[-1] ^= 1
    return bytes(csr)


def of_another_federation(who: Newcomer) -> AskedIdentity:
    return ask_identity(
        name_of(f"participant/{who.name}"), OTHER_FEDERATION, who.key, SystemClock().now_us(), tls_key=who.tls_key
    )


def for_path(who: Newcomer, path: str) -> AskedIdentity:
    return ask_identity(
        name_of(path), who.live.site.federation.federation_id, who.key, SystemClock().now_us(), tls_key=who.tls_key
    )


REQUESTS: dict[str, tuple[str, Attack]] = {
    "csr-signature": ("csr", lambda who: who.enrol(csr=broken_csr(who))),
    "csr-p384": ("csr", lambda who: who.enrol(csr=csr_for(ec.generate_private_key(ec.SECP384R1())))),
    "csr-left-over-byte": ("csr", lambda who: who.enrol(csr=who.asked().csr + b"\0")),
    "csr-no-csr": ("csr", lambda who: who.enrol(csr=b"\x30\x00")),
    "csr-of-another-key": ("wrong_peer", lambda who: who.enrol(csr=who.asked(new_tls_key=True).csr)),
    "another-federation": ("wrong_federation", lambda who: who.enrol(asked=of_another_federation(who))),
    "a-service": ("wrong_peer", lambda who: who.enrol(asked=for_path(who, "service/gatekeeper/g1"))),
    "an-operator": ("wrong_peer", lambda who: who.enrol(asked=for_path(who, "operator/alice"))),
    "another-participant": ("wrong_peer", lambda who: who.enrol(asked=for_path(who, "participant/rover-1"))),
    "another-signing-key": (
        "bad_signature", lambda who: who.enrol(asked=who.asked(key=SigningKey.generate("ed25519"))),
    ),
    "older-than-an-hour": ("request_stale", lambda who: who.enrol(asked=who.asked(off_us=-HOUR_US - 5_000_000))),
    "from-tomorrow": ("request_stale", lambda who: who.enrol(asked=who.asked(off_us=DAY_US))),
}  # fmt: skip


@live_only
@pytest.mark.parametrize("attack", REQUESTS)
def test_a_request_that_is_not_the_newcomer_s_of_now_is_refused(live: Live, invited: Newcomer, attack: str) -> None:
    reason, act = REQUESTS[attack]
    live.refused(reason, lambda: act(invited), at=ENROL)


@live_only
def test_none_of_all_that_has_spent_the_token_and_nothing_of_a_greedy_request_but_its_key_is_taken(
    live: Live, invited: Newcomer
) -> None:
    """The request asks for a service's names, and to be a CA. It gets what everybody gets."""
    private = load_pem_private_key(invited.tls_key.expose(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    names = [x509.UniformResourceIdentifier(name_of("service/gatekeeper/g1")), x509.DNSName(f"gatekeeper.{DOMAIN}")]
    greedy = csr_for(private, x509.SubjectAlternativeName(names), x509.BasicConstraints(ca=True, path_length=None))
    answer = invited.enrol(csr=greedy)
    found = x509.load_pem_x509_certificate(answer.certificate).extensions
    assert [str(each.value) for each in found.get_extension_for_class(x509.SubjectAlternativeName).value] == [
        name_of("participant/rover-9")
    ]
    assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    assert live.is_let_in(ClientTls(invited.tls_key, answer.certificate, live.service_roots))


# Twice


@live_only
def test_a_spent_token_gives_nothing_more(live: Live, member: Newcomer) -> None:
    """The invitation lay about: who finds it has the token, and makes keys of its own."""
    thief = replace(member, key=SigningKey.generate("ed25519"), tls_key=generate_tls_key()[0])
    live.refused("invitation_spent", thief.enrol, at=ENROL)
    live.refused("invitation_spent", lambda: member.enrol(asked=member.asked(new_tls_key=True)), at=ENROL)


@live_only
def test_the_whole_request_again_from_elsewhere_gives_nothing_and_takes_nothing_away(
    live: Live, member: Newcomer
) -> None:
    record, asked = member.record(), member.asked()
    answer = member.enrol(record, asked)
    live.refused("request_used", lambda: member.enrol(record, asked))
    thief = ClientTls(generate_tls_key()[0], answer.certificate, live.service_roots)
    live.unseen(lambda: live.call(thief))
    assert live.is_let_in(ClientTls(member.tls_key, answer.certificate, live.service_roots))


# Keys that were stolen, and renewal


def renew(live: Live, tls: ClientTls, asked: AskedIdentity, *, csr: bytes | None = None, at: str = "g1") -> object:
    with live.channel(tls, at) as channel:
        return IdentityClient(channel).renew(asked.request, csr or asked.csr)


def ask(live: Live, path: str, key: SigningKey, *, off_us: int = 0) -> AskedIdentity:
    federation_id = live.site.federation.federation_id
    return ask_identity(name_of(path), federation_id, key, SystemClock().now_us() + off_us)


@live_only
def test_a_stolen_signing_key_asks_for_an_identity_in_vain(live: Live, member: Newcomer) -> None:
    """Through the door for newcomers, over no identity, and over the thief's own."""
    stolen = member.asked(new_tls_key=True)
    forged = member.record(token=SigningKey.generate("ed25519"))
    live.refused("bad_signature", lambda: member.enrol(forged, stolen), at=ENROL)

    def nameless() -> None:
        with live.channel(live.anonymous(), ENROL) as channel:
            IdentityClient(channel).renew(stolen.request, stolen.csr)

    live.refused("role", nameless, at=ENROL)
    live.refused("wrong_peer", lambda: renew(live, live.tls("rover-1"), stolen), peer_class=PARTICIPANT)


def knock(live: Live, path: str, key: SigningKey) -> None:
    """Ask at the door for newcomers for a name's identity, for a new TLS key, and show no record."""
    asked = ask(live, path, key)
    with live.channel(live.anonymous(), ENROL) as channel:
        IdentityClient(channel).enrol(None, asked.request, asked.csr)


@live_only
@pytest.mark.parametrize("path", ["operator/alice", "auditor/auditor-1", "service/gatekeeper/g2"])
def test_a_stolen_signing_key_of_whom_governance_names_gets_no_second_identity(live: Live, path: str) -> None:
    """The door that lets in whom a new root names stands open: not for somebody who has come in before."""
    role, _, name = path.rpartition("/")
    folder = {
        "operator": live.site.folder.operator(name),
        "auditor": live.site.folder.auditor(name),
        "service/gatekeeper": live.site.folder.service("gatekeeper", name),
    }[role]
    key = signing_key_from_pem("ed25519", read_secret(folder / "signing.key"))
    live.refused("already_issued", lambda: knock(live, path, key), at=ENROL)


@live_only
def test_nobody_comes_in_through_the_door_of_whom_governance_names(live: Live) -> None:
    """A participant without a record, with its own key; and somebody whom no document names, or with another key."""
    rover = live.site.profile("rover-1").open_signing_key()
    live.refused("no_invitation", lambda: knock(live, "participant/rover-1", rover), at=ENROL)
    live.refused("unknown_name", lambda: knock(live, "operator/mallory", rover), at=ENROL)
    live.refused("bad_signature", lambda: knock(live, "operator/alice", rover), at=ENROL)


RENEWALS: dict[str, tuple[str, Callable[[Live, SigningKey], tuple[AskedIdentity, bytes | None]]]] = {
    "a-service": ("wrong_peer", lambda live, key: (ask(live, "service/gatekeeper/g1", key), None)),
    "an-operator": ("wrong_peer", lambda live, key: (ask(live, "operator/alice", key), None)),
    "an-auditor": ("wrong_peer", lambda live, key: (ask(live, "auditor/auditor-1", key), None)),
    "another-s-request": (
        "wrong_peer",
        lambda live, key: (
            ask(live, "participant/rover-2", live.site.profile("rover-2").open_signing_key()), None,
        ),
    ),
    "own-request-another-s-csr": (
        "wrong_peer",
        lambda live, key: (ask(live, "participant/rover-1", key), ask(live, "participant/rover-1", key).csr),
    ),
    "older-than-an-hour": (
        "request_stale", lambda live, key: (ask(live, "participant/rover-1", key, off_us=-HOUR_US - 5_000_000), None),
    ),
    "another-signing-key": (
        "bad_signature", lambda live, key: (ask(live, "participant/rover-1", SigningKey.generate("ed25519")), None),
    ),
    "p384": (
        "csr",
        lambda live, key: (ask(live, "participant/rover-1", key), csr_for(ec.generate_private_key(ec.SECP384R1()))),
    ),
}  # fmt: skip


@live_only
@pytest.mark.parametrize("attack", RENEWALS)
def test_a_renewal_is_for_whom_it_names_over_its_own_connection_and_of_now(live: Live, attack: str) -> None:
    reason, make = RENEWALS[attack]
    asked, csr = make(live, live.site.profile("rover-1").open_signing_key())
    live.refused(reason, lambda: renew(live, live.tls("rover-1"), asked, csr=csr), peer_class=PARTICIPANT)


@live_only
def test_a_gatekeeper_without_the_ca_s_key_issues_nothing(live: Live) -> None:
    """Whoever has only its keys cannot make certificates, and who asks there is told to ask elsewhere."""
    asked = ask(live, "participant/rover-1", live.site.profile("rover-1").open_signing_key())
    live.refused(
        "not_issuing", lambda: renew(live, live.tls("rover-1"), asked, at="g2"), at="g2", peer_class=PARTICIPANT
    )


@live_only
def test_a_revoked_name_gets_no_identity_by_any_way(live: Live, member: Newcomer) -> None:
    tls = ClientTls(member.tls_key, member.enrol().certificate, live.service_roots)
    live.publish(
        lambda state, now: draft_participant_revocation(state, member.name, reason="stolen", now_us=now), "carol"
    )
    live.refused("revoked", member.enrol, at=ENROL)
    live.refused("revoked", lambda: member.enrol(asked=member.asked(new_tls_key=True)), at=ENROL)
    live.refused("unknown_identity", lambda: renew(live, tls, member.asked()))
    with pytest.raises(DeniedError, match="revoked"):
        invite(live, member.name)


@live_only
def test_the_history_is_true_and_holds_every_refusal(live: Live) -> None:
    live.check_history()


# A gatekeeper's signing key was stolen: it writes identities as it likes

G1, G2, L1 = service_id("gatekeeper", "g1"), service_id("gatekeeper", "g2"), service_id("audit_log", "l1")
THIEF = SigningKey.generate("ed25519")
FRESH = sha256(b"the thief's TLS key")


def over(sim: Simulator, name: str) -> Any:
    return next(key for key, each in sim.state.identities.items() if each.spiffe_id == participant_id(name))


def recorded(sim: Simulator, name: str) -> IdentityIssued:
    """The body of the identity that the log has of a participant."""
    for index in range(len(sim.log.raw)):
        content = parse_content(sim.log.envelope_at(index))
        body = content.body if isinstance(content, Statement) else None
        if isinstance(body, IdentityIssued) and body.spiffe_id == participant_id(name):
            return body
    raise AssertionError("the simulator issues to everybody")


WRITTEN: dict[str, tuple[str, str, Callable[[Simulator], IdentityIssued]]] = {
    "the-thief-s-request": ("bad_signature", "request", lambda sim: sim.identity("rover-1", spki=FRESH, key=THIEF)),
    "for-an-operator": (
        "bad_signature", "request", lambda sim: sim.identity(operator_id("ann"), key=THIEF),
    ),
    "an-old-request-for-another-key": (
        "wrong_peer", "request", lambda sim: sim.identity(
            "rover-1", spki=FRESH, signed=sim.identity_request(participant_id("rover-1"), sha256(b"rover-1")),
        ),
    ),
    "another-s-request": (
        "bad_signature", "request", lambda sim: sim.identity(
            "rover-1", spki=FRESH, signed=sim.identity_request(participant_id("rover-2"), FRESH),
        ),
    ),
    "a-stale-request": (
        "request_stale", "request", lambda sim: sim.identity("rover-1", spki=FRESH, signed=sim.identity_request(
            participant_id("rover-1"), FRESH, created_us=sim.clock.now_us() - HOUR_US - 1)),
    ),
    "a-request-of-another-federation": (
        "wrong_federation", "request", lambda sim: sim.identity("rover-1", spki=FRESH, signed=sim.identity_request(
            participant_id("rover-1"), FRESH, federation_id=OTHER_FEDERATION)),
    ),
    "a-request-that-the-log-shows": (
        "request_used", "request_used", lambda sim: replace(recorded(sim, "rover-1"), serial=666),
    ),
    "a-request-older-than-the-one-that-the-log-shows": (
        "request_used", "request_used", lambda sim: sim.identity(
            "rover-1", spki=over(sim, "rover-1"), serial=666, signed=sim.identity_request(
                participant_id("rover-1"), over(sim, "rover-1"),
                created_us=recorded(sim, "rover-1").request.created_us - 1)),
    ),
    "zeros-for-a-tls-key": (
        "not_renewed", "renews", lambda sim: sim.identity("rover-1", spki=ZERO_DIGEST, renews=None),
    ),
    "over-zeros": (
        "not_renewed", "renews", lambda sim: sim.identity("rover-1", spki=FRESH, renews=ZERO_DIGEST),
    ),
    "with-a-stolen-signing-key-and-no-connection": (
        "not_renewed", "renews", lambda sim: sim.identity("rover-1", spki=FRESH, renews=None),
    ),
    "over-another-s-connection": (
        "not_renewed", "renews", lambda sim: sim.identity("rover-1", spki=FRESH, renews=over(sim, "rover-2")),
    ),
    "another-s-tls-key": (
        "key_reused", "key_reused",
        lambda sim: sim.identity("rover-1", spki=over(sim, "rover-2"), renews=over(sim, "rover-1")),
    ),
    "for-years": (
        "lifetime", "expired",
        lambda sim: sim.identity("rover-1", spki=FRESH, not_after_us=sim.clock.now_us() + 400 * DAY_US),
    ),
    "for-somebody-nobody-names": (
        "unknown_name", "identity_unknown", lambda sim: sim.identity("rover-77", spki=FRESH, key=THIEF),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(tmp_path_factory.mktemp("arena")) as made:
        yield made


@pytest.mark.parametrize("attack", WRITTEN)
def test_an_identity_that_nobody_asked_for_has_no_effect_and_is_found_in_a_log_that_takes_it(
    arena: Arena, attack: str
) -> None:
    reason, code, make = WRITTEN[attack]
    body = make(arena.sim)
    arena.denied(reason, code, arena.sim.sign(arena.sim.statement(G1, "identity", body)))
    assert arena.sim.view().lookup(FRESH) is None


def test_a_stolen_gatekeeper_locks_nobody_out_with_the_request_that_he_signed(tmp_path: Path) -> None:
    """A newer entry of another serial would close the door to the certificate that its holder has."""
    with Arena(tmp_path) as arena:
        sim = arena.sim
        for who in (participant_id("rover-1"), operator_id("ann"), service_id("aggregator", "a1")):
            spki = sha256(who.encode())
            body = sim.log.statement_at(sim.issue(who, spki=spki, serial=5)).body
            stolen = replace(body, serial=666)
            arena.denied("request_used", "request_used", sim.sign(sim.statement(G2, "identity", stolen)))
            assert sim.state.identities[spki].serial == 5


def test_zeros_for_a_tls_key_are_one_key_of_many(tmp_path: Path) -> None:
    """A stolen gatekeeper and a stolen signing key: after any history a first identity has been."""
    with Arena(tmp_path) as arena:
        sim = arena.sim
        sim.issue("rover-1", spki=sha256(b"renewed"))
        for spki in (ZERO_DIGEST, FRESH):
            for renews in (None, ZERO_DIGEST):
                body = sim.identity("rover-1", spki=spki, renews=renews)
                arena.denied("not_renewed", "renews", sim.sign(sim.statement(G1, "identity", body)))


def test_a_member_that_renews_without_end_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.rounds.identities.RATE_MAX", 20)
    monkeypatch.setattr("sfrl_secure.replay.enrolment.IDENTITIES_A_DAY_MAX", 20)
    with Arena(tmp_path) as arena:
        sim, first = arena.sim, sha256(b"rover-1")
        for number in range(19):
            sim.issue("rover-1", spki=sha256(b"%d" % (number % 7)), renews=first)
        body = sim.identity("rover-1", spki=FRESH, renews=first)
        arena.denied("identity_rate", "identity_rate", sim.sign(sim.statement(G1, "identity", body)))
        again = sim.identity("rover-1", spki=first, renews=first)
        arena.denied("identity_rate", "identity_rate", sim.sign(sim.statement(G1, "identity", again)))
        sim.issue("rover-2", spki=sha256(b"another"))


def test_one_operator_closes_the_door_to_no_operator_and_no_service(tmp_path: Path) -> None:
    """The threshold `revocation` is one; it is for members. Nor does another name in the document help."""
    with Arena(tmp_path) as arena:
        sim, kind = arena.sim, KeyRevocation.payload_type
        for who in (operator_id("ann"), operator_id("bob"), G1, service_id("aggregator", "a1"), L1):
            spki = sha256(who.encode())
            sim.issue(who, spki=spki)
            own = sim.key_revocation_raw(spki, who)
            arena.denied("threshold", "threshold", sim.sign_document(kind, own, ["eve"]))
            for other in (participant_id("rover-1"), auditor_id("iris")):
                raw = sim.key_revocation_raw(spki, other)
                arena.denied("wrong_name", "wrong_name", sim.sign_document(kind, raw, ["eve"]))
            assert spki in sim.state.identities
        sim.publish(kind, sim.key_revocation_raw(sha256(b"rover-1"), participant_id("rover-1")), ["eve"])
        arena.verify()



@pytest.mark.parametrize("role", ["aggregator", "audit_log", "verifier"])
def test_a_service_that_is_no_gatekeeper_issues_nothing(arena: Arena, role: str) -> None:
    sim = arena.sim
    writer = service_id(role, {"aggregator": "a1", "audit_log": "l1", "verifier": "v1"}[role])
    body = sim.identity("rover-1", spki=FRESH)
    arena.denied("role", "role", sim.sign(sim.statement(writer, "identity", body)))
