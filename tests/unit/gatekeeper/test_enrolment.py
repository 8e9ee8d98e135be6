"""Enrolment and renewal, decided: who gets an identity, who gets none and why, and what a repeated call gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from simulated_identities import LIFETIME_US, Caller, IdentityDesk, open_desk
from simulator import (
    DAY_US,
    DOMAIN,
    HOUR_US,
    Simulator,
    auditor_id,
    operator_id,
    participant_id,
    service_id,
)

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.crypto.x509 import SKEW_US, build_csr, generate_tls_key
from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError, UnavailableError
from sfrl_secure.governance.participants import ParticipantRecord
from sfrl_secure.governance.statements import IdentityIssued, PeerClass
from sfrl_secure.ids import Digest, SpiffeId, sha256
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rpc.identity import Peer, record_peer
from sfrl_secure.rpc.identity_requests import AskedIdentity, ask_identity, open_identity, open_logged
from sfrl_secure.services.gatekeeper.enrolment import IdentityServicer
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.wire import identity_service as wire

NAME = "rover-9"


@dataclass
class Newcomer:
    """Who holds a token, before a gatekeeper's desk."""

    desk: IdentityDesk
    key: SigningKey = field(default_factory=lambda: SigningKey.generate("ed25519"))
    tls_key: SecretBytes = field(default_factory=lambda: generate_tls_key()[0])

    @property
    def sim(self) -> Simulator:
        return self.desk.sim

    @property
    def counter(self) -> RefusalCounter:
        return self.desk.counter

    @property
    def servicer(self) -> IdentityServicer:
        return self.desk.servicer

    def asked(
        self, *, name: str = NAME, key: SigningKey | None = None, tls_key: SecretBytes | None = None
    ) -> AskedIdentity:
        """A request, newer than the one before."""
        self.sim.clock.advance(1_000_000)
        return ask_identity(
            participant_id(name), self.sim.federation_id, key or self.key, self.sim.clock.now_us(),
            tls_key=tls_key or self.tls_key,
        )  # fmt: skip

    def enrol(
        self, record: Envelope | None = None, asked: AskedIdentity | None = None, *, csr: bytes | None = None
    ) -> wire.EnrolResponse:
        record = record or self.sim.sign_join(NAME, self.key)
        asked = asked or self.asked()
        raw = wire.encode_enrol_request(record, asked.request, asked.csr if csr is None else csr)
        return wire.parse_enrol_response(self.servicer.enrol(raw, Caller()))  # type: ignore[arg-type]

    def renew(
        self, who: SpiffeId, over: Digest, asked: AskedIdentity, *, caller: Caller | None = None
    ) -> wire.RenewResponse:
        context = caller or Caller()
        record_peer(context, Peer(who, 7, over))  # type: ignore[arg-type]
        raw = wire.encode_renew_request(asked.request, asked.csr)
        return wire.parse_renew_response(self.servicer.renew(raw, context))  # type: ignore[arg-type]

    def refused(self, call: Callable[[], object]) -> str:
        """The reason of a refusal, which is counted under it; the log is as it was."""
        size = len(self.sim.log.raw)
        with pytest.raises(DeniedError) as refused:
            call()
        taken = self.counter.take()
        assert taken is not None
        assert [each.reason for each in taken.counts] == [refused.value.reason]
        self.counter.confirm(taken)
        assert len(self.sim.log.raw) == size
        return refused.value.reason


@pytest.fixture
def desk(sim: Simulator) -> Newcomer:
    sim.invite(NAME)
    return Newcomer(open_desk(sim))


def test_a_newcomer_is_recorded_and_gets_the_certificate_that_the_log_records(desk: Newcomer) -> None:
    record, asked = desk.sim.sign_join(NAME, desk.key), desk.asked()
    answer = desk.enrol(record, asked)
    checkpoint = open_checkpoint(answer.checkpoint, desk.sim.policy, quorum=False).checkpoint
    assert open_logged(answer.recorded, checkpoint).envelope == record
    said = open_identity(
        asked, answer.issued, answer.checkpoint, answer.certificate, desk.sim.policy, renews=None
    )
    assert said.spiffe_id == participant_id(NAME)
    now_us = desk.sim.clock.now_us()
    assert (said.not_before_us, said.not_after_us) == (now_us - SKEW_US, now_us + LIFETIME_US)
    state = desk.sim.state
    assert state.is_active(NAME, now_us)
    assert state.identities[said.spki_sha256].serial == said.serial
    assert desk.counter.counted == 0


def test_nothing_of_the_request_but_its_key_stands_in_the_certificate(desk: Newcomer) -> None:
    """A request that asks for a service's name, for a CA and for years gets what everybody gets."""
    private = load_pem_private_key(desk.tls_key.expose(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gatekeeper")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/service/gatekeeper/g1"),
                    x509.DNSName(f"gatekeeper.{DOMAIN}"),
                ]
            ),
            critical=False,
        )
        .sign(private, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    answer = desk.enrol(csr=greedy)
    found = x509.load_pem_x509_certificate(answer.certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in names] == [participant_id(NAME)]
    assert found.subject == x509.Name([])
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    open_svid(answer.certificate, DOMAIN)


def test_a_repeated_call_gets_an_identity_for_the_same_key_again_and_records_nobody_twice(desk: Newcomer) -> None:
    record = desk.sim.sign_join(NAME, desk.key)
    first, again = desk.enrol(record), desk.enrol(record)
    assert first.recorded.index == again.recorded.index
    asked = desk.asked()
    said = open_identity(
        asked, again.issued, again.checkpoint, again.certificate, desk.sim.policy, renews=None
    )
    assert desk.sim.state.identities[said.spki_sha256].serial == said.serial


def test_a_call_that_ended_after_the_record_goes_on_with_the_identity(desk: Newcomer) -> None:
    record = desk.sim.sign_join(NAME, desk.key)
    recorded = desk.sim.log.order(record)
    desk.sim.clock.advance(2 * DAY_US)  # the invitation has expired meanwhile, and is spent
    assert desk.enrol(record).recorded.index == recorded


# Tokens


def test_a_name_that_nobody_invited_gets_nothing(sim: Simulator) -> None:
    desk = Newcomer(open_desk(sim))
    record = sign_envelope(
        ParticipantRecord.payload_type, sim.record_raw(NAME, signing_key=desk.key), [SigningKey.generate("ed25519")]
    )
    assert desk.refused(lambda: desk.enrol(record)) == "no_invitation"


def test_a_spent_token_records_nobody_else(desk: Newcomer) -> None:
    desk.enrol()
    thief = SigningKey.generate("ed25519")
    record = desk.sim.sign_join(NAME, thief)
    assert desk.refused(lambda: desk.enrol(record, desk.asked(key=thief))) == "invitation_spent"
    with pytest.raises(DeniedError, match="sfrl invite"):
        desk.enrol(record, desk.asked(key=thief))


def test_a_spent_token_gives_no_identity_to_another_tls_key(desk: Newcomer) -> None:
    record = desk.sim.sign_join(NAME, desk.key)
    desk.enrol(record)
    other = desk.asked(tls_key=generate_tls_key()[0])
    assert desk.refused(lambda: desk.enrol(record, other)) == "invitation_spent"


def test_a_stolen_signing_key_alone_gets_no_identity(desk: Newcomer) -> None:
    """Whoever has the key and the public record, and not the token; after the join and after a newer record."""
    record = desk.sim.sign_join(NAME, desk.key)
    desk.enrol(record)
    desk.sim.rovers[NAME] = desk.key
    stolen = desk.asked(tls_key=generate_tls_key()[0])
    forged = sign_envelope(ParticipantRecord.payload_type, record.statement, [SigningKey.generate("ed25519")])
    assert desk.refused(lambda: desk.enrol(forged, stolen)) == "bad_signature"
    # A newer record by the operators: a first identity would have effect again, and this desk gives none.
    desk.sim.record(NAME)
    assert desk.refused(lambda: desk.enrol(record, stolen)) == "invitation_spent"
    newer = sign_envelope(
        ParticipantRecord.payload_type, desk.sim.state.participant(NAME).raw, [SigningKey.generate("ed25519")]
    )
    assert desk.refused(lambda: desk.enrol(newer, stolen)) == "bad_signature"


def test_an_expired_token_records_nobody(desk: Newcomer) -> None:
    desk.sim.clock.advance(DAY_US)
    assert desk.refused(lambda: desk.enrol()) == "invitation_expired"


def test_a_token_of_another_name_records_nobody(desk: Newcomer) -> None:
    desk.sim.invite("rover-8")
    record = desk.sim.sign_join(NAME, desk.key, token=desk.sim.tokens["rover-8"])
    assert desk.refused(lambda: desk.enrol(record)) == "bad_signature"


def test_a_superseded_token_records_nobody(desk: Newcomer) -> None:
    old = desk.sim.tokens[NAME]
    desk.sim.invite(NAME)
    record = desk.sim.sign_join(NAME, desk.key, token=old)
    assert desk.refused(lambda: desk.enrol(record)) == "bad_signature"


@pytest.mark.parametrize(
    "change",
    [
        {"clearance": 6},
        {"groups": ["rovers", "satellites"]},
        {"groups": []},
        {"expires_us": 2**62},
        {"state": "suspended"},
        {"version": 2, "previous": sha256(b"")},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_record_that_differs_from_the_invitation_is_refused(desk: Newcomer, change: dict[str, object]) -> None:
    record = desk.sim.sign_join(NAME, desk.key, **change)
    assert desk.refused(lambda: desk.enrol(record)) == "record_differs"


def test_a_record_that_other_keys_sign_too_is_refused(desk: Newcomer) -> None:
    raw = desk.sim.record_raw(NAME, signing_key=desk.key)
    keys = [desk.sim.tokens[NAME], SigningKey.generate("ed25519")]
    assert desk.refused(lambda: desk.enrol(sign_envelope(ParticipantRecord.payload_type, raw, keys))) == "bad_signature"


def test_a_record_whose_key_nobody_possesses_is_refused(desk: Newcomer) -> None:
    other = SigningKey.generate("ed25519")
    from sfrl_secure.crypto.possession import prove_possession

    possession = prove_possession(other, desk.sim.federation_id, NAME)
    record = desk.sim.sign_join(NAME, desk.key, possession=possession)
    assert desk.refused(lambda: desk.enrol(record)) == "bad_signature"


def test_a_record_with_another_participants_key_is_refused(desk: Newcomer) -> None:
    key = desk.sim.rovers["rover-1"]
    record = desk.sim.sign_join(NAME, key)
    assert desk.refused(lambda: desk.enrol(record, desk.asked(key=key))) == "key_reused"


def test_a_revoked_name_is_not_invited_back(desk: Newcomer) -> None:
    desk.enrol()
    desk.sim.rovers[NAME] = desk.key
    desk.sim.record(NAME, state="revoked")
    assert desk.refused(lambda: desk.enrol()) == "revoked"


def test_a_participant_who_lost_its_keys_joins_again_with_a_new_token(desk: Newcomer) -> None:
    desk.enrol()
    desk.sim.invite(NAME)
    key = SigningKey.generate("ed25519")
    answer = desk.enrol(desk.sim.sign_join(NAME, key), desk.asked(key=key, tls_key=generate_tls_key()[0]))
    assert desk.sim.state.index_of_document(("participant", NAME)) == answer.recorded.index
    assert desk.sim.state.participant(NAME).key == key.public_key


@pytest.mark.parametrize("older_us", [0, 1])
def test_a_request_gives_one_identity_and_an_older_one_for_its_key_none(desk: Newcomer, older_us: int) -> None:
    record, older = desk.sim.sign_join(NAME, desk.key), desk.asked()
    first = desk.asked()
    desk.enrol(record, first)
    sent_again = older if older_us else first
    assert desk.refused(lambda: desk.enrol(record, sent_again)) == "request_used"
    who, over = participant_id(NAME), first.identity.spki_sha256
    assert desk.refused(lambda: desk.renew(who, over, sent_again)) == "request_used"
    # Its holder signs another, and the certificate that was given is still the newest one.
    serial = desk.sim.state.identities[over].serial
    assert desk.renew(who, over, desk.asked()).certificate
    assert desk.sim.state.identities[over].serial != serial


def test_of_two_calls_for_one_key_the_newer_request_counts_and_the_older_one_gives_nothing(desk: Newcomer) -> None:
    """The newer one is served by another gatekeeper, after the older one was looked at and before its entry."""
    desk.key, over = desk.sim.rovers["rover-1"], sha256(b"rover-1")
    older, newer = desk.asked(name="rover-1"), desk.asked(name="rover-1")
    other, given = Newcomer(open_desk(desk.sim)), []

    def meanwhile(envelope: Envelope) -> None:
        if not given:
            given.append(b"")
            given[0] = other.renew(participant_id("rover-1"), over, newer).certificate

    desk.sim.log.before_append = meanwhile
    assert _denial(lambda: desk.renew(participant_id("rover-1"), over, older)) == "request_used"
    said = open_svid(given[0], DOMAIN)
    assert desk.sim.state.identities[said.spki_sha256].serial == said.serial


def test_a_name_gets_so_many_identities_in_a_day_and_a_record_is_not_spent_on_the_next(
    desk: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfrl_secure.rounds.identities.RATE_MAX", 3)
    who, over = participant_id("rover-1"), sha256(b"rover-1")
    desk.key = desk.sim.rovers["rover-1"]
    for number in range(2):
        desk.renew(who, over, desk.asked(name="rover-1", tls_key=generate_tls_key()[0] if number else None))
    assert desk.refused(lambda: desk.renew(who, over, desk.asked(name="rover-1"))) == "identity_rate"
    desk.sim.invite("rover-1")
    record = desk.sim.sign_join("rover-1", desk.key)
    assert desk.refused(lambda: desk.enrol(record, desk.asked(name="rover-1"))) == "identity_rate"
    join = desk.sim.state.join("rover-1")
    assert join is not None
    assert join.digest not in desk.sim.state.spent_joins
    desk.sim.clock.advance(DAY_US)
    desk.sim.invite("rover-1")
    desk.enrol(desk.sim.sign_join("rover-1", desk.key), desk.asked(name="rover-1"))


# What is asked for


def test_a_request_of_another_federation_is_refused(desk: Newcomer) -> None:
    now_us = desk.sim.clock.now_us()
    asked = ask_identity(participant_id(NAME), sha256(b"other"), desk.key, now_us, tls_key=desk.tls_key)
    assert desk.refused(lambda: desk.enrol(asked=asked)) == "wrong_federation"
    record = desk.sim.sign_join(NAME, desk.key, federation_id=sha256(b"other"))
    assert desk.refused(lambda: desk.enrol(record)) == "wrong_federation"


def test_a_request_for_another_name_or_key_than_the_record_s_is_refused(desk: Newcomer) -> None:
    assert desk.refused(lambda: desk.enrol(asked=desk.asked(name="rover-1"))) == "wrong_peer"
    other = desk.asked(tls_key=generate_tls_key()[0])
    assert desk.refused(lambda: desk.enrol(asked=replace(desk.asked(), csr=other.csr))) == "wrong_peer"
    assert desk.refused(lambda: desk.enrol(asked=desk.asked(key=SigningKey.generate("ed25519")))) == "bad_signature"


@pytest.mark.parametrize("off_us", [HOUR_US + 1, -HOUR_US - 1])
def test_a_request_that_is_not_of_now_is_refused_and_the_token_is_not_spent(desk: Newcomer, off_us: int) -> None:
    stale = ask_identity(
        participant_id(NAME), desk.sim.federation_id, desk.key, desk.sim.clock.now_us() + off_us, tls_key=desk.tls_key
    )
    assert desk.refused(lambda: desk.enrol(asked=stale)) == "request_stale"
    desk.enrol()


def test_a_certificate_request_that_shows_no_possession_is_refused(desk: Newcomer) -> None:
    good = build_csr(desk.tls_key)
    broken = bytearray(good)
    broken[-1] ^= 1
    assert desk.refused(lambda: desk.enrol(csr=bytes(broken))) == "csr"
    assert desk.refused(lambda: desk.enrol(csr=good + b"\0")) == "csr"
    other_curve = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    assert desk.refused(lambda: desk.enrol(csr=other_curve)) == "csr"


def test_a_tls_key_that_is_revoked_or_another_s_gives_nothing_and_spends_no_token(desk: Newcomer) -> None:
    asked = desk.asked()
    desk.sim.issue("rover-1", spki=asked.identity.spki_sha256)
    assert desk.refused(lambda: desk.enrol(asked=asked)) == "key_reused"
    other = desk.asked(tls_key=generate_tls_key()[0])
    desk.sim.revoke_key(other.identity.spki_sha256, participant_id(NAME))
    assert desk.refused(lambda: desk.enrol(asked=other)) == "revoked"
    desk.enrol(asked=desk.asked(tls_key=generate_tls_key()[0]))


def test_bytes_that_are_no_request_are_counted_as_malformed(desk: Newcomer) -> None:
    with pytest.raises(MalformedError):
        desk.servicer.enrol(b"\xff", Caller())  # type: ignore[arg-type]
    taken = desk.counter.take()
    assert taken is not None
    assert [(each.reason, each.peer_class) for each in taken.counts] == [("malformed", PeerClass.UNKNOWN)]


def test_a_gatekeeper_without_the_clients_ca_takes_no_newcomer(sim: Simulator) -> None:
    sim.invite(NAME)
    desk = Newcomer(open_desk(sim, client=False))
    assert desk.refused(lambda: desk.enrol()) == "not_issuing"
    assert sim.state.participant(NAME) is None


# Renewal


def test_everybody_who_has_an_identity_renews_it_and_services_get_their_dns_name(desk: Newcomer) -> None:
    for who in (participant_id("rover-1"), operator_id("ann"), auditor_id("iris"), service_id("audit_log", "l1")):
        over = sha256(who.name.encode())
        if who.role != "participant":
            desk.sim.issue(who)
        asked = ask_identity(who, desk.sim.federation_id, desk.sim.key_of(who), desk.sim.clock.now_us())
        answer = desk.renew(who, over, asked)
        said = open_identity(
            asked, answer.issued, answer.checkpoint, answer.certificate, desk.sim.policy, renews=over
        )
        assert desk.sim.state.identities[said.spki_sha256].spiffe_id == who
        names = x509.load_pem_x509_certificate(answer.certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        hosts = names.value.get_values_for_type(x509.DNSName)
        assert hosts == ([f"audit-log.{DOMAIN}"] if who.role == "audit_log" else [])


def test_nobody_renews_over_anothers_connection(desk: Newcomer) -> None:
    who, other = participant_id("rover-1"), participant_id("rover-2")
    asked = ask_identity(who, desk.sim.federation_id, desk.sim.key_of(who), desk.sim.clock.now_us())
    assert desk.refused(lambda: desk.renew(other, sha256(b"rover-2"), asked)) == "wrong_peer"


def test_a_stolen_tls_key_alone_renews_nothing(desk: Newcomer) -> None:
    """The connection is the owner's; the request is signed with a key that governance does not know."""
    who = participant_id("rover-1")
    asked = ask_identity(who, desk.sim.federation_id, SigningKey.generate("ed25519"), desk.sim.clock.now_us())
    assert desk.refused(lambda: desk.renew(who, sha256(b"rover-1"), asked)) == "bad_signature"


@pytest.mark.parametrize("off_us", [HOUR_US + 1, -HOUR_US - 1])
def test_a_renewal_that_was_signed_for_another_time_is_refused(desk: Newcomer, off_us: int) -> None:
    who = participant_id("rover-1")
    asked = ask_identity(who, desk.sim.federation_id, desk.sim.key_of(who), desk.sim.clock.now_us() + off_us)
    assert desk.refused(lambda: desk.renew(who, sha256(b"rover-1"), asked)) == "request_stale"


def test_a_gatekeeper_issues_only_what_it_has_the_ca_for(sim: Simulator) -> None:
    desk = Newcomer(open_desk(sim, service=False))
    who = service_id("verifier", "v1")
    sim.issue(who)
    asked = ask_identity(who, sim.federation_id, sim.key_of(who), sim.clock.now_us())
    assert desk.refused(lambda: desk.renew(who, sha256(b"v1"), asked)) == "not_issuing"


def test_an_identity_never_outlives_the_ca(sim: Simulator) -> None:
    desk, who, over = Newcomer(open_desk(sim, ca_us=HOUR_US)), participant_id("rover-1"), sha256(b"rover-1")
    asked = ask_identity(who, sim.federation_id, sim.key_of(who), sim.clock.now_us())
    found = open_svid(desk.renew(who, over, asked).certificate, DOMAIN)
    assert found.not_after_us == sim.clock.now_us() + HOUR_US
    sim.clock.advance(HOUR_US + 2 * SKEW_US)
    asked = ask_identity(who, sim.federation_id, sim.key_of(who), sim.clock.now_us())
    assert desk.refused(lambda: desk.renew(who, over, asked)) == "not_issuing"


def test_an_answer_that_nobody_waits_for_is_not_made(desk: Newcomer) -> None:
    """The newest entry of a key is the one that counts: it must not be one whose certificate nobody has."""
    who = participant_id("rover-1")
    asked = ask_identity(who, desk.sim.federation_id, desk.sim.key_of(who), desk.sim.clock.now_us())
    size = len(desk.sim.log.raw)
    with pytest.raises(ExhaustedError):
        desk.renew(who, sha256(b"rover-1"), asked, caller=Caller(is_there=False))
    assert len(desk.sim.log.raw) == size


def test_what_no_entry_could_be_written_for_is_not_answered(desk: Newcomer) -> None:
    def fail(envelope: Envelope) -> None:
        raise UnavailableError("the log is away")

    desk.sim.log.before_append = fail
    with pytest.raises(UnavailableError):
        desk.enrol()
    desk.sim.log.before_append = lambda envelope: None
    desk.enrol()


def test_the_entry_quotes_the_request_and_what_it_renews(desk: Newcomer) -> None:
    who = participant_id("rover-1")
    asked = ask_identity(who, desk.sim.federation_id, desk.sim.key_of(who), desk.sim.clock.now_us())
    answer = desk.renew(who, sha256(b"rover-1"), asked)
    body = desk.sim.log.statement_at(answer.issued.index).body
    assert isinstance(body, IdentityIssued)
    assert (body.envelope, body.request, body.renews) == (asked.request, asked.identity, sha256(b"rover-1"))


def _denial(call: Callable[[], object]) -> str:
    with pytest.raises(DeniedError) as refused:
        call()
    return refused.value.reason
