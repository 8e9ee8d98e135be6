"""Where attacks are fought: a federation in memory, its real doors, its log, a log that lies, and a verifier.

Whoever attacks has a participant's keys (`refused`, `counted`), or those of a service or of operators (`denied`,
`repeated`, `found`), or the log's own. Each method sends one attack and looks for what is left of it: the reason code,
the entry, and what the verifier, from the log and the objects alone, says of the whole history until then. So every
attack is also held against all that the arena has seen before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from simulator import (
    SEGMENT,
    SimulatedGatekeeper,
    Simulator,
    participant_id,
    service_id,
)

from sfrl_secure.audit.source import FolderObjects
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ConflictError, DeniedError, MalformedError, SfrlError
from sfrl_secure.governance.statements import (
    Body,
    Evidence,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    Statement,
    UpdateRefused,
    UpdateStatement,
)
from sfrl_secure.ids import SpiffeId, sha256
from sfrl_secure.replay.fold import Replay
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.shapes import shape_of_dataclass, written
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import Peer, record_peer
from sfrl_secure.sequencer.sequencer import Answer, Appended, Result, Submission
from sfrl_secure.services.audit_log.appending import Appending
from sfrl_secure.services.audit_log.intake import Intake
from sfrl_secure.services.audit_log.signature_checks import SignatureChecks
from sfrl_secure.services.refusals import RefusalWriter
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire import uploads
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import Content, parse_content

Signed = tuple[Envelope, UpdateStatement, bytes]
Attempt = Callable[[], object]

LOG, OBJECT, NONE = Evidence
L1 = service_id("audit_log", "l1")

# All that decides anything; a void entry still moves its stream, the size and the time.
_DECIDING = shape_of_dataclass(FederationState, frozenset({"statements", "streams", "size", "last_time_us"}))


class Arena:
    """A federation under attack. Use it in a `with`.

    Attributes:
        sim: the federation; what honest people do is done through it.
        known: code and index of each finding that the verifier has every reason to report by now.
    """

    def __init__(self, folder: Path, **federation: Any) -> None:
        """Found a federation: see `Simulator`."""
        self.sim = Simulator(folder, **federation)
        self.known: list[tuple[str, int]] = []
        self._gatekeepers: dict[str, SimulatedGatekeeper] = {}
        self._log_counter = RefusalCounter(self.sim.clock)
        self._checks = SignatureChecks()
        ordering: Any = _Ordering(self.sim)
        self._appending = Appending(ordering, Intake(self.sim.state, self._checks), self._log_counter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._checks.close()
        self.sim.close()

    # Doors

    def gatekeeper(self, name: str = "g1") -> SimulatedGatekeeper:
        """One of the two gatekeepers."""
        if name not in self._gatekeepers:
            self._gatekeepers[name] = self.sim.gatekeeper(name)
        return self._gatekeepers[name]

    def call(self, path: str, peer: str | SpiffeId, raw: bytes | Iterator[bytes], at: str = "g1") -> Any:
        """Call a gatekeeper's method as a peer whose TLS identity holds; of a stream, all messages."""
        answer: Any = self._behave(path, peer, raw, at)
        return answer if isinstance(answer, bytes) else list(answer)

    def stream(
        self, path: str, peer: str | SpiffeId, raw: bytes | Iterator[bytes], at: str = "g1"
    ) -> Iterator[bytes]:
        """Call a method that answers with a stream; its messages come when they are asked for."""
        answers: Any = self._behave(path, peer, raw, at)
        return iter(answers)

    def _behave(self, path: str, peer: str | SpiffeId, raw: bytes | Iterator[bytes], at: str) -> object:
        method = next(each for each in self.gatekeeper(at).servicer.methods() if each.path == path)
        spiffe_id = peer if isinstance(peer, SpiffeId) else participant_id(peer)
        context: Any = _Context(spiffe_id)
        answer: object = method.behaviour(raw, context)  # type: ignore[arg-type]
        return answer

    def send(self, peer: str, signed: Signed, *, payload: bytes | None = None, at: str = "g1") -> AppendedEntry:
        """Submit a signed update, with its payload or another."""
        sent = signed[2] if payload is None else payload
        start = uploads.encode_upload_start(signed[0], uploads.Chunk(0, sent) if sent else None)
        answer = uploads.parse_upload_answer(self.call(uploads.SUBMIT_UPDATE, peer, iter([start]), at)[-1])
        assert not isinstance(answer, int), "the last answer holds the receipt"
        return answer

    def withdraw(self, peer: str, envelope: Envelope) -> object:
        """Ask for a withdrawal."""
        return self.call(wire.WITHDRAW_UPDATE, peer, wire.encode_withdraw_request(envelope))

    def record(self, peer: str, envelope: Envelope) -> object:
        """Ask for a decision to be recorded."""
        return self.call(wire.RECORD_DECISION, peer, wire.encode_record_request(envelope))

    def bring(self, peer: SpiffeId, envelope: Envelope) -> AppendedEntry:
        """Bring an envelope to the log's own door."""
        return self._appending.append(envelope, Peer(peer, 7, sha256(peer.encode())))

    # What becomes of attacks

    def refused(self, reason: str, attempt: Attempt, evidence: Evidence = LOG) -> UpdateRefused:
        """A gatekeeper refuses an update, and its refusal is an entry that the verifier decides likewise."""
        size, before = len(self.sim.log.raw), self.admissions()
        denied = _denied(attempt)
        assert denied.reason == reason
        assert denied.entry_index == size == len(self.sim.log.raw) - 1, "one entry, and the answer names it"
        body = self.sim.log.statement_at(size).body
        assert isinstance(body, UpdateRefused)
        assert (body.reason, body.evidence) == (reason, evidence)
        assert self.admissions() == before
        replay = self.verify()
        words = sum(each.evidence is NONE for each in self.bodies(UpdateRefused))
        assert replay.docket.refusals_on_word == words, "what has evidence was decided again"
        return body

    def counted(self, reason: str, attempt: Attempt, *, peer_class: PeerClass = PeerClass.PARTICIPANT) -> None:
        """A gatekeeper refuses what gets no entry of its own, and counts it in the log."""
        gatekeeper = self.gatekeeper()
        self._counted(reason, attempt, peer_class, gatekeeper.counter, service_id("gatekeeper", "g1"))

    def counted_by_log(self, reason: str, attempt: Attempt, peer_class: PeerClass) -> None:
        """The log refuses what somebody brings, and counts it in itself."""
        self._counted(reason, attempt, peer_class, self._log_counter, L1)

    def denied(self, reason: str, code: str, envelope: Envelope) -> int:
        """The log refuses what services or operators signed; a log that takes it is found out, and nothing changes."""
        before, size = self.deciding(), len(self.sim.log.raw)
        with pytest.raises((ConflictError, DeniedError)) as refused:
            self.sim.log.order(envelope)
        assert isinstance(refused.value, ConflictError | DeniedError)
        assert refused.value.reason == reason
        assert len(self.sim.log.raw) == size
        return self._forced(reason, code, envelope, before)

    def malformed(self, envelope: Envelope) -> int:
        """The log cannot read it; a log that takes it down is found out."""
        before, size = self.deciding(), len(self.sim.log.raw)
        with pytest.raises(MalformedError):
            self.sim.log.order(envelope)
        assert len(self.sim.log.raw) == size
        return self._forced("malformed", "malformed", envelope, before)

    def repeated(self, code: str, envelope: Envelope) -> int:
        """The log gives the entry that there is; a log that takes it down again is found out."""
        before, size = self.deciding(), len(self.sim.log.raw)
        assert self.sim.log.order(envelope) < size == len(self.sim.log.raw)
        return self._forced("known", code, envelope, before)

    def found(self, codes: str | Sequence[str], envelope: Envelope) -> int:
        """The log cannot see that it is false, since it holds no payloads; the verifier can."""
        index = self.sim.log.order(envelope)
        assert index not in self.sim.log.voids
        self.known += [(code, index) for code in ([codes] if isinstance(codes, str) else codes)]
        self.verify()
        return index

    # What is there afterwards

    def verify(self) -> Replay:
        """Walk the log as an auditor: it must find what is known, and nothing else."""
        replay = Replay(self.sim.policy.logs[0], FolderObjects(self.sim.folder / "objects"))
        for raw in self.sim.log.raw:
            replay.step(raw)
        replay.finish()
        assert [(each.code, each.index) for each in replay.docket.findings] == self.known
        assert replay.missing == ()
        return replay

    def deciding(self) -> object:
        """All of the services' state on which anything is decided."""
        return written(self.sim.state, _DECIDING)

    def admissions(self) -> frozenset[bytes]:
        """Updates that were admitted."""
        return frozenset(self.sim.state.admitted_updates)

    def bodies(self, kind: type) -> list[Any]:
        """Bodies of this kind in the log, void or not."""
        found: list[Body] = []
        for index in range(len(self.sim.log.raw)):
            with suppress(MalformedError):
                content = parse_content(self.sim.log.envelope_at(index))
                if isinstance(content, Statement) and isinstance(content.body, kind):
                    found.append(content.body)
        return found

    def _forced(self, reason: str, code: str, envelope: Envelope, before: object) -> int:
        index = self.sim.log.force(envelope)
        assert self.sim.log.voids[index] == reason
        assert self.deciding() == before, "what is void changes nothing"
        self.known.append((code, index))
        self.verify()
        return index

    def _counted(
        self, reason: str, attempt: Attempt, peer_class: PeerClass, counter: RefusalCounter, writer: SpiffeId
    ) -> None:
        before, size = self.deciding(), len(self.sim.log.raw)
        denied = _denied(attempt)
        assert (denied.reason, denied.entry_index) == (reason, None)
        assert len(self.sim.log.raw) == size
        assert RefusalWriter(counter, lambda body: self.sim.write(writer, "log", body), interval_seconds=1).flush()
        (index,) = range(size, len(self.sim.log.raw))
        body = self.sim.log.statement_at(index).body
        assert isinstance(body, RefusalsCounted)
        assert body.counts == (RefusalCount(reason, peer_class, 1),)
        assert self.deciding() == before
        assert self.verify().docket.refusals_counted == sum(
            count.count for each in self.bodies(RefusalsCounted) for count in each.counts
        )


class _Context:
    """Stands where gRPC's context stands."""

    def __init__(self, spiffe_id: SpiffeId) -> None:
        record_peer(self, Peer(spiffe_id, 7, sha256(spiffe_id.name.encode())))  # type: ignore[arg-type]


class _Ordering:
    """What the log's door asks of its sequencer, over the log in memory."""

    def __init__(self, sim: Simulator) -> None:
        self._log = sim.log

    def submit(self, submissions: Sequence[Submission[Content]]) -> Answer:
        answer = Answer()
        answer.tell(tuple(self._order(each.envelope) for each in submissions))
        return answer

    def _order(self, envelope: Envelope) -> Result:
        try:
            taken = self._log.append(envelope)
        except SfrlError as error:
            return error
        logged = taken.logged
        return Appended(logged.index, logged.raw, len(self._log.raw), logged.path, taken.checkpoint)


def _denied(attempt: Attempt) -> DeniedError:
    with pytest.raises(DeniedError) as denied:
        attempt()
    return denied.value


def opened(sim: Simulator) -> None:
    """A round is open, with two updates."""
    sim.open_round()
    sim.admit("rover-1")
    sim.admit("rover-2")


def full(sim: Simulator) -> None:
    """A round is full, and open."""
    opened(sim)
    sim.admit("rover-3")


def waiting(sim: Simulator) -> None:
    """A round is closed, and its model is not published."""
    full(sim)
    sim.close_round()


def said(sim: Simulator, writer: SpiffeId, body: Body) -> Envelope:
    """What a service with this key would say now about the segment."""
    return sim.sign(sim.statement(writer, f"segment/{SEGMENT}", body))
