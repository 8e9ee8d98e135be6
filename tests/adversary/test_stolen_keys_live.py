"""Stolen keys, tried on running services: each alone is not enough, and what is tried with it stands in the log.

A TLS key connects and speaks for nobody; a signing key speaks and does not connect; a CA makes certificates that no
entry names; an operator is one of two; and a gatekeeper admits only what participants signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey, signing_key_from_pem
from sfrl_secure.governance.build import build_participant, build_rules, build_services
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    STATEMENT_TYPE,
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    DecisionStatement,
    Evidence,
    MeasuredFacts,
    PayloadFormat,
    PeerClass,
    Statement,
    UpdateAdmitted,
    UpdateStatement,
    WithdrawalStatement,
)
from sfrl_secure.ids import Digest, parse_spiffe_id, sha256
from sfrl_secure.operating.acts import draft_root
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.channel import ClientTls
from sfrl_secure.rpc.clients import GatekeeperClient, IdentityClient
from sfrl_secure.rpc.identity_requests import ask_identity
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.participants import encode_decision, encode_withdrawal
from sfrl_secure.wire.statements import encode_statement, encode_update, parse_update
from sfrl_secure.wire.uploads import SUBMIT_UPDATE, Chunk, encode_upload_start

from ..integration.conftest import SEGMENT, submit
from .live import DOMAIN, LOG, Live, running, uri

pytestmark = pytest.mark.integration

THIEF = SigningKey.generate("ed25519")
PAYLOAD = b"what the thief has learnt"
PARTICIPANT, OPERATOR = PeerClass.PARTICIPANT, PeerClass.OPERATOR


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("stolen")) as made:
        yield made


def key_of(live: Live, name: str) -> SigningKey:
    return live.site.profile(name).open_signing_key()


def update_of(live: Live, name: str, key_id: Digest) -> UpdateStatement:
    """An update for the open round under a participant's name."""
    opened = live.state().segments[SEGMENT].open_round
    assert opened is not None
    return UpdateStatement(
        federation_id=live.site.federation.federation_id,
        segment=SEGMENT,
        participant=name,
        key_id=key_id,
        round=opened.number,
        round_opened=opened.opened,
        base_model=opened.base_model,
        payload_sha256=sha256(PAYLOAD),
        payload_root=sha256(PAYLOAD),
        payload_bytes=len(PAYLOAD),
        nonzeros=3,
        format=PayloadFormat(2, "free", "int8"),
        weight=10,
        created_us=SystemClock().now_us(),
    )


def signed_update(live: Live, name: str, key: SigningKey, *, key_id: Digest | None = None) -> Envelope:
    """Signed with a key; under another key's name, where one is given."""
    statement = encode_update(update_of(live, name, key_id or key.public_key.key_id))
    envelope = sign_envelope(UPDATE_TYPE, statement, [key])
    if key_id is None:
        return envelope
    (signature,) = envelope.signatures
    return replace(envelope, signatures=(replace(signature, key_id=key_id),))


def send(live: Live, tls: ClientTls, envelope: Envelope) -> None:
    # One attempt: a client would go on where TLS hangs up.
    live.call(tls, SUBMIT_UPDATE, encode_upload_start(envelope, Chunk(0, PAYLOAD)))


def withdrawal(live: Live, name: str, key: SigningKey) -> Envelope:
    update = update_of(live, name, key.public_key.key_id)
    said = WithdrawalStatement(
        update.federation_id, SEGMENT, name, update.key_id, update.round, update.round_opened, sha256(b"its update"),
        update.created_us,
    )  # fmt: skip
    return sign_envelope(WITHDRAWAL_TYPE, encode_withdrawal(said), [key])


def decision(live: Live, name: str, key: SigningKey) -> Envelope:
    update = update_of(live, name, key.public_key.key_id)
    said = DecisionStatement(
        update.federation_id, SEGMENT, name, update.key_id, 1, sha256(b"input"), update.base_model, 3, 900_000, (), (),
        update.created_us,
    )  # fmt: skip
    return sign_envelope(DECISION_TYPE, encode_decision(said), [key])


# A TLS key and its certificate, and no signing key


def test_a_stolen_tls_key_submits_nothing(live: Live) -> None:
    stolen, owner = live.tls("rover-1"), key_of(live, "rover-1").public_key.key_id
    for forged in (
        signed_update(live, "rover-1", THIEF),
        signed_update(live, "rover-1", THIEF, key_id=owner),
    ):
        live.refused_update("bad_signature", "rover-1", partial(send, live, stolen, forged), Evidence.NONE)
    captured = signed_update(live, "rover-2", key_of(live, "rover-2"))
    live.refused_update("wrong_peer", "rover-1", lambda: send(live, stolen, captured), Evidence.LOG)


def test_a_stolen_tls_key_takes_nothing_back_and_decides_nothing(live: Live) -> None:
    stolen = live.tls("rover-1")
    with live.channel(stolen) as channel:
        client = GatekeeperClient(channel)
        live.refused(
            "bad_signature", lambda: client.withdraw_update(withdrawal(live, "rover-1", THIEF)), peer_class=PARTICIPANT
        )
        live.refused(
            "bad_signature", lambda: client.record_decision(decision(live, "rover-1", THIEF)), peer_class=PARTICIPANT
        )


def test_a_stolen_tls_key_gets_no_next_one(live: Live) -> None:
    me = parse_spiffe_id(f"spiffe://{DOMAIN}/participant/rover-1")
    asked = ask_identity(me, live.site.federation.federation_id, THIEF, SystemClock().now_us())
    with live.channel(live.tls("rover-1")) as channel:
        client = IdentityClient(channel)
        live.refused("bad_signature", lambda: client.renew(asked.request, asked.csr), peer_class=PARTICIPANT)


# A signing key, and no TLS key


def test_a_stolen_signing_key_does_not_connect(live: Live) -> None:
    good = signed_update(live, "rover-1", key_of(live, "rover-1"))
    own = live.forge([uri("participant/rover-1")])
    certificate_alone = replace(own, chain=live.tls("rover-1").chain)
    live.unseen(lambda: send(live, certificate_alone, good))
    live.refused("unknown_identity", lambda: send(live, own, good))


def test_a_stolen_signing_key_speaks_over_nobody_else_s_connection(live: Live) -> None:
    """The thief is a participant too, with a connection of its own."""
    key, thief = key_of(live, "rover-1"), live.tls("rover-3")
    good = signed_update(live, "rover-1", key)
    live.refused_update("wrong_peer", "rover-3", lambda: send(live, thief, good), Evidence.LOG)
    with live.channel(thief) as channel:
        client = GatekeeperClient(channel)
        live.refused(
            "wrong_peer", lambda: client.withdraw_update(withdrawal(live, "rover-1", key)), peer_class=PARTICIPANT
        )
        live.refused(
            "wrong_peer", lambda: client.record_decision(decision(live, "rover-1", key)), peer_class=PARTICIPANT
        )


# The issuing CA


@pytest.mark.parametrize("name", ["rover-1", "rover-9"])
def test_a_stolen_ca_forges_no_update(live: Live, name: str) -> None:
    """With a certificate for whomever it likes, recorded or not, and with the signing key on top."""
    forged = live.forge([uri(f"participant/{name}")])
    live.refused("unknown_identity", lambda: send(live, forged, signed_update(live, name, THIEF)))
    if name == "rover-1":
        good = signed_update(live, name, key_of(live, name))
        live.refused("unknown_identity", lambda: send(live, forged, good))


def test_a_stolen_service_ca_is_no_service(live: Live) -> None:
    forged = live.forge([uri("service/gatekeeper/g1")], ca="service")
    live.refused("unknown_identity", lambda: live.append(admission(live), forged), at=LOG)


# One operator of three, of whom two must sign


def participant_record(now: FederationState, **changes: object) -> bytes:
    record = now.participant("rover-1")
    assert record is not None
    given: dict[str, object] = {
        "federation_id": now.federation_id, "version": record.version + 1, "previous": record.digest,
        "expires_us": record.expires_us, "name": record.name, "key": record.key, "possession": record.possession,
        "clearance": record.clearance, "groups": record.groups,
    }  # fmt: skip
    return build_participant(**{**given, **changes})  # type: ignore[arg-type]


def next_rules(state: FederationState) -> bytes:
    rules = state.rules(SystemClock().now_us())
    assert rules is not None
    return build_rules(
        federation_id=state.federation_id, version=rules.version + 1, previous=rules.digest,
        expires_us=rules.expires_us, cedar='@id("everything")\npermit(principal, action, resource);\n',
    )  # fmt: skip


def next_services(state: FederationState) -> bytes:
    now = state.services()
    assert now is not None
    return build_services(
        federation_id=state.federation_id, version=now.version + 1, previous=now.digest, expires_us=now.expires_us,
        services=list(now.services), auditors=[],
    )  # fmt: skip


def next_terms(state: FederationState) -> bytes:
    raw = state.segments[SEGMENT].terms.raw
    terms = state.segments[SEGMENT].terms
    return (
        raw.replace(b'"version": 1', b'"version": 2')
        .replace(terms.previous.hex().encode(), terms.digest.hex().encode())
        .replace(b'"rounds_max": 100', b'"rounds_max": 99')
    )


def next_root(state: FederationState) -> bytes:
    return draft_root(
        state, add={}, remove=["bob"], thresholds={"root": 1, "governance": 1}, days=None, now_us=SystemClock().now_us()
    ).payload


ALONE: dict[str, Callable[[FederationState], bytes]] = {
    "root": next_root,
    "services": next_services,
    "rules": next_rules,
    "segment-terms": next_terms,
    "participant": lambda state: participant_record(state, clearance=1_000_000),
    "suspension": lambda state: participant_record(state, state="suspended"),
}


@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("twice", [False, True], ids=["alone", "with-a-key-of-nobody"])
def test_one_operator_alone_changes_nothing(live: Live, kind: str, twice: bool) -> None:
    alice, state = live.operator("alice"), live.state()
    raw = ALONE[kind](state)
    payload_type = f"application/vnd.sfrl.{'participant' if kind == 'suspension' else kind}.v1+json"
    keys = [alice.open_signing_key(), *([THIEF] if twice else [])]
    envelope = sign_envelope(payload_type, raw, keys)
    live.refused("threshold", lambda: live.append(envelope, alice.open_tls()), at=LOG, peer_class=OPERATOR)
    assert live.state().governance_head == state.governance_head


# A gatekeeper: its signing key, its TLS key, and the CAs that it issues with


def admission(live: Live, *, update: Envelope | None = None) -> Envelope:
    """What a gatekeeper would write about an update, which its participant signed or not."""
    folder, state = live.site.folder.service("gatekeeper", "g1"), live.state()
    key = signing_key_from_pem("ed25519", read_secret(folder / "signing.key"))
    update = update or signed_update(live, "rover-1", THIEF, key_id=key_of(live, "rover-1").public_key.key_id)
    now_us = SystemClock().now_us()
    statement = Statement(
        federation_id=state.federation_id,
        stream=f"segment/{SEGMENT}",
        writer=parse_spiffe_id(f"spiffe://{DOMAIN}/service/gatekeeper/g1"),
        key_id=key.public_key.key_id,
        reads_governance=state.governance_head,
        reads_segment=state.segments[SEGMENT].control_head,
        valid_until_us=now_us + 20_000_000,
        request_id=np.random.default_rng().bytes(16),
        body=UpdateAdmitted(
            encode_envelope(update), update, parse_update(update.statement), MeasuredFacts(3, 41_666, 10, 9, (0,)), (),
            now_us + 366 * 86_400_000_000,
        ),
    )  # fmt: skip
    return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [key])


def test_a_stolen_gatekeeper_admits_nothing_that_its_participant_did_not_sign(live: Live) -> None:
    tls = live.service_tls("gatekeeper", "g1")
    forged = [
        admission(live),
        admission(live, update=signed_update(live, "rover-1", THIEF)),
        admission(live, update=signed_update(live, "rover-1", key_of(live, "rover-2"))),
    ]
    for each in forged:
        live.refused("bad_signature", partial(live.append, each, tls), at=LOG, peer_class=PeerClass.SERVICE)
    assert live.state().segments[SEGMENT].open_round.admissions == {}  # type: ignore[union-attr]


def test_what_participants_signed_is_counted_and_the_history_is_true(live: Live) -> None:
    for name in ("rover-1", "rover-2", "rover-3"):
        submit(live.site.participant(name), 1)
    log = live.site.wait_published(lambda log: log.state.segments[SEGMENT].rounds[1].model is not None)
    closed = log.state.segments[SEGMENT].rounds[1].closed
    assert closed is not None
    assert (closed.counted_count, closed.dropped) == (3, ())
    live.check_history()
