"""The audit log, put together.

A start goes in this order, and anything that does not fit ends it: own the journal's folder; replay the journal;
compare it with the last signed note and with what is published; ask the witnesses; only then sign, order, witness,
serve.

Runs in: audit_log.
Trusts: configuration, trust policy and keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError, UncertainStateError
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rpc.identity import TransportPolicy
from sfrl_secure.rpc.server import RpcServer, ServerSettings, ServerTls
from sfrl_secure.sequencer.bootstrap import open_log
from sfrl_secure.sequencer.history import Codec, History
from sfrl_secure.sequencer.log_keys import parse_log_keys
from sfrl_secure.sequencer.publication import Publication
from sfrl_secure.sequencer.sequencer import Sequencer, SequencerSettings
from sfrl_secure.sequencer.signing import CheckpointSigner, SignedHead
from sfrl_secure.sequencer.start_check import check_not_behind
from sfrl_secure.sequencer.witness_client import HttpWitness
from sfrl_secure.sequencer.witnessing import Witnessing, WitnessingSettings
from sfrl_secure.services.audit_log.identities import LogIdentities
from sfrl_secure.services.audit_log.servicer import AuditLogServicer
from sfrl_secure.services.audit_log.statements import OwnStatements
from sfrl_secure.services.config import AuditLogConfig
from sfrl_secure.services.refusals import RefusalWriter
from sfrl_secure.storage.files import FolderLock, make_folder
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import encode_entry, parse_entry

_log = structlog.get_logger()

CODEC: Codec[Content] = Codec(encode_entry, parse_entry, parse_content)
"""How this federation's entries are written."""


@dataclass(slots=True)
class AuditLog:
    """The running parts; `start`, then `stop` once."""

    resources: ExitStack
    sequencer: Sequencer[Content]
    witnessing: Witnessing
    refusals: RefusalWriter
    servicer: AuditLogServicer
    server: RpcServer
    grace_seconds: float
    has_started: bool = False

    def start(self) -> int:
        """Sign, order, witness, serve; give the port."""
        self.sequencer.start()
        self.has_started = True
        self.witnessing.start()
        self.refusals.start()
        self.server.start()
        return self.server.port

    def stop(self) -> None:
        """End what was started, last begun first ended; nothing that was acknowledged is lost."""
        if self.has_started:
            self.servicer.close()
            self.server.stop(self.grace_seconds)
            self.refusals.stop()
            self.witnessing.stop()
            self.sequencer.stop()
        self.resources.close()


def open_audit_log(
    config: AuditLogConfig,
    clock: Clock,
    stopping: threading.Event,
    *,
    on_uncertain: Callable[[UncertainStateError], None],
) -> AuditLog:
    """Open the log of a configuration, up to the point before anything is signed.

    Args:
        stopping: ends the wait for the witnesses.
        on_uncertain: stops the process.

    Raises:
        UncertainStateError: another process owns the log, it is damaged, or a witness has seen more of it.
        UnavailableError: stopped while waiting, or the port cannot be bound.
        NotFoundError, MalformedError, DeniedError: files of the configuration.
    """
    policy = config.open_trust_policy()
    keys = parse_log_keys(read_secret(config.log_key))
    signer = CheckpointSigner(keys.note_signer(config.origin), keys.cosigner(config.origin), clock)
    check_keys(policy, signer)
    witnesses = open_witnesses(config, policy)
    signing_key = config.signing.open()
    tls = ServerTls(config.read_tls_key(), config.read_certificate(), config.read_client_roots())
    with ExitStack() as opening:
        make_folder(config.journal_dir)
        opening.enter_context(FolderLock(config.journal_dir))
        fold = FederationFold(config.origin, signer.vkeys)
        history, journal = open_log(config.journal_dir, fold, CODEC, clock)
        opening.callback(journal.close)
        _log.info("journal_replayed", log_size=history.size, bytes=journal.cut_bytes, count=history.void_entries)

        signed_head = SignedHead(config.journal_dir)
        signed_head.check(config.origin, policy, history.tree)
        publication = Publication(config.log_dir, history.tree, history.entry)
        published = publication.open(config.origin, policy)
        check_not_behind(witnesses, config.origin, policy, history.tree, stopping)

        sequencer = _sequencer(config, history, signer, on_uncertain)
        if published is not None and published.quorum_met:
            sequencer.set_witnessed(published.checkpoint.size, published.note)
        witnessing = Witnessing(
            sequencer, publication, signed_head, witnesses, policy, config.origin, WitnessingSettings(),
            on_uncertain=on_uncertain,
        )
        counter = RefusalCounter(clock)
        writer = parse_spiffe_id(f"spiffe://{config.trust_domain}/service/audit_log/{config.name}")
        own = OwnStatements(sequencer, fold.state, signing_key, writer, clock)
        servicer = AuditLogServicer(sequencer, counter, followers_max=config.followers_max)
        server = RpcServer(
            ServerSettings(config.listen, config.threads),
            tls=lambda: tls,
            methods=servicer.methods(),
            registry=LogIdentities(fold.state, history.lock),
            policy=TransportPolicy(config.trust_domain),
            clock=clock,
            on_refused=counter.count,
            on_uncertain=on_uncertain,
        )
        return AuditLog(
            opening.pop_all(),
            sequencer,
            witnessing,
            RefusalWriter(counter, own.write_refusals, interval_seconds=config.refusals_seconds),
            servicer,
            server,
            config.grace_seconds,
        )


def _sequencer(
    config: AuditLogConfig,
    history: History[Content],
    signer: CheckpointSigner,
    on_uncertain: Callable[[UncertainStateError], None],
) -> Sequencer[Content]:
    batches = config.batches
    settings = SequencerSettings(batches.entries_max, batches.delay_ms / 1000, batches.queue_max)
    return Sequencer(history, signer, settings, on_uncertain=on_uncertain)


def check_keys(policy: TrustPolicy, signer: CheckpointSigner) -> None:
    """Check that the trust policy names exactly our keys for our origin.

    Raises:
        MalformedError: it does not: nobody would believe what we sign.
    """
    log = policy.log(signer.origin)
    if log is None or {key.vkey for key in log.keys} != set(signer.vkeys):
        raise MalformedError("the trust policy does not name exactly the keys in the log's key file")


def open_witnesses(config: AuditLogConfig, policy: TrustPolicy) -> list[HttpWitness]:
    """Make the clients of the configured witnesses.

    Raises:
        MalformedError: a URL, a name that is not the policy's, one name twice, or together they are no quorum.
    """
    names = [witness.name for witness in config.witnesses]
    if len(set(names)) != len(names) or not set(names) <= {witness.name for witness in policy.witnesses}:
        raise MalformedError("each configured witness is one of the trust policy's, and stands there once")
    if not policy.is_quorum(names):
        raise MalformedError("the configured witnesses are not the quorum of the trust policy")
    return [HttpWitness(each.name, each.submission_url, each.monitoring_url) for each in config.witnesses]
