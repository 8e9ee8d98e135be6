"""One log, read by two programs: the services' fold and the verifier's replay, compared entry by entry.

What each of them derives is compared after every entry: heads, documents, keys, doors, rounds, lineage, quota, and what
each payload decides. Payloads are decided by the aggregator's own cohort, and models are made by it, ahead of time or
late: the verifier must find each of them to be the one that the log asks for. What only one of them keeps is not
compared: models' integers, other findings.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.governance.statements import ModelPublished, Statement
from sfrl_secure.ids import Digest
from sfrl_secure.replay import enrolment
from sfrl_secure.replay.enrolment import signing_key_of
from sfrl_secure.replay.fold import Replay
from sfrl_secure.replay.segments import Round, Segment, Step, Verdict
from sfrl_secure.rounds import identities
from sfrl_secure.rounds.fold import Content, FederationFold
from sfrl_secure.rounds.quota import used
from sfrl_secure.rounds.state import LineageStep, RoundState, SegmentState
from sfrl_secure.services.aggregator.results import Results
from sfrl_secure.storage.object_reader import HashedObjects, ObjectReader
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from ..unit.replay.builder import DAY, NEVER, SECOND, SEGMENT, MemoryObjects, RoundNow, Writer

MASK = (0, 1, 2, 5, 13, 16)
RELAYS = "relays"
NEXT = {"score": "contribution", "regrow": 3, "protected": []}
MOMENTUM = {"name": "momentum/v1", "decay": 2**15, "rate": 2**16}
RESULTS = frozenset({"aggregate", "model", "server_state", "next_mask", "clusters"})


def open_terms(log: Writer) -> dict[str, Any]:
    """Terms that allow every form of payload, and relays, with a mask that changes and a server step."""
    terms = log.terms(
        value_types=["bf16", "exact", "fp32", "int8", "packed", "sign"], support_modes=["agreed", "dense", "free"],
        mask=log.put_mask(MASK, NEXT), relay_groups=[RELAYS], server=MOMENTUM,
    )  # fmt: skip
    terms["limits"] = {**terms["limits"], "nonzeros_max": 17}
    return terms


def begin() -> Writer:
    """A federation ready for its first round, with one relay among its participants."""
    log = Writer().begin()
    log.publish_terms(open_terms(log))
    log.record("r4", body={"groups": [RELAYS, "rovers"]})
    return log


BASE = begin()
SPARE_KEYS = [SigningKey.generate("ed25519") for _ in range(2)]
TOKENS = [SigningKey.generate("ed25519") for _ in range(3)]
OPERATORS = [SigningKey.generate("ed25519") for _ in range(2)]
KEYS = {
    key.public_key.key_id: key
    for key in (*BASE.participants.values(), *BASE.operators.values(), *SPARE_KEYS, *TOKENS, *OPERATORS)
}
"""Every key that a document may bring into force."""
NAMES = ("r1", "r2", "r3", "r4", "r5", "r6")
FEW_IDENTITIES = 4
"""What stands for a thousand identities of a name in a day."""


@contextmanager
def few_identities() -> Iterator[None]:
    """Let both readers stop at a few identities of a name in a day."""
    with (
        patch.object(enrolment, "IDENTITIES_A_DAY_MAX", FEW_IDENTITIES),
        patch.object(identities, "RATE_MAX", FEW_IDENTITIES),
    ):
        yield


class _Reader(ObjectReader):
    """An object in memory."""

    def __init__(self, digest: Digest, raw: bytes) -> None:
        super().__init__(digest, len(raw), HashedObjects())
        self._raw = raw

    def let_pass(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _read(self, offset: int, length: int) -> bytes:
        return self._raw[offset : offset + length]

    def _version(self) -> None:
        return None


class StoredObjects:
    """The verifier's objects, as services see them."""

    def __init__(self, objects: MemoryObjects) -> None:
        self._objects = objects

    def put(self, data: bytes | memoryview) -> Digest:
        return self._objects.put(bytes(data))

    def get(self, digest: Digest, bytes_max: int) -> bytes:
        raw = self._objects.read(digest, bytes_max)
        if raw is None:
            raise NotFoundError("it is not here")
        return raw

    def open(self, digest: Digest, bytes_max: int) -> ObjectReader:
        return _Reader(digest, self.get(digest, bytes_max))


class WatchedReplay(Replay):
    """Says whether its last entry had effect."""

    has_effect = False

    def step(self, raw: bytes) -> Any:
        self.has_effect = False
        return super().step(raw)

    def _apply(self, content: Any, envelope: Any, at: Any) -> None:
        super()._apply(content, envelope, at)
        self.has_effect = True


class Pair:
    """One log, read by both."""

    def __init__(self) -> None:
        self.log = copy.copy(BASE)
        for name in (
            "entries", "objects", "streams", "control_heads", "versions", "operators", "services", "participants",
            "steps",
        ):  # fmt: skip
            setattr(self.log, name, copy.copy(getattr(BASE, name)))
        stored: Any = StoredObjects(self.log.objects)
        self.results = Results(stored)
        self.log.participants |= {"r5": SPARE_KEYS[0], "r6": SPARE_KEYS[1]}
        self.fold = FederationFold(BASE.origin, (BASE.signer.key.vkey, BASE.cosigner.key.vkey))
        self.replay = WatchedReplay(BASE.trust, self.log.objects)
        self.read = 0
        self.catch_up()

    def catch_up(self) -> None:
        """Give both what was written, and compare."""
        for raw in self.log.entries[self.read :]:
            entry = parse_entry(raw)
            content: Content | None = None
            with suppress(MalformedError):
                content = parse_content(entry.envelope)
            void = self.fold.apply(self.read, leaf_hash(raw), entry, content)
            findings = self.replay.step(raw)
            assert (void is None) == self.replay.has_effect, (void, findings)
            # A void entry may have these codes too, and can be accepted.
            assert not [each for each in findings if each.code in RESULTS and not each.is_acceptable], findings
            self.read += 1
            self.compare()
        self.follow()

    def compare(self) -> None:
        """Everything that both derive is the same."""
        fold, replay = self.fold.state, self.replay.state
        assert fold.federation_id == replay.federation_id
        assert fold.governance_head == replay.governance_head
        assert {name: (s.next_seq, s.last) for name, s in fold.streams.items()} == replay.streams
        assert {series: (placed.document.digest, placed.index) for series, placed in fold.placed.items()} == {
            series: (document.digest, replay.since[series]) for series, document in replay.in_force.items()
        }
        assert fold.owners._owners == replay.owners
        assert (fold.spent_joins, fold.revoked_keys) == (replay.spent_joins, replay.revoked_keys)
        assert fold.issued == {key: each.spiffe_id for key, each in replay.identities.items()}
        assert fold.recorded_peers == replay.issued.keys()
        assert fold.last_requests == {key: each.requested_us for key, each in replay.identities.items()}
        for name, issued in replay.issued.items():
            since = self.log.now - DAY
            assert sum(time > since for time in fold.issue_times[name]) == issued.since(since)
        self._compare_doors()
        admitted = {key: (each.update.segment, each.update.participant) for key, each in fold.admitted_updates.items()}
        assert admitted == replay.admitted
        assert {(p, s, r, n): c for (p, s, n, r), c in fold.single_refusals.items()} == replay.refusals
        decided = {key: (d.segment, d.participant, d.decided_class, d.overridden) for key, d in fold.decisions.items()}
        assert decided == {
            key: (d.segment, d.participant, d.predicted_class, d.overridden) for key, d in replay.decisions.items()
        }
        assert set(fold.accepted) == replay.accepted.keys()
        assert fold.last_anchor_size == replay.anchored_size
        assert fold.segments.keys() == replay.segments.keys()
        for name, segment in fold.segments.items():
            self._compare_segment(segment, replay.segments[name])

    def _compare_doors(self) -> None:
        """Whoever's TLS key opens the door to one opens it to the other: its name stands, and it is not revoked."""
        replay = self.replay.state
        open_keys = {
            key: each.not_after_us
            for key, each in replay.identities.items()
            if key not in replay.revoked_keys and signing_key_of(replay, each.spiffe_id) is not None
        }
        assert {key: each.not_after_us for key, each in self.fold.state.identities.items()} == open_keys

    def _compare_segment(self, ours: SegmentState, theirs: Segment) -> None:
        assert (ours.control_head, ours.model, ours.models) == (theirs.control_head, theirs.model, theirs.models)
        assert (ours.last_round, ours.is_halted) == (theirs.last_round, theirs.is_halted)
        assert [_step(each) for each in ours.lineage] == [_step(each) for each in theirs.lineage]
        assert [step.aggregate for step in ours.lineage] == [self._published(step.index) for step in theirs.lineage]
        assert ours.due == [step.round for step in theirs.due]
        assert dict(ours.decision_seqs) == theirs.record_seqs
        for name in ours.quota_uses.keys() | theirs.usage.keys():
            for window_us in (SECOND, 300 * SECOND, 31 * DAY):
                since = max(0, self.log.now - window_us)
                assert used(ours, name, since) == theirs.usage[name].since(since)
        for step in theirs.lineage:
            current = ours.rounds[step.round]
            names = {each.statement_digest: each.update.participant for each in step.counted}
            assert current.left_out_derived == {names[digest] for digest in step.left_out}
            pending = step.leaving_out if step in theirs.due else step.left_out
            assert current.left_out == {names[digest] for digest in pending}
        current, other = ours.current, theirs.round
        if current is None or other is None:
            assert current is None
            assert other is None
            return
        self._compare_round(current, other, theirs.excluded)

    def _compare_round(self, ours: RoundState, theirs: Round, excluded: set[Digest]) -> None:
        assert (ours.opened, ours.deadline_us) == (theirs.opened, theirs.deadline_us)
        assert (ours.base_model, ours.server_state) == (theirs.base_model, theirs.server_state)
        assert ours.mask == theirs.mask
        assert (ours.closed_hash, ours.is_open) == (theirs.closed_hash, theirs.closed is None)
        assert (ours.ended_by_order, ours.is_abandoned) == (theirs.is_ended, theirs.is_abandoned)
        assert ours.withdrawn.keys() == theirs.withdrawn
        assert {name: (each.index, each.statement_digest) for name, each in ours.complaints.items()} == {
            name: (each.index, each.statement_digest) for name, each in theirs.complaints.items()
        }
        assert ours.excluded == {n for n, each in theirs.admissions.items() if each.statement_digest in excluded}
        assert ours.admissions.keys() == theirs.admissions.keys()
        everybody = tuple(ours.admissions.values())
        defective = self.results.cohort(ours.terms.segment).decide(ours, everybody)
        for who in ours.admissions:
            assert theirs.admissions[who].verdict is (Verdict.DEFECTIVE if who in defective else Verdict.SOUND)

    def _published(self, index: int) -> Digest:
        """The aggregate that a model_published names."""
        content = parse_content(parse_entry(self.log.entries[index]).envelope)
        assert isinstance(content, Statement)
        assert isinstance(content.body, ModelPublished)
        return content.body.aggregate

    def follow(self) -> None:
        """Let the writer know what had effect, as an honest one would by reading on."""
        state, log = self.fold.state, self.log
        log.governance_head = state.governance_head
        log.versions = {
            series: (placed.document.version, placed.document.digest) for series, placed in state.placed.items()
        }
        log.control_heads = {f"segment/{name}": segment.control_head for name, segment in state.segments.items()}
        segment = state.segments[SEGMENT]
        log.terms_raw, log.last_round, log.model_digest = segment.terms.raw, segment.last_round, segment.model
        current = segment.current
        log.round = None if current is None else RoundNow(current.number, current.opened, current.base_model)
        begun = self.replay.state.segments[SEGMENT].round
        if begun is not None and begun.mask_object is not None and begun.mask_object.indices is not None:
            log.mask_indices = begun.mask_object.indices.tolist()
        for name in log.participants:
            record = state.participant(name)
            if record is not None:
                log.participants[name] = KEYS[record.key.key_id]
        assert state.root is not None
        log.operators |= {name: KEYS[key.key_id] for name, key in state.root.operators.items()}

    def limits(self) -> list[int]:
        """Times at which something ends."""
        state = self.fold.state
        ends = [placed.document.expires_us for placed in state.placed.values() if placed.document.expires_us < NEVER]
        ends += [each.not_after_us for each in state.identities.values()]
        ends += [r.deadline_us for s in state.segments.values() for r in s.rounds.values() if r.is_open]
        ends += [end + 120 * SECOND for end in ends]
        # Where the rate binds, a place is free again a day later.
        ends += [times[0] + DAY for times in state.issue_times.values() if len(times) >= FEW_IDENTITIES]
        return sorted(end for end in ends if end > self.log.now) or [self.log.now + 60 * SECOND]


def _step(step: LineageStep | Step) -> tuple[Any, ...]:
    """What both keep of a step of the lineage."""
    return step.round, step.model, step.base, step.published, step.index, step.server_state, step.next_mask


def of(choices: Any, n: int) -> Any:
    """One of them, by a number."""
    return choices[n % len(choices)]
