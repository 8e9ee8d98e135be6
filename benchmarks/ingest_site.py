"""A federation in one process for the ingest benchmark: a durable log, its fold, and a gatekeeper that follows it.

The sequencer, its store on disk, the fold and the gatekeeper's parts are those that the services run. What is left out
is what lies between them: sockets, TLS, and the witnesses, who are not waited for when an update is admitted.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import ED25519, SigningKey
from sfrl_secure.errors import SfrlError, UncertainStateError
from sfrl_secure.governance.build import build_genesis, build_root, build_rules, build_services, build_terms
from sfrl_secure.governance.documents import (
    GenesisDocument,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
    Signatory,
    Thresholds,
)
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.root import parse_root
from sfrl_secure.governance.statements import STATEMENT_TYPE, Body, RoundOpened, Statement
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, UpdateLimits
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_spiffe_id, sha256
from sfrl_secure.limits import STATEMENT_LIFETIME_US
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.sequencer.bootstrap import Folds, NewLog, open_log
from sfrl_secure.sequencer.history import Codec
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.sequencer import BATCH_ENTRIES_MAX, Sequencer, SequencerSettings, Submission
from sfrl_secure.sequencer.signing import CheckpointSigner
from sfrl_secure.services.gatekeeper.admit import Admitter, ByteBudget
from sfrl_secure.services.gatekeeper.decoders import Decoders
from sfrl_secure.services.gatekeeper.refuse import Refuser
from sfrl_secure.services.gatekeeper.upload_bounds import UploadBounds, forget_in
from sfrl_secure.services.gatekeeper.uploads import UploadIntake
from sfrl_secure.services.masks import Masks
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import StatementWriter
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.storage.log_folder import FolderLogStore
from sfrl_secure.storage.objects import ObjectStore
from sfrl_secure.storage.uploads import open_uploads
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import encode_entry, parse_entry
from sfrl_secure.wire.statements import encode_statement

TRUST_DOMAIN = "ingest.example"
SEGMENT = "rocks"
GRID = 16
MANIFEST = ModelManifest((TensorSpec("encoder", (4_000, 500), "int32"), TensorSpec("decoder", (500, 4_000), "int32")))
COHORT_MAX = 500
FOREVER_US = 2**62

GATEKEEPER = parse_spiffe_id(f"spiffe://{TRUST_DOMAIN}/service/gatekeeper/g1")
AGGREGATOR = parse_spiffe_id(f"spiffe://{TRUST_DOMAIN}/service/aggregator/a1")

_CODEC: Codec[Content] = Codec(encode_entry, parse_entry, parse_content)
_BUDGET_BYTES = 2**30
_UPLOADS_MAX = 16


class FollowedLog:
    """The sequencer, and a gatekeeper's view that has read an entry before its writer is answered."""

    def __init__(self, sequencer: Sequencer[Content], view: FederationView) -> None:
        self._sequencer = sequencer
        self._view = view
        self._read = 0
        self._lock = threading.Lock()

    def append(self, envelope: Envelope) -> AppendedEntry:
        """Append, and let the view read on."""
        appended = self._sequencer.append(envelope, parse_content(envelope))
        self.follow()
        return AppendedEntry(LoggedEntry(appended.index, appended.raw, appended.path), appended.checkpoint)

    def append_all(self, envelopes: Sequence[Envelope]) -> None:
        """Append many, a batch at a time."""
        for start in range(0, len(envelopes), BATCH_ENTRIES_MAX):
            group = [Submission(each, parse_content(each)) for each in envelopes[start : start + BATCH_ENTRIES_MAX]]
            for result in self._sequencer.submit(group).wait(120.0):
                if isinstance(result, SfrlError):
                    raise result
        self.follow()

    def follow(self) -> None:
        """Let the view read what is durable."""
        with self._lock:
            for index in range(self._read, self._sequencer.history.size):
                raw = self._sequencer.history.entry(index)
                entry = parse_entry(raw)
                self._view.on_entry(index, leaf_hash(raw), entry, parse_content(entry.envelope))
            self._read = self._sequencer.history.size


@dataclass(slots=True)
class IngestSite:
    """The running parts.

    Attributes:
        state: what the gatekeeper has read.
    """

    federation_id: Digest
    log: FollowedLog
    view: FederationView
    state: FederationState
    writer: StatementWriter
    admitter: Admitter
    intake: UploadIntake
    clock: SystemClock
    operators: dict[str, SigningKey]
    services: dict[str, SigningKey]

    def sign_document(self, payload_type: str, raw: bytes) -> Envelope:
        """Sign as operators."""
        return sign_envelope(payload_type, raw, list(self.operators.values())[:2])

    def publish_rules(self, cedar: str) -> None:
        """Put these rules in force."""
        before = self.state.placed["rules", ""].document
        raw = build_rules(
            federation_id=self.federation_id,
            version=before.version + 1,
            previous=before.digest,
            expires_us=FOREVER_US,
            cedar=cedar,
        )
        self.log.append(self.sign_document(RulesDocument.payload_type, raw))

    def state_as(self, service: str, stream: str, body: Body) -> Envelope:
        """A service's statement on the newest heads."""
        writer = {"gatekeeper": GATEKEEPER, "aggregator": AGGREGATOR}[service]
        segment = self.state.segments.get(stream.removeprefix("segment/"))
        statement = Statement(
            federation_id=self.federation_id,
            stream=stream,
            writer=writer,
            key_id=self.services[service].public_key.key_id,
            reads_governance=self.state.governance_head,
            reads_segment=ZERO_DIGEST if segment is None else segment.control_head,
            valid_until_us=self.clock.now_us() + STATEMENT_LIFETIME_US,
            request_id=sha256(repr(body).encode())[:16],
            body=body,
        )
        return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [self.services[service]])

    def open_round(self) -> None:
        """Open the segment's round."""
        segment = self.state.segments[SEGMENT]
        body = RoundOpened(segment.last_round + 1, segment.model, segment.terms.digest)
        self.log.append(self.state_as("aggregator", f"segment/{SEGMENT}", body))


@contextmanager
def running_ingest(folder: Path) -> Iterator[IngestSite]:
    """Make a federation in a new folder, and run it until the end of the block."""
    clock = SystemClock()
    operators = {name: SigningKey.generate(ED25519) for name in ("ann", "bob", "eve")}
    services = {role: SigningKey.generate(ED25519) for role in ("gatekeeper", "aggregator")}
    root_raw = build_root(
        expires_us=FOREVER_US,
        trust_domain=TRUST_DOMAIN,
        log_host="log.ingest.example",
        operators={name: key.public_key for name, key in operators.items()},
        thresholds=Thresholds(root=2, governance=2, enrolment=2, revocation=1),
    )
    root = parse_root(root_raw)
    origin, keys = origin_of(root.log_host, root.digest), LogKeys.generate()
    vkeys = keys.vkeys(origin)

    def sign(payload_type: str, raw: bytes) -> Envelope:
        return sign_envelope(payload_type, raw, list(operators.values())[:2])

    new = NewLog(FederationFold(origin, vkeys), _CODEC, clock)
    for payload_type, raw in _documents(root, sign(RootDocument.payload_type, root_raw), vkeys, services):
        new.append(sign(payload_type, raw))
    FolderLogStore.create(folder / "journal", [new.entries()])
    with ExitStack() as opening:
        store = FolderLogStore.open(folder / "journal", folder / "log")
        opening.callback(store.close)
        index = SqliteStatements(folder / "statements.sqlite", log_id=sha256(origin.encode()))
        opening.callback(index.close)
        folds = Folds(lambda: FederationFold(origin, vkeys, index), lambda raw: FederationFold(origin, vkeys, index))
        history = open_log(store, folds, _CODEC, clock, index, None).history
        failures: list[UncertainStateError] = []
        # No entry waits for others: what is measured is one admission, not how many share a batch.
        settings = SequencerSettings(batch_delay_seconds=0.0)
        sequencer = Sequencer(history, CheckpointSigner(origin, [keys], clock), settings, on_uncertain=failures.append)
        sequencer.start()
        opening.callback(sequencer.stop)
        fold = FederationFold(origin, vkeys)
        view = FederationView(fold)
        log = FollowedLog(sequencer, view)
        log.follow()
        writer = StatementWriter(log, view, services["gatekeeper"], GATEKEEPER, clock)
        refuser = Refuser(writer, RefusalCounter(clock))
        objects = ObjectStore(folder / "objects")
        admitter = Admitter(view, writer, refuser, Masks(objects), clock, ByteBudget(_BUDGET_BYTES))
        uploads = open_uploads(folder / "uploads")
        bounds = UploadBounds(_UPLOADS_MAX, _BUDGET_BYTES, forget_in(uploads))
        intake = UploadIntake(uploads, objects, bounds, Decoders())
        intake.start()
        opening.callback(intake.stop)
        yield IngestSite(root.digest, log, view, fold.state, writer, admitter, intake, clock, operators, services)


def _documents(
    root: RootDocument, root_envelope: Envelope, vkeys: tuple[str, str], services: dict[str, SigningKey]
) -> list[tuple[str, bytes]]:
    named = {"gatekeeper": GATEKEEPER, "aggregator": AGGREGATOR}
    signatories = [Signatory(spiffe_id, services[role].public_key) for role, spiffe_id in named.items()]
    terms = build_terms(
        federation_id=root.digest,
        expires_us=FOREVER_US,
        segment=SEGMENT,
        sensitivity=3,
        groups=["rovers"],
        model=ModelTerms(MANIFEST, GRID, sha256(b"the model before round 1")),
        limits=UpdateLimits(
            payload_bytes_max=2**20,
            nonzeros_max=MANIFEST.coordinates // 2,
            norm_max=2**60,
            magnitude_max=2**30,
            weight_max=2**22 // COHORT_MAX,
        ),
        round_terms=RoundTerms(duration_us=10**14, cohort_min=1, cohort_max=COHORT_MAX, rounds_max=10),
        evidence_days=30,
        retention_days=90,
    )
    common = {"federation_id": root.digest, "expires_us": FOREVER_US}
    return [
        (GenesisDocument.payload_type, build_genesis(root_envelope=root_envelope, log_keys=vkeys)),
        (ServicesDocument.payload_type, build_services(**common, services=signatories)),
        (RulesDocument.payload_type, build_rules(**common)),
        (SegmentTerms.payload_type, terms),
    ]
