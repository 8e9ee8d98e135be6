"""The audit log, put together.

A start goes in this order, and anything that does not fit ends it: own the log's store; take in what is new since the
fold's snapshot; compare the tree with the last signed note and with what is published; ask the witnesses; only then
sign, order, witness, serve.

Runs in: audit_log.
Trusts: configuration, trust policy and keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.ids import parse_spiffe_id, sha256
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.snapshot import decode_fold, freeze_fold
from sfrl_secure.rpc.identity import TransportPolicy
from sfrl_secure.rpc.server import RpcServer, ServerSettings
from sfrl_secure.sequencer.bootstrap import Folds, open_log
from sfrl_secure.sequencer.history import Codec
from sfrl_secure.sequencer.publication import Publication
from sfrl_secure.sequencer.sequencer import Sequencer, SequencerSettings
from sfrl_secure.sequencer.signing import SignedHead
from sfrl_secure.sequencer.snapshot import FoldSnapshot, read_snapshot
from sfrl_secure.sequencer.start_check import check_not_behind
from sfrl_secure.sequencer.upkeep import Upkeep, UpkeepSettings
from sfrl_secure.sequencer.witnessing import Witnessing, WitnessingSettings
from sfrl_secure.services.audit_log.anchors import AnchorWriter
from sfrl_secure.services.audit_log.appending import Appending
from sfrl_secure.services.audit_log.http import log_app
from sfrl_secure.services.audit_log.identities import LogIdentities
from sfrl_secure.services.audit_log.intake import Intake
from sfrl_secure.services.audit_log.servicer import AuditLogServicer
from sfrl_secure.services.audit_log.signature_checks import SignatureChecks
from sfrl_secure.services.audit_log.statements import OwnStatements
from sfrl_secure.services.audit_log.trust import open_trust
from sfrl_secure.services.config import AuditLogConfig
from sfrl_secure.services.http import HttpServer
from sfrl_secure.services.refusals import RefusalWriter
from sfrl_secure.services.renewal import Renewal, open_renewal
from sfrl_secure.services.tls_files import ServiceTls
from sfrl_secure.storage.files import FolderLock, make_folder
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.storage.log_folder import FolderLogStore
from sfrl_secure.storage.log_store import LogStore
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import encode_entry, parse_entry

_log = structlog.get_logger()

INDEX_NAME = "statements.sqlite"

CODEC: Codec[Content] = Codec(encode_entry, parse_entry, parse_content)
"""How this federation's entries are written."""


@dataclass(slots=True)
class AuditLog:
    """The running parts; `start`, then `stop` once."""

    resources: ExitStack
    sequencer: Sequencer[Content]
    upkeep: Upkeep
    anchors: AnchorWriter
    witnessing: Witnessing
    refusals: RefusalWriter
    servicer: AuditLogServicer
    server: RpcServer
    public: HttpServer | None
    renewal: Renewal | None
    grace_seconds: float
    has_started: bool = False

    def start(self) -> int:
        """Sign, order, witness, serve; give the port."""
        self.sequencer.start()
        self.has_started = True
        self.upkeep.start()
        # Before the witnessing: it chooses what was published before this start.
        self.anchors.start()
        self.witnessing.start()
        self.refusals.start()
        self.server.start()
        if self.public is not None:
            self.public.start()
        if self.renewal is not None:
            self.renewal.start()
        return self.server.port

    def stop(self) -> None:
        """End what was started, last begun first ended; nothing that was acknowledged is lost."""
        if self.has_started:
            if self.renewal is not None:
                self.renewal.stop()
            self.servicer.close()
            self.server.stop(self.grace_seconds)
            self.refusals.stop()
            self.anchors.stop()
            self.witnessing.stop()
            self.sequencer.stop()
            self.upkeep.stop()
        self.resources.close()


def open_audit_log(
    config: AuditLogConfig,
    clock: Clock,
    stopping: threading.Event,
    *,
    on_uncertain: Callable[[UncertainStateError], None],
    cpus: Collection[int] = (),
) -> AuditLog:
    """Open the log of a configuration, up to the point before anything is signed.

    Args:
        cpus: where processes of their own verify signatures; without any, the log's threads do.
        stopping: ends the wait for the witnesses.
        on_uncertain: stops the process.

    Raises:
        UncertainStateError: another process owns the log, it is damaged, or a witness has seen more of it.
        UnavailableError: stopped while waiting, or the port cannot be bound.
        NotFoundError, MalformedError, DeniedError: files of the configuration.
    """
    trust = open_trust(config, clock)
    policy, signer = trust.policy, trust.signer
    signing_key = config.signing.open()
    tls = ServiceTls(config)
    with ExitStack() as opening:
        store = _open_store(config, opening)
        index = SqliteStatements(config.journal_dir / INDEX_NAME, log_id=sha256(config.origin.encode()))
        opening.callback(index.close)
        folds = _FederationFolds(config.origin, trust.genesis_vkeys, index)
        opened = open_log(store, folds.folds(), CODEC, clock, index, _read_snapshot(config))
        history, fold = opened.history, folds.latest
        _log.info(
            "log_opened", log_size=history.size, bytes=store.journal.cut_bytes, count=history.void_entries
        )

        signed_head = SignedHead(store.signed)
        signed_head.check(config.origin, policy, history.tree)
        publication = Publication(
            store.files, history.tree, history.entry, clock, settled_size=opened.settled_size
        )
        published = publication.open(config.origin, policy)
        check_not_behind(trust.witnesses, config.origin, policy, history.tree, stopping)

        def forget_published() -> None:
            history.tree.forget(publication.full_size, opened.nodes.node)

        checks = SignatureChecks(cpus)
        opening.callback(checks.close)
        intake = Intake(fold.state, checks)
        batches = config.batches
        sequencer = Sequencer(
            history,
            signer,
            SequencerSettings(batches.entries_max, batches.delay_ms / 1000, batches.queue_max),
            on_uncertain=on_uncertain,
            verify=intake.verify,
            after_batch=forget_published,
        )
        # Under retired keys it is no checkpoint to act on; the first one of this run is.
        if published is not None and published.quorum_met and published.is_current:
            sequencer.set_witnessed(published.checkpoint.size, published.note)
        witnessing = Witnessing(
            sequencer, publication, signed_head, trust.witnesses, policy, config.origin, WitnessingSettings(),
            on_uncertain=on_uncertain,
        )
        upkeep = Upkeep(
            sequencer, publication, store.journal, index, config.journal_dir, folds.freeze, UpkeepSettings(),
            on_uncertain=on_uncertain,
        )
        counter = RefusalCounter(clock)
        writer = parse_spiffe_id(f"spiffe://{config.trust_domain}/service/audit_log/{config.name}")
        own = OwnStatements(sequencer, fold.state, signing_key, writer, clock)
        anchors = AnchorWriter(
            sequencer, fold.state, policy, own.write, interval_seconds=config.anchor_seconds, published=published
        )
        appending = Appending(sequencer, intake, counter)
        servicer = AuditLogServicer(sequencer, appending, store.files, followers_max=config.followers_max)
        server = RpcServer(
            ServerSettings(config.listen, config.threads),
            tls=tls.server,
            methods=servicer.methods(),
            registry=LogIdentities(fold.state),
            policy=TransportPolicy(config.trust_domain),
            clock=clock,
            on_refused=counter.count,
            on_uncertain=on_uncertain,
        )
        public: HttpServer | None = None
        if config.public_listen is not None:
            public = HttpServer(
                log_app(store.files), config.public_listen, name="public log", grace_seconds=config.grace_seconds
            )
            opening.callback(public.stop)
        return AuditLog(
            opening.pop_all(),
            sequencer,
            upkeep,
            anchors,
            witnessing,
            RefusalWriter(counter, own.write, interval_seconds=config.refusals_seconds),
            servicer,
            server,
            public,
            open_renewal(config, tls, signing_key, policy, clock),
            config.grace_seconds,
        )


def _open_store(config: AuditLogConfig, opening: ExitStack) -> LogStore:
    """Open the log where it is kept; it is let go when `opening` ends."""
    store: LogStore
    if config.log_url is None:
        store = FolderLogStore.open(config.journal_dir, config.log_dir)
    else:
        # Loaded by whoever needs it: a log in a folder has no part of it in memory.
        from sfrl_secure.storage.log_bucket import BucketLogStore, open_bucket

        # The folder holds what can be made again, and is one process's all the same.
        make_folder(config.journal_dir)
        opening.enter_context(FolderLock(config.journal_dir))
        store = BucketLogStore.open(*open_bucket(config.log_url))
    opening.callback(store.close)
    return store


def _read_snapshot(config: AuditLogConfig) -> FoldSnapshot | None:
    try:
        return read_snapshot(config.journal_dir)
    except NotFoundError:
        return None
    except MalformedError:
        _log.warning("snapshot_discarded")
        return None


class _FederationFolds:
    """Makes the log's fold, anew or from a snapshot.

    Attributes:
        latest: the one that was made last, which is the log's.
    """

    def __init__(self, origin: str, log_vkeys: tuple[str, str], statements: SqliteStatements) -> None:
        self._origin, self._log_vkeys, self._statements = origin, log_vkeys, statements
        self.latest = self._begin()

    def folds(self) -> Folds[Content]:
        """For `open_log`."""
        return Folds(self._begin, self._restore)

    def freeze(self) -> Callable[[], bytes]:
        """Take the state as it is; encode it later."""
        return freeze_fold(self.latest)

    def _begin(self) -> FederationFold:
        self.latest = FederationFold(self._origin, self._log_vkeys, self._statements)
        return self.latest

    def _restore(self, raw: bytes) -> FederationFold:
        self.latest = decode_fold(raw, self._origin, self._log_vkeys, self._statements)
        return self.latest
