"""The first identity of whom governance newly names: who gets one, for one TLS key, and who gets none and why."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509
from simulated_identities import Caller, IdentityDesk, open_desk
from simulator import DAY_US, DOMAIN, HOUR_US, Simulator, auditor_id, operator_id, participant_id, service_id

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.x509 import generate_tls_key
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import IdentityIssued
from sfrl_secure.ids import SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.rpc.identity_requests import AskedIdentity, ask_identity, open_identity
from sfrl_secure.wire import identity_service as wire

DORA = operator_id("dora")
NEW = (DORA, auditor_id("olga"), service_id("gatekeeper", "g9"), service_id("verifier", "v9"))


@dataclass
class Named:
    """Whom a new root and a new services document name, before a gatekeeper's desk."""

    desk: IdentityDesk
    keys: dict[SpiffeId, SigningKey] = field(default_factory=dict)
    tls_key: SecretBytes = field(default_factory=lambda: generate_tls_key()[0])

    @property
    def sim(self) -> Simulator:
        return self.desk.sim

    def name(self, *, expires_in_us: int = 30 * DAY_US) -> None:
        """Put a root and a services document in force that name everybody of `NEW`."""
        sim, until = self.sim, self.sim.clock.now_us() + expires_in_us
        self.keys = {each: SigningKey.generate("ed25519") for each in NEW}
        sim.rotate_root({**sim.operators, "dora": self.keys[DORA]}, expires_us=until)
        sim.auditors[NEW[1]] = self.keys[NEW[1]]
        sim.keys.update({each: self.keys[each] for each in NEW[2:]})
        sim.publish_services(expires_us=until)

    def asked(
        self, who: SpiffeId = DORA, *, key: SigningKey | None = None, new_tls_key: bool = False, off_us: int = 0
    ) -> AskedIdentity:
        """A request, newer than the one before."""
        self.sim.clock.advance(1)
        return ask_identity(
            who, self.sim.federation_id, key or self.keys[who], self.sim.clock.now_us() + off_us,
            tls_key=generate_tls_key()[0] if new_tls_key else self.tls_key,
        )  # fmt: skip

    def enrol(self, asked: AskedIdentity, *, record: Envelope | None = None) -> wire.EnrolResponse:
        raw = wire.encode_enrol_request(record, asked.request, asked.csr)
        return wire.parse_enrol_response(self.desk.servicer.enrol(raw, Caller()))  # type: ignore[arg-type]

    def refused(self, asked: AskedIdentity, *, record: Envelope | None = None) -> str:
        """The reason of a refusal, which is counted under it; the log is as it was."""
        size = len(self.sim.log.raw)
        with pytest.raises(DeniedError) as refused:
            self.enrol(asked, record=record)
        taken = self.desk.counter.take()
        assert taken is not None
        assert [each.reason for each in taken.counts] == [refused.value.reason]
        self.desk.counter.confirm(taken)
        assert len(self.sim.log.raw) == size
        return refused.value.reason


@pytest.fixture
def named(sim: Simulator) -> Named:
    made = Named(open_desk(sim))
    made.name()
    return made


@pytest.mark.parametrize("who", NEW, ids=lambda who: who.role)
def test_whom_governance_names_gets_an_identity_by_its_request_alone(named: Named, who: SpiffeId) -> None:
    asked = named.asked(who)
    size = len(named.sim.log.raw)
    answer = named.enrol(asked)
    assert answer.recorded is None
    assert len(named.sim.log.raw) == size + 1
    said = open_identity(
        asked, answer.issued, answer.checkpoint, answer.certificate, named.sim.policy, renews=None
    )
    assert named.sim.state.identities[said.spki_sha256].spiffe_id == who
    assert named.sim.log.voids == {}
    names = x509.load_pem_x509_certificate(answer.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    is_service = who in NEW[2:]
    assert names.value.get_values_for_type(x509.DNSName) == ([f"{who.role}.{DOMAIN}"] if is_service else [])


def test_the_same_tls_key_gets_its_identity_again_and_another_one_none(named: Named) -> None:
    named.enrol(named.asked())
    again = named.asked()
    said = open_identity(
        again, (answer := named.enrol(again)).issued, answer.checkpoint, answer.certificate, named.sim.policy,
        renews=None,
    )  # fmt: skip
    assert named.sim.state.identities[said.spki_sha256].serial == said.serial
    other = named.asked(new_tls_key=True)
    assert named.refused(other) == "already_issued"
    with pytest.raises(DeniedError, match="sfrl renew"):
        named.enrol(other)


def test_a_request_of_somebody_named_gives_one_identity(named: Named) -> None:
    """Whoever reads the log, or recorded the call, has the request and can prove possession of nothing; so has a
    gatekeeper. It is of no use to them."""
    asked = named.asked()
    named.enrol(asked)
    assert named.refused(asked) == "request_used"


def test_of_two_calls_with_two_tls_keys_that_both_passed_the_first_look_one_gets_an_identity(named: Named) -> None:
    """The second one is looked at, and then the first one's entry comes before its own."""
    first, second = named.asked(), named.asked(new_tls_key=True)
    appended: list[Envelope] = []

    def meanwhile(envelope: Envelope) -> None:
        if not appended:
            appended.append(envelope)
            # The newest heads are others now, so the second entry is decided again.
            named.sim.issue(DORA, spki=first.identity.spki_sha256)
            named.sim.publish_rules()

    named.sim.log.before_append = meanwhile
    with pytest.raises(DeniedError) as refused:
        named.enrol(second)
    assert refused.value.reason == "already_issued"
    assert second.identity.spki_sha256 not in named.sim.state.identities


@pytest.mark.parametrize("who", NEW, ids=lambda who: who.role)
@pytest.mark.parametrize("fate", ["in force", "renewed", "revoked", "expired"])
def test_a_stolen_signing_key_of_somebody_who_had_an_identity_gets_nothing(
    named: Named, who: SpiffeId, fate: str
) -> None:
    sim, spki = named.sim, named.asked(who).identity.spki_sha256
    named.enrol(named.asked(who))
    if fate == "renewed":
        sim.issue(who, spki=sha256(b"next"), renews=spki)
    elif fate == "revoked":
        sim.revoke_key(spki, who)
    elif fate == "expired":
        sim.clock.advance(2 * DAY_US)
    assert named.refused(named.asked(who, new_tls_key=True)) == "already_issued"
    # The TLS key of the first identity is no way in either once there was a second one.
    expected = {"renewed": "already_issued", "revoked": "revoked"}.get(fate)
    if expected is not None:
        assert named.refused(named.asked(who)) == expected


def test_nobody_is_named_anew_by_a_new_signing_key(named: Named) -> None:
    """Operators give dora another signing key: what was issued under the name stays issued."""
    named.enrol(named.asked())
    key = SigningKey.generate("ed25519")
    named.sim.rotate_root({**named.sim.operators, "dora": key})
    assert named.refused(named.asked(key=key, new_tls_key=True)) == "already_issued"


def test_a_participant_comes_in_by_its_record_alone_and_nobody_else_shows_one(named: Named) -> None:
    sim = named.sim
    rover = named.asked(participant_id("rover-1"), key=sim.rovers["rover-1"])
    assert named.refused(rover) == "no_invitation"
    sim.invite("rover-9")
    record = sim.sign_join("rover-9", SigningKey.generate("ed25519"))
    for who in NEW:
        assert named.refused(named.asked(who), record=record) == "wrong_peer"


@pytest.mark.parametrize(
    "path",
    ["operator/mallory", "auditor/mallory", "service/aggregator/g9", "service/gatekeeper/mallory", "auditor/dora"],
)
def test_whom_nobody_names_gets_nothing(named: Named, path: str) -> None:
    who = parse_spiffe_id(f"spiffe://{DOMAIN}/{path}")
    assert named.refused(named.asked(who, key=named.keys[DORA])) == "unknown_name"


def test_a_name_of_another_trust_domain_gets_nothing(named: Named) -> None:
    who = parse_spiffe_id("spiffe://elsewhere.example/operator/dora")
    assert named.refused(named.asked(who, key=named.keys[DORA])) == "unknown_name"


def test_a_request_under_another_signing_key_is_refused(named: Named) -> None:
    assert named.refused(named.asked(key=SigningKey.generate("ed25519"))) == "bad_signature"
    assert named.refused(named.asked(key=named.sim.operators["ann"])) == "bad_signature"
    forged = named.asked(key=SigningKey.generate("ed25519"))
    dressed = replace(named.asked(), request=replace(named.asked().request, signatures=forged.request.signatures))
    assert named.refused(dressed) == "bad_signature"


def test_a_request_for_another_federation_tls_key_or_time_is_refused(named: Named) -> None:
    now_us = named.sim.clock.now_us()
    elsewhere = ask_identity(DORA, sha256(b"other"), named.keys[DORA], now_us, tls_key=named.tls_key)
    assert named.refused(elsewhere) == "wrong_federation"
    assert named.refused(replace(named.asked(), csr=named.asked(new_tls_key=True).csr)) == "wrong_peer"
    assert named.refused(replace(named.asked(), csr=b"\x30\x00")) == "csr"
    for off_us in (HOUR_US + 1, -HOUR_US - 1):
        assert named.refused(named.asked(off_us=off_us)) == "request_stale"
    named.enrol(named.asked())


def test_a_tls_key_that_is_revoked_or_another_s_gives_nothing(named: Named) -> None:
    asked = named.asked()
    named.sim.issue("rover-1", spki=asked.identity.spki_sha256)
    assert named.refused(asked) == "key_reused"
    other = named.asked(new_tls_key=True)
    named.sim.revoke_key(other.identity.spki_sha256, DORA)
    assert named.refused(other) == "revoked"


@pytest.mark.parametrize("who", NEW, ids=lambda who: who.role)
def test_a_document_that_has_expired_names_nobody_for_the_first_time(sim: Simulator, who: SpiffeId) -> None:
    named = Named(open_desk(sim))
    named.name(expires_in_us=HOUR_US)
    sim.clock.advance(HOUR_US - 2)
    named.enrol(named.asked(who))
    assert named.refused(named.asked(who)) == "expired"


@pytest.mark.parametrize(("client", "service"), [(True, False), (False, True)])
def test_a_gatekeeper_issues_only_what_it_has_the_ca_for(sim: Simulator, client: bool, service: bool) -> None:
    named = Named(open_desk(sim, client=client, service=service))
    named.name()
    for who, has_ca in zip(NEW, (client, client, service, service), strict=True):
        if has_ca:
            named.tls_key = generate_tls_key()[0]
            named.enrol(named.asked(who))
        else:
            assert named.refused(named.asked(who)) == "not_issuing"


def test_what_the_log_records_quotes_the_request_and_renews_nothing(named: Named) -> None:
    asked = named.asked()
    body = named.sim.log.statement_at(named.enrol(asked).issued.index).body
    assert isinstance(body, IdentityIssued)
    assert (body.spiffe_id, body.envelope, body.renews) == (DORA, asked.request, None)


