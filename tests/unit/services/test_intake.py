from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sfrl_secure.crypto.envelope import Envelope, add_signature, sign_envelope
from sfrl_secure.crypto.keys import ED25519, HYBRID, SigningKey
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.build import build_rules
from sfrl_secure.governance.documents import RulesDocument
from sfrl_secure.governance.services import KEY_EXCHANGES, ServicesDocument, Signatory
from sfrl_secure.governance.statements import STATEMENT_TYPE, PeerClass, RefusalCount, RefusalsCounted, Statement
from sfrl_secure.ids import ZERO_DIGEST, parse_spiffe_id, sha256
from sfrl_secure.rpc.identity import ROLES, SERVICE_ROLES
from sfrl_secure.sequencer.sequencer import Submission
from sfrl_secure.services.audit_log.intake import Intake
from sfrl_secure.services.audit_log.signature_checks import SignatureChecks
from sfrl_secure.wire.statements import encode_statement

WRITER = parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/one")
AUDITOR = parse_spiffe_id("spiffe://sfrl.example/auditor/iris")
OTHER = parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/two")


@dataclass
class State:
    """What the intake sees of the federation's state."""

    document: ServicesDocument | None
    looks: int = 0

    def services(self) -> ServicesDocument | None:
        self.looks += 1
        return self.document


@dataclass
class Site:
    key: SigningKey
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = State(services_document(Signatory(WRITER, self.key.public_key)))
        self.checks = SignatureChecks()
        self.intake = Intake(self.state, self.checks)  # type: ignore[arg-type]

    def statement(self, number: int = 0, **changes: Any) -> Statement:
        made = Statement(
            federation_id=sha256(b"federation"),
            stream="log",
            writer=WRITER,
            key_id=self.key.public_key.key_id,
            reads_governance=sha256(b"governance"),
            reads_segment=ZERO_DIGEST,
            valid_until_us=2**60,
            request_id=number.to_bytes(16, "big"),
            body=RefusalsCounted(1, 2, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests")),
        )
        return replace(made, **changes)

    def envelope(self, number: int = 0, key: SigningKey | None = None, **changes: Any) -> Envelope:
        raw = encode_statement(self.statement(number, **changes))
        return sign_envelope(STATEMENT_TYPE, raw, [key or self.key])

    def judge(self, *envelopes: Envelope | MalformedError, role: str = "gatekeeper") -> Sequence[object]:
        """As a request of these, and the batch that they come into, are judged."""
        return tuple(self.intake.verify(self.intake.judge(envelopes, role)))


def services_document(*services: Signatory, auditors: tuple[Signatory, ...] = ()) -> ServicesDocument:
    return ServicesDocument(
        raw=b"", digest=ZERO_DIGEST, federation_id=ZERO_DIGEST, version=1, previous=ZERO_DIGEST, expires_us=1,
        services=services, auditors=auditors, key_exchange=KEY_EXCHANGES,
    )


def rules(*keys: SigningKey) -> Envelope:
    raw = build_rules(federation_id=ZERO_DIGEST, version=1, previous=ZERO_DIGEST, expires_us=2**60)
    return sign_envelope(RulesDocument.payload_type, raw, keys)


def damaged(envelope: Envelope) -> Envelope:
    (signature,) = envelope.signatures
    value = signature.value[:-1] + bytes([signature.value[-1] ^ 1])
    return replace(envelope, signatures=(replace(signature, value=value),))


@pytest.fixture(params=[ED25519, HYBRID])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(SigningKey.generate(request.param))
    yield made
    made.checks.close()


def test_a_statement_whose_signature_holds_says_by_which_key(site: Site) -> None:
    envelope = site.envelope()
    assert site.judge(envelope) == (Submission(envelope, site.statement(), site.key.public_key),)


@pytest.mark.parametrize("make", [damaged, lambda envelope: add_signature(envelope, SigningKey.generate(ED25519))])
def test_a_statement_that_is_not_signed_by_its_writer_alone_is_refused(site: Site, make: Any) -> None:
    (refused,) = site.judge(make(site.envelope()))
    assert isinstance(refused, DeniedError)
    assert refused.reason == "bad_signature"


def test_a_statement_by_another_key_than_it_names_is_refused(site: Site) -> None:
    (refused,) = site.judge(site.envelope(key=SigningKey.generate(ED25519)))
    assert isinstance(refused, DeniedError)
    assert refused.reason == "bad_signature"


def test_writers_that_nobody_names_are_left_to_the_fold(site: Site) -> None:
    stranger = SigningKey.generate(ED25519)
    for envelope in (
        site.envelope(writer=OTHER),
        site.envelope(key=stranger, key_id=stranger.public_key.key_id),
        damaged(site.envelope(writer=OTHER)),
    ):
        (submission,) = site.judge(envelope)
        assert isinstance(submission, Submission)
        assert submission.verified_by is None
    site.state.document = None
    (submission,) = site.judge(site.envelope())
    assert isinstance(submission, Submission)
    assert submission.verified_by is None


@pytest.mark.parametrize("role", sorted(ROLES))
def test_documents_are_taken_from_everybody_and_left_to_the_fold(site: Site, role: str) -> None:
    envelope = rules(SigningKey.generate(ED25519))
    (submission,) = site.judge(envelope, role=role)
    assert isinstance(submission, Submission)
    assert (submission.envelope, submission.verified_by) == (envelope, None)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_statements_are_taken_from_services_and_auditors_alone(site: Site, role: str) -> None:
    (judged,) = site.judge(site.envelope(), role=role)
    if role in SERVICE_ROLES or role == "auditor":
        assert isinstance(judged, Submission)
    else:
        assert isinstance(judged, DeniedError)
        assert judged.reason == "role"


def test_an_auditors_statement_is_verified_with_the_auditors_key(site: Site) -> None:
    key = SigningKey.generate(ED25519)
    site.state.document = services_document(
        Signatory(WRITER, site.key.public_key), auditors=(Signatory(AUDITOR, key.public_key),)
    )
    envelope = site.envelope(key=key, writer=AUDITOR, key_id=key.public_key.key_id)
    (judged,) = site.judge(envelope, role="auditor")
    assert isinstance(judged, Submission)
    assert judged.verified_by == key.public_key
    # A key and a name that are not together in the document are nobody's, and left to the fold.
    for mixed in (
        site.envelope(key=key, key_id=key.public_key.key_id),
        site.envelope(writer=AUDITOR),
    ):
        (judged,) = site.judge(mixed, role="auditor")
        assert isinstance(judged, Submission)
        assert judged.verified_by is None
    (judged,) = site.judge(damaged(envelope), role="auditor")
    assert isinstance(judged, DeniedError)
    assert judged.reason == "bad_signature"


def test_who_may_bring_no_statement_costs_no_look_at_its_bytes(site: Site) -> None:
    good = site.envelope()
    (refused,) = site.judge(replace(good, statement=b"\xff"), role="participant")
    assert isinstance(refused, DeniedError)
    (malformed,) = site.judge(replace(good, statement=b"\xff"))
    assert isinstance(malformed, MalformedError)
    assert malformed.__traceback__ is None


def test_each_envelope_of_a_request_is_judged_for_itself_with_one_look_at_the_state_each_time(site: Site) -> None:
    given = MalformedError("not an envelope")
    count = 80
    envelopes: list[Envelope | MalformedError] = [site.envelope(number) for number in range(count)]
    envelopes[3] = damaged(site.envelope(3))
    envelopes[4] = given
    envelopes[5] = rules(SigningKey.generate(ED25519))
    envelopes[count - 1] = damaged(site.envelope(count - 1))
    judged = site.judge(*envelopes)
    assert site.state.looks == 2  # once here, once with the batch
    assert len(judged) == count
    for at, (envelope, each) in enumerate(zip(envelopes, judged, strict=True)):
        if at in (3, count - 1):
            assert isinstance(each, DeniedError)
            assert each.reason == "bad_signature"
        elif at == 4:
            assert each is given
        else:
            assert isinstance(each, Submission)
            assert each.envelope is envelope
            assert each.verified_by == (None if at == 5 else site.key.public_key)


def test_one_that_comes_alone_is_verified_with_its_batch_and_nothing_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    hold = site.checks.hold
    monkeypatch.setattr(site.checks, "hold", lambda claims: (asked.append(len(claims)), hold(claims))[1])
    alone = [site.intake.judge([each], "gatekeeper") for each in (site.envelope(1), damaged(site.envelope(2)))]
    assert asked == []
    together = site.intake.judge([site.envelope(3), site.envelope(4)], "gatekeeper")
    assert asked == [2]
    good, bad, *others = site.intake.verify([*alone[0], *alone[1], *together])
    assert asked == [2, 2]
    assert isinstance(good, Submission)
    assert good.verified_by == site.key.public_key
    assert isinstance(bad, DeniedError)
    assert bad.reason == "bad_signature"
    assert others == list(together)
