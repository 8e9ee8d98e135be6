"""New TLS identities for a federation that was switched off for longer than its certificates live.

Running services renew their own. When all of them have expired, nobody can call anybody, and so nobody can be asked:
the log is opened here, in its folder, with its witness beside it, and takes what it would have taken over the network:
identities that a gatekeeper states and whose owners' keys asked for. Nobody gets one who could not have got it so, and
only those whose keys lie in this folder.

A participant's identity is asked for over the one before; where that has expired, the operators put a new version of
its record in force, as they would anywhere, if enough of their keys lie here too. Others are invited again.

Runs in: cli.
Trusts: whoever owns the folder.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.audit.profile import OverseerProfile, read_auditor_profile, read_operator_profile, role_of_profile
from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.crypto.x509 import SKEW_US, open_csr, renewal_due_us
from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.governance.build import build_participant
from sfrl_secure.governance.documents import ParticipantRecord
from sfrl_secure.governance.participants import parse_participant
from sfrl_secure.governance.statements import STATEMENT_TYPE, IdentityIssued, Statement
from sfrl_secure.ids import ZERO_DIGEST, SpiffeId, parse_spiffe_id
from sfrl_secure.limits import STATEMENT_LIFETIME_US
from sfrl_secure.participant.profile import Profile, read_profile
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.channel import service_dns_name
from sfrl_secure.rpc.identity import SERVICE_ROLES
from sfrl_secure.rpc.identity_requests import ask_identity, issued_body
from sfrl_secure.sequencer.sequencer import Sequencer
from sfrl_secure.services.audit_log.wiring import open_audit_log
from sfrl_secure.services.config import CONFIGS, AuditLogConfig, GatekeeperConfig, ServiceConfig, read_config
from sfrl_secure.services.federation.folder import FederationFolder, read_index
from sfrl_secure.services.federation.supervise import SERVICE_LOGS, Supervisor
from sfrl_secure.services.gatekeeper.issuing import Authorities, open_authorities
from sfrl_secure.storage.files import FolderLock
from sfrl_secure.storage.tls_pair import TlsPair, read_tls_pair, replace_tls_pair
from sfrl_secure.wire.content import Content
from sfrl_secure.wire.statements import encode_statement


@dataclass(frozen=True, slots=True)
class _Holder:
    """Somebody whose keys lie in the folder."""

    spiffe_id: SpiffeId
    certificate: Path
    tls_key: Path
    open_signing_key: Callable[[], SigningKey]

    def said(self) -> PeerCertificate:
        """What its certificate says."""
        return open_svid(read_tls_pair(self.certificate, self.tls_key).chain, self.spiffe_id.trust_domain)


def expired_services(folder: FederationFolder, clock: Clock) -> list[SpiffeId]:
    """Services whose certificates are over: they cannot be called, and call nobody.

    Raises:
        NotFoundError, MalformedError, DeniedError: it is not a federation's folder, or a file in it is not as it was.
    """
    now_us = clock.now_us()
    return [each.spiffe_id for each in _services(folder) if now_us >= each.said().not_after_us]


def reissue(
    folder: FederationFolder, clock: Clock, on_left_out: Callable[[SpiffeId, str], None] = lambda _who, _why: None
) -> list[SpiffeId]:
    """Give new identities to those in the folder who need one; give their names.

    Args:
        on_left_out: told of whoever needs one and cannot have it, with the reason.

    Raises:
        NotFoundError: this is no federation's folder, or none of its gatekeepers issues.
        MalformedError: the federation is running, or a file is of another form.
        DeniedError: the log refuses an identity, with the reason.
        UnavailableError, UncertainStateError: the log could not be opened.
    """
    _check_stopped(folder)
    gatekeeper, config = _issuer(folder)
    authorities = open_authorities(config)
    needy = [each for each in (*_services(folder), *_people(folder)) if _needs_one(each, clock.now_us())]
    if not needy:
        return []
    with _opened_log(folder, clock) as (sequencer, state):
        writer = _Writer(sequencer, state, gatekeeper, authorities, clock)
        refused = {each.spiffe_id: why for each in needy if (why := _why_not(each, state)) is not None}
        for who, why in refused.items():
            on_left_out(who, why)
        needy = [each for each in needy if each.spiffe_id not in refused]
        for each in needy:
            if each.spiffe_id.role == "participant":
                writer.renew_record(each.spiffe_id.name, _operators(folder))
            writer.issue(each)
    return [each.spiffe_id for each in needy]


def _check_stopped(folder: FederationFolder) -> None:
    read_index(folder)
    logs = folder.root / SERVICE_LOGS
    if not logs.is_dir():
        return
    try:
        FolderLock(logs).release()
    except MalformedError:
        raise MalformedError(
            "this federation is running already: stop the services first, which renew their own certificates while "
            "they run"
        ) from None


def _why_not(holder: _Holder, state: FederationState) -> str | None:
    """Why somebody gets no identity: revoked, removed, or under another key than governance names."""
    spiffe_id, key = holder.spiffe_id, holder.open_signing_key().public_key
    if spiffe_id.role == "participant":
        record = state.participant(spiffe_id.name)
        if record is None:
            return "the log has no record of this participant"
        if record.state != "active":
            return f"this participant is {record.state}"
        return None if record.key == key else "its record in force names another signing key"
    if spiffe_id.role == "operator":
        operators = {} if state.root is None else state.root.operators
        return None if operators.get(spiffe_id.name) == key else "root does not name this operator with this key"
    services = state.services()
    named = None if services is None else services.signatory(spiffe_id)
    return None if named is not None and named.key == key else "the services document does not name it with this key"


def _needs_one(holder: _Holder, now_us: int) -> bool:
    said = holder.said()
    # A participant can renew for as long as its identity is good; then it takes a new record.
    is_participant = holder.spiffe_id.role == "participant"
    return now_us >= (said.not_after_us if is_participant else renewal_due_us(said.not_before_us, said.not_after_us))


class _Writer:
    """States identities as the gatekeeper that issues, in the log's own process."""

    def __init__(
        self,
        sequencer: Sequencer[Content],
        state: FederationState,
        gatekeeper: _Holder,
        authorities: Authorities,
        clock: Clock,
    ) -> None:
        self._sequencer, self._state, self._clock = sequencer, state, clock
        self._gatekeeper, self._authorities = gatekeeper, authorities

    def issue(self, holder: _Holder) -> None:
        """Record an identity for a new key, and put it into its holder's files."""
        now_us, spiffe_id = self._clock.now_us(), holder.spiffe_id
        asked = ask_identity(spiffe_id, self._state.federation_id, holder.open_signing_key(), now_us)
        authority = self._authorities.of(spiffe_id)
        is_service = spiffe_id.role in SERVICE_ROLES
        chain = authority.issue_svid(
            spiffe_id,
            open_csr(asked.csr),
            not_before_us=now_us - SKEW_US,
            not_after_us=self._authorities.not_after_us(spiffe_id, now_us),
            dns_names=[service_dns_name(spiffe_id.role, spiffe_id.trust_domain)] if is_service else [],
        )
        said = open_svid(chain, spiffe_id.trust_domain)
        self._state_issued(issued_body(spiffe_id, said, asked.request, asked.identity))
        replace_tls_pair(holder.certificate, holder.tls_key, TlsPair(asked.tls_key, chain))

    def renew_record(self, name: str, operators: dict[str, SigningKey]) -> None:
        """Put the next version of a participant's record in force: what it says stays as it was."""
        record, root = self._state.participant(name), self._state.root
        if record is None or root is None:
            raise NotFoundError(f"the log has no record of participant {name}")
        signing = {each: key for each, key in operators.items() if root.operators.get(each) == key.public_key}
        document = build_participant(
            federation_id=self._state.federation_id,
            version=record.version + 1,
            previous=record.digest,
            expires_us=record.expires_us,
            name=name,
            key=record.key,
            possession=record.possession,
            clearance=record.clearance,
            groups=record.groups,
            state=record.state,
            reason=record.reason,
        )
        keys = [signing[each] for each in sorted(signing)][: root.thresholds.enrolment]
        envelope = sign_envelope(ParticipantRecord.payload_type, document, keys)
        self._sequencer.append(envelope, parse_participant(document))

    def _state_issued(self, body: IdentityIssued) -> None:
        key = self._gatekeeper.open_signing_key()
        with self._sequencer.history.lock:
            governance_head = self._state.governance_head
        statement = Statement(
            federation_id=self._state.federation_id,
            stream="identity",
            writer=self._gatekeeper.spiffe_id,
            key_id=key.public_key.key_id,
            reads_governance=governance_head,
            reads_segment=ZERO_DIGEST,
            valid_until_us=self._clock.now_us() + STATEMENT_LIFETIME_US,
            request_id=secrets.token_bytes(16),
            body=body,
        )
        envelope = sign_envelope(STATEMENT_TYPE, encode_statement(statement), [key])
        self._sequencer.append(envelope, statement)


@contextmanager
def _opened_log(folder: FederationFolder, clock: Clock) -> Iterator[tuple[Sequencer[Content], FederationState]]:
    """The log in this process, with its witness beside it, which tells it what it has signed before."""
    path = next(folder.service(role, name) for role, name in _named_services(folder) if role == "audit_log")
    failed: list[UncertainStateError] = []
    with Supervisor(folder).running("verifier"):
        # Whom should it ask for its own?
        config = read_config(path / "config.toml", AuditLogConfig).model_copy(update={"renew_address": None})
        log = open_audit_log(config, clock, threading.Event(), on_uncertain=failed.append)
        try:
            log.start()
            fold = log.sequencer.history.fold
            assert isinstance(fold, FederationFold), "open_audit_log makes no other"
            yield log.sequencer, fold.state
        finally:
            log.stop()
    if failed:
        raise failed[0]


def _issuer(folder: FederationFolder) -> tuple[_Holder, GatekeeperConfig]:
    for holder, config in _configured(folder):
        if isinstance(config, GatekeeperConfig) and config.issuing is not None:
            return holder, config
    raise NotFoundError("no gatekeeper of this folder has a table [issuing]: identities are issued elsewhere")


def _services(folder: FederationFolder) -> list[_Holder]:
    return [holder for holder, _ in _configured(folder)]


def _configured(folder: FederationFolder) -> Iterator[tuple[_Holder, ServiceConfig]]:
    for role, name in _named_services(folder):
        config = read_config(folder.service(role, name) / "config.toml", CONFIGS[role])
        signing = config.signing  # type: ignore[attr-defined]  # every kind has the table, the verifier's may be absent
        if signing is None:
            raise MalformedError(f"the configuration of {role} {name} has no table [signing]")
        spiffe_id = parse_spiffe_id(f"spiffe://{config.trust_domain}/service/{role}/{name}")
        yield _Holder(spiffe_id, config.tls.certificate, config.tls.key, signing.open), config


def _named_services(folder: FederationFolder) -> list[tuple[str, str]]:
    return [(each["role"], each["name"]) for each in read_index(folder)["services"]]


def _people(folder: FederationFolder) -> Iterator[_Holder]:
    """Operators, auditors and participants whose folders are here, each by its profile: newcomers enrol anywhere."""
    for part in ("operators", "auditors", "participants"):
        for path in sorted((folder.root / part).glob("*/profile.toml")):
            profile = _READERS[role_of_profile(path)](path)
            if profile.signing_key is None:
                continue  # an operator whose key is on another machine: it renews there
            yield _Holder(profile.spiffe_id, profile.certificate, profile.tls_key, profile.open_signing_key)


_READERS: dict[str, Callable[[Path], Profile | OverseerProfile]] = {
    "operator": read_operator_profile,
    "auditor": read_auditor_profile,
    "participant": read_profile,
}


def _operators(folder: FederationFolder) -> dict[str, SigningKey]:
    found = [each for each in _people(folder) if each.spiffe_id.role == "operator"]
    return {each.spiffe_id.name: each.open_signing_key() for each in found}
