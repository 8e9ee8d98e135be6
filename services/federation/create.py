"""Creating a federation: keys, certificates, documents, and the log with its first entries.

Everything is made on one machine, so that it can be tried; in the field each key is made where it stays. What is
written where: `configurations` for the services, `profiles` for people.

Runs in: cli, demo.
Trusts: whoever starts it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, envelope_to_json, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.statements import STATEMENT_TYPE, IdentityRequest, Statement
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.rounds.fold import Content, FederationFold
from sfrl_secure.rpc.identity_requests import issued_body, sign_identity_request
from sfrl_secure.sequencer.bootstrap import NewLog
from sfrl_secure.sequencer.history import Codec
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.sequencer import BATCH_ENTRIES_MAX
from sfrl_secure.services.federation import documents
from sfrl_secure.services.federation.configurations import write_services, write_trust_policy
from sfrl_secure.services.federation.folder import Addresses, FederationFolder, choose_addresses, write_index
from sfrl_secure.services.federation.founding import Founding
from sfrl_secure.services.federation.identities import IssuingAuthorities, TlsIdentity
from sfrl_secure.services.federation.masks import PlannedMask, open_masks
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.services.federation.plan_checks import check_plan
from sfrl_secure.services.federation.profiles import write_people
from sfrl_secure.storage.files import make_folder, write_new
from sfrl_secure.storage.log_folder import FolderLogStore
from sfrl_secure.storage.objects import open_objects
from sfrl_secure.translog.note import ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE
from sfrl_secure.translog.witness_keys import WitnessKey
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_entry, parse_entry
from sfrl_secure.wire.statements import encode_statement

_YEAR_US = 366 * 24 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class Federation:
    """A federation that was just made.

    Attributes:
        log_size: entries to begin with.
    """

    folder: FederationFolder
    origin: str
    federation_id: Digest
    addresses: Addresses
    log_size: int


def create_federation(
    root: Path,
    plan: FederationPlan,
    clock: Clock,
    initial_models: Mapping[str, ModelSnapshot] | None = None,
    masks: Mapping[str, bytes] | None = None,
) -> Federation:
    """Make a federation in a folder that is new or empty.

    Args:
        initial_models: by segment; zeros where there is none.
        masks: by segment, as bytes, of each that names one.

    Raises:
        MalformedError: the folder is not empty, or the plan cannot be: says what.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise MalformedError(f"the folder {root} is not empty: a federation is made in a new one")
    check_plan(plan)
    opened = open_masks(plan, masks or {})
    old_mask = os.umask(0o077)
    try:
        return _Creation(root, plan, clock, dict(initial_models or {}), opened).run()
    finally:
        os.umask(old_mask)


class _Creation:
    def __init__(
        self,
        root: Path,
        plan: FederationPlan,
        clock: Clock,
        initial_models: dict[str, ModelSnapshot],
        masks: Mapping[str, PlannedMask],
    ) -> None:
        self._folder = FederationFolder(root)
        self._plan = plan
        self._clock = clock
        self._models = initial_models
        self._masks = masks
        now_us = clock.now_us()
        self._operators = documents.Operators(
            {name: SigningKey.generate(plan.operator_suite) for name in plan.operators},
            plan.threshold,
            now_us + plan.years * _YEAR_US,
        )
        self._log_keys = LogKeys.generate()
        self._authorities = IssuingAuthorities(
            plan.trust_domain,
            now_us,
            years=plan.years,
            certificate_seconds=plan.certificate_seconds,
            people_certificate_seconds=plan.people_certificate_seconds,
        )
        self._gatekeepers = [self._id(f"service/gatekeeper/{name}") for name in plan.gatekeepers]
        self._services = [
            *self._gatekeepers,
            self._id(f"service/aggregator/{plan.aggregator}"),
            self._id(f"service/audit_log/{plan.audit_log}"),
            self._id(f"service/verifier/{plan.verifier}"),
        ]
        self._auditor = self._id(f"auditor/{plan.auditor}")
        # Whoever is named anywhere signs with one key: statements, documents, updates, and requests for TLS identities.
        self._keys: dict[SpiffeId, SigningKey] = {
            **{name: SigningKey.generate("ed25519") for name in self._services},
            **{self._id(f"operator/{name}"): key for name, key in self._operators.keys.items()},
            self._auditor: SigningKey.generate("ed25519"),
            **{self._id(f"participant/{each.name}"): SigningKey.generate(each.suite) for each in plan.participants},
        }
        self._tls: dict[SpiffeId, TlsIdentity] = {}

    def run(self) -> Federation:
        plan, folder = self._plan, self._folder
        root = documents.root_envelope(plan, self._operators)
        federation_id = documents.federation_id_of(root)
        origin = origin_of(plan.log_host, federation_id)
        addresses = choose_addresses(plan)
        make_folder(folder.root)
        witness_keys = [WitnessKey.generate(kind) for kind in (ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE)]
        write_trust_policy(folder, plan, origin, addresses, self._log_keys, witness_keys)
        envelopes = self._documents(root, federation_id, origin)
        log_size = self._write_log(envelopes, federation_id, origin)
        self._write_documents(envelopes)
        founding = Founding(
            folder=folder, plan=plan, origin=origin, federation_id=federation_id, addresses=addresses,
            keys=self._keys, tls=self._tls, authorities=self._authorities,
        )  # fmt: skip
        founding.write_authorities()
        write_services(founding, self._log_keys, witness_keys)
        write_people(founding)
        write_index(folder, plan, origin, federation_id, addresses)
        return Federation(folder, origin, federation_id, addresses, log_size)

    def _id(self, path: str) -> SpiffeId:
        return documents.spiffe_id_of(self._plan, path)

    # The log

    def _documents(self, root: Envelope, federation_id: Digest, origin: str) -> list[Envelope]:
        operators, plan = self._operators, self._plan
        objects = open_objects(plan.objects_url or self._folder.objects_dir)
        found = [
            documents.genesis_envelope(root, self._log_keys.vkeys(origin), operators),
            documents.services_envelope(
                federation_id,
                plan,
                {name: self._keys[name].public_key for name in self._services},
                {self._auditor: self._keys[self._auditor].public_key},
                operators,
            ),
            documents.rules_envelope(federation_id, operators),
        ]
        for segment in plan.segments:
            zeros = ModelSnapshot(
                segment.manifest, segment.grid_exponent, np.zeros(segment.manifest.coordinates, dtype=np.int64)
            )
            initial = objects.put(self._models.get(segment.name, zeros).to_bytes())
            mask = self._masks.get(segment.name)
            if mask is not None:
                objects.put(mask.raw)
            terms = None if mask is None else mask.terms
            found.append(documents.terms_envelope(federation_id, segment, initial, operators, terms))
        for each in plan.participants:
            key = self._keys[self._id(f"participant/{each.name}")]
            found.append(documents.participant_envelope(federation_id, each, key, operators))
        return found

    def _write_log(self, envelopes: list[Envelope], federation_id: Digest, origin: str) -> int:
        fold = FederationFold(origin, self._log_keys.vkeys(origin))
        codec: Codec[Content] = Codec(encode_entry, parse_entry, parse_content)
        log = NewLog(fold, codec, self._clock)
        head = ZERO_DIGEST
        for envelope in envelopes:
            head = log.append(envelope)
        for name in self._keys:
            self._tls[name] = self._authorities.issue(name)
            log.append(self._identity(name, federation_id, head))
        entries = log.entries()
        batches = [entries[at:at + BATCH_ENTRIES_MAX] for at in range(0, len(entries), BATCH_ENTRIES_MAX)]
        if self._plan.log_url is None:
            FolderLogStore.create(self._folder.journal_dir, batches)
        else:
            # Loaded by whoever needs it: most federations have no bucket.
            from sfrl_secure.storage.log_bucket import BucketLogStore, open_bucket

            BucketLogStore.create(*open_bucket(self._plan.log_url), batches)
        return len(entries)

    def _identity(self, name: SpiffeId, federation_id: Digest, governance_head: Digest) -> Envelope:
        """The first gatekeeper issues the identities of the beginning; each is asked for by whom it names."""
        key, peer = self._keys[name], self._tls[name].peer
        asked = IdentityRequest(
            federation_id, name, key.public_key.key_id, peer.spki_sha256, self._clock.now_us()
        )
        writer = self._gatekeepers[0]
        statement = Statement(
            federation_id=federation_id,
            stream="identity",
            writer=writer,
            key_id=self._keys[writer].public_key.key_id,
            reads_governance=governance_head,
            reads_segment=ZERO_DIGEST,
            valid_until_us=self._clock.now_us() + 60_000_000,
            request_id=secrets.token_bytes(16),
            body=issued_body(name, peer, sign_identity_request(asked, key), asked),
        )
        return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [self._keys[writer]])

    def _write_documents(self, envelopes: list[Envelope]) -> None:
        folder = self._folder.root / "documents"
        make_folder(folder)
        for number, envelope in enumerate(envelopes):
            kind = envelope.payload_type.removeprefix("application/vnd.sfrl.").partition(".")[0]
            write_new(folder / f"{number:03d}-{kind}.json", envelope_to_json(envelope))
