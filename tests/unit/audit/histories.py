"""Histories of one log: entries, the notes over them, and files; a log that lies has two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.governance.statements import CloseCause, CloseOutcome, RoundClosed, Statement, UpdateAdmitted
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy
from sfrl_secure.translog.tiles import bundles_of, encode_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tlog_proof import TlogProof, format_tlog_proof
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.content import parse_content, stream_of
from sfrl_secure.wire.entries import encode_entry, parse_entry

G1, A1 = service_id("gatekeeper", "g1"), service_id("aggregator", "a1")
STREAM = f"segment/{SEGMENT}"


class History:
    """One history that the simulated log signs."""

    def __init__(self, sim: Simulator, entries: Sequence[bytes]) -> None:
        self.sim = sim
        self.entries = list(entries)
        self.streams: dict[str | None, tuple[int, bytes]] = {}
        for raw in self.entries:
            self._follow(raw)

    def _follow(self, raw: bytes) -> None:
        entry = parse_entry(raw)
        self.streams[stream_of(entry.envelope)] = (entry.stream_seq + 1, leaf_hash(raw))

    @property
    def size(self) -> int:
        return len(self.entries)

    @property
    def tree(self) -> MerkleTree:
        return MerkleTree(leaf_hash(entry) for entry in self.entries)

    def add(self, envelope: Envelope) -> int:
        """Sequence an envelope, whatever it is; give its index."""
        seq, stream_prev = self.streams[stream_of(envelope)]
        last = parse_entry(self.entries[-1])
        entry = LogEntry(leaf_hash(self.entries[-1]), last.log_time_us + 1, seq, stream_prev, envelope)
        self.entries.append(encode_entry(entry))
        self._follow(self.entries[-1])
        return self.size - 1

    def note(self, size: int | None = None, *, witnesses: int = 2) -> bytes:
        """A note over the first entries, under the log's keys and so many witnesses."""
        size = self.size if size is None else size
        return self.sim.log.note(size, self.sim.log.witnesses[:witnesses], root=self.tree.root(size))

    def logged(self, index: int, size: int | None = None) -> LoggedEntry:
        size = self.size if size is None else size
        return LoggedEntry(index, self.entries[index], self.tree.inclusion_proof(index, size).path)

    def receipt(self, index: int, size: int | None = None, *, witnesses: int = 2) -> bytes:
        """A `.tlog-proof`: receipt W, or A without witnesses."""
        logged = self.logged(index, size)
        return format_tlog_proof(TlogProof(logged.raw, index, logged.path, self.note(size, witnesses=witnesses)))

    def write(self, folder: Path, size: int | None = None, *, witnesses: int = 2) -> Path:
        """Publish the first entries; give the folder."""
        size = self.size if size is None else size
        entries = self.entries[:size]
        tree = MerkleTree(leaf_hash(entry) for entry in entries)
        files = {"checkpoint": self.note(size, witnesses=witnesses)}
        files |= {tile.path: tile_of_tree(tree, tile) for tile in tiles_of(size)}
        for bundle in bundles_of(size):
            first = 256 * bundle.index
            files[bundle.path] = encode_bundle(entries[first : first + bundle.width])
        for path, raw in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(raw)
        return folder


class Stories:
    """A federation whose log has told two stories from one point on.

    In `first`, rover-1 is admitted at `index`; in `second` rover-2 is, in the same place. Each test gets its own copy.
    """

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        if sim.segment.open_round is None:
            sim.open_round()
        self.index = len(sim.log.raw)
        self.first, self.second = History(sim, sim.log.raw), History(sim, sim.log.raw)
        for history, name in ((self.first, "rover-1"), (self.second, "rover-2")):
            assert history.add(self.admission(name)) == self.index
        self.position = parse_entry(self.first.entries[self.index]).stream_seq

    def admission(self, name: str, **changes: object) -> Envelope:
        """A gatekeeper's signed admission of an update."""
        return self.sim.sign(self.sim.statement(G1, STREAM, self.sim.admission(name, **changes)))

    def pad(self, history: History, count: int) -> None:
        """Let the history grow by entries that say nothing new."""
        issued = parse_content(parse_entry(self.sim.log.raw[-2]).envelope).body
        for number in range(count):
            body = replace(issued, spki_sha256=leaf_hash(b"%d %d" % (history.size, number)))
            history.add(self.sim.sign(self.sim.statement(G1, "identity", body)))


class Round:
    """A round of three admissions, and the closing that a test chooses.

    Attributes:
        history: the log, up to the last admission.
        indices: of the admissions, by participant.
    """

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.history = History(sim, sim.log.raw)
        self.indices = {
            statement.body.update.participant: index
            for index in range(self.history.size)
            if isinstance(statement := parse_content(sim.log.envelope_at(index)), Statement)
            and isinstance(statement.body, UpdateAdmitted)
        }

    def admitted(self, name: str) -> UpdateAdmitted:
        body = self.sim.log.statement_at(self.indices[name]).body
        assert isinstance(body, UpdateAdmitted)
        return body

    def counted_root(self, *names: str) -> bytes:
        leaves = []
        for name in sorted(names):
            body = self.admitted(name)
            weight = body.update.weight.to_bytes(4, "big")
            leaves.append(leaf_hash(name.encode() + b"\0" + body.envelope.digest + weight))
        return root_of(leaves)

    def close(self, *counted: str, **changes: object) -> Envelope:
        """Add a closing that counts these, as an aggregator and a log that lie together would."""
        body = RoundClosed(1, CloseCause.FULL, CloseOutcome.CLOSED, len(counted), self.counted_root(*counted), ())
        envelope = self.sim.sign(self.sim.statement(A1, STREAM, replace(body, **changes)))
        self.history.add(envelope)
        return envelope

    def check(self, envelope: Envelope) -> None:
        """Check that an honest log takes this next.

        Raises:
            DeniedError: it does not.
        """
        self.sim.log.fold.check(self.sim.clock.now_us(), envelope, parse_content(envelope))


def with_new_keys(sim: Simulator) -> TrustPolicy:
    """Give the log a new generation of keys; the trust policy that lists both."""
    keys = LogKeys.generate()
    new = (keys.note_signer(sim.origin).key, keys.cosigner(sim.origin).key)
    (log,) = sim.policy.logs
    sim.log.keys = keys
    return replace(sim.policy, logs=(TrustedLog(log.origin, (*log.keys, *new)),))
