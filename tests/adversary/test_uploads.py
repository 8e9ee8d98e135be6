"""Uploads: bytes that come in pieces, break off, and are gone on with, by whoever attacks one, or with one.

A relay and a thief of an envelope have what was signed, and no more; whoever is let in may begin as many uploads as he
likes and end none; whoever writes into the store may put files where remainders lie.
"""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from simulator import participant_id

from sfrl_secure.errors import ConflictError, ExhaustedError, MalformedError, SfrlError, UnavailableError
from sfrl_secure.governance.statements import Evidence, UpdateAdmitted, UpdateRefused
from sfrl_secure.governance.terms import QuotaTerms
from sfrl_secure.services.gatekeeper import uploads as intake_module
from sfrl_secure.services.gatekeeper.decoders import Decoders
from sfrl_secure.services.gatekeeper.upload_bounds import UPLOADS_OF_PEER_MAX
from sfrl_secure.storage.folder_uploads import FolderUpload
from sfrl_secure.wire.audit_service import AppendedEntry

from .arena import LOG, Arena, Signed
from .uploading import Sending, leave

RELAY = "rover-4"
VALUES = {0: 5, 3: -7, 17: 100}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "SAY_SECONDS", 0.005)


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """Rover 4 is a relay of the segment."""
    with Arena(tmp_path, terms={"relay_groups": ["orbiters"]}) as made:
        made.sim.record(RELAY, groups=["orbiters", "rovers"])
        made.sim.open_round()
        yield made


def remainders(arena: Arena) -> list[Path]:
    """What uploads have left on the disk."""
    return sorted((arena.sim.folder / "objects" / "uploads").iterdir())


def other(payload: bytes) -> bytes:
    """As many bytes, and none of them right."""
    return bytes(byte ^ 0xFF for byte in payload)


def is_sound(arena: Arena, signed: Signed) -> bool:
    """The update is admitted, its object is what was signed, nothing is left over, and the verifier says the same."""
    arena.verify()
    admission = arena.sim.segment.rounds[1].admissions[signed[1].participant]
    stored = arena.sim.objects.get(signed[1].payload_sha256, 10_000)
    return admission.statement_digest == signed[0].digest and stored == signed[2]


# With somebody else's envelope


def test_a_thief_of_an_envelope_learns_not_even_how_far_its_owner_has_come(arena: Arena) -> None:
    signed = arena.sim.update("rover-1")
    leave(arena, "rover-1", signed, 40)

    def attempt() -> object:
        return Sending(arena, "rover-2", signed).said()

    body = arena.refused("wrong_peer", attempt, LOG)
    assert body.peer == participant_id("rover-2")
    again = Sending(arena, "rover-1", signed)
    assert again.said() == 40
    again.send(40, len(signed[2]))
    again.rest()
    assert is_sound(arena, signed)


@pytest.mark.parametrize("at", ["g1", "g2"])
def test_what_a_relay_leaves_is_the_relays_and_not_the_owners(arena: Arena, at: str) -> None:
    """Of the right length and wrong: whoever went on from it would be refused for what he never sent."""
    signed = arena.sim.update("rover-1")
    leave(arena, RELAY, (signed[0], signed[1], other(signed[2])), 60)
    leave(arena, "rover-1", signed, 40, at=at)
    again = Sending(arena, "rover-1", signed, at=at)
    assert again.said() == 40
    again.send(40, len(signed[2]))
    again.rest()
    assert is_sound(arena, signed)
    assert arena.bodies(UpdateRefused) == []


def test_a_relay_that_alters_the_payload_is_refused_itself_and_the_owner_is_not(arena: Arena) -> None:
    signed = arena.sim.update("rover-1")
    wrong = signed[2][:-1] + bytes([signed[2][-1] ^ 1])
    for _ in range(2):  # the second time it is told what it was told before, and nothing is written
        with pytest.raises(SfrlError):
            arena.send(RELAY, signed, payload=wrong)
    (body,) = arena.bodies(UpdateRefused)
    assert (body.peer, body.reason, body.evidence) == (participant_id(RELAY), "digest_mismatch", Evidence.NONE)
    # Another relay, or the owner himself, is answered for what he sends.
    arena.send("rover-1", signed)
    assert is_sound(arena, signed)
    assert remainders(arena) == []


def test_a_relay_with_a_bundle_of_a_round_that_is_over_books_it_on_itself(arena: Arena) -> None:
    """Kept for weeks and brought again: the statement names its round and that round's entry."""
    sim = arena.sim
    old = sim.update("rover-1")
    for name in ("rover-2", "rover-3"):
        sim.admit(name)
    sim.clock.advance(sim.segment.rounds[1].deadline_us - sim.clock.now_us())
    sim.close_round()
    sim.publish_model()
    sim.open_round()
    body = arena.refused("round_not_open", partial(arena.send, RELAY, old), LOG)
    assert body.peer == participant_id(RELAY)
    signed = sim.update("rover-1")
    arena.send("rover-1", signed)
    arena.verify()


# Two calls of one upload


def test_two_calls_at_two_gatekeepers_make_one_entry_and_neither_alters_the_object(arena: Arena) -> None:
    signed = arena.sim.update("rover-1")
    slow = Sending(arena, "rover-1", signed)
    assert slow.said() == 0
    slow.send(0, 50)
    slow.until(50)
    fast = Sending(arena, "rover-1", signed, at="g2")
    assert fast.said() == 50
    fast.send(50, len(signed[2]))
    (answer,) = [each for each in fast.rest() if isinstance(each, AppendedEntry)]
    assert is_sound(arena, signed)
    # The slow one still holds its file, and writes into it: other bytes, as many as were signed for.
    slow.payload = other(signed[2])
    slow.send(50, len(signed[2]))
    # It is told what was decided, and what it sent is not looked at any more.
    (late,) = [each for each in slow.rest() if isinstance(each, AppendedEntry)]
    assert late.logged.index == answer.logged.index
    assert is_sound(arena, signed)
    assert [body for body in arena.bodies(UpdateRefused) if body.evidence is Evidence.OBJECT] == []
    admitted = arena.bodies(UpdateAdmitted)
    assert len(admitted) == 1
    assert answer.logged.index == arena.sim.segment.rounds[1].admissions["rover-1"].index


def test_a_call_whose_place_was_taken_writes_nothing_that_the_next_one_sees(arena: Arena) -> None:
    signed = arena.sim.update("rover-1")
    first = Sending(arena, "rover-1", signed)
    assert first.said() == 0
    first.send(0, 30)
    first.until(30)
    second = Sending(arena, "rover-1", signed)
    assert second.said() == 30
    first.payload = other(signed[2])
    first.send(30, len(signed[2]))
    with pytest.raises(ConflictError):
        first.rest()
    second.send(30, len(signed[2]))
    second.rest()
    assert is_sound(arena, signed)


def test_what_is_sent_again_in_other_bytes_is_not_looked_at(arena: Arena) -> None:
    """Overlapping chunks: of two bytes for one place, the first is there, and no third party sees another."""
    signed = arena.sim.update("rover-1")
    sending = Sending(arena, "rover-1", signed)
    assert sending.said() == 0
    sending.send(0, 30)
    sending.payload = other(signed[2])
    sending.send(0, 30)
    sending.payload = signed[2]
    sending.send(20, len(signed[2]))
    sending.rest()
    assert is_sound(arena, signed)


# Uploads without end


def test_uploads_that_never_end_take_no_entry_no_quota_and_no_room(tmp_path: Path) -> None:
    terms = {"quota": QuotaTerms(window_us=86_400_000_000, updates_max=1, bytes_max=2**20)}
    with Arena(tmp_path, terms=terms) as arena:
        arena.sim.open_round()
        honest = arena.sim.update("rover-2")
        leave(arena, "rover-2", honest, 50)
        size = len(arena.sim.log.raw)
        for number in range(5 * UPLOADS_OF_PEER_MAX):
            leave(arena, "rover-1", arena.sim.update("rover-1", created_us=number), 70)
            assert len(remainders(arena)) <= UPLOADS_OF_PEER_MAX + 1
        assert len(arena.sim.log.raw) == size
        # The other rover's is still there, and the quota is untouched.
        again = Sending(arena, "rover-2", honest)
        assert again.said() == 50
        again.send(50, len(honest[2]))
        again.rest()
        arena.send("rover-1", arena.sim.update("rover-1"))
        arena.verify()


def test_one_peer_holds_four_uploads_open_and_shuts_nobody_out(arena: Arena) -> None:
    held = [Sending(arena, "rover-1", arena.sim.update("rover-1", created_us=n)) for n in range(UPLOADS_OF_PEER_MAX)]
    assert [each.said() for each in held] == [0] * UPLOADS_OF_PEER_MAX
    size = len(arena.sim.log.raw)
    with pytest.raises(ExhaustedError):
        Sending(arena, "rover-1", arena.sim.update("rover-1", created_us=99)).said()
    assert len(arena.sim.log.raw) == size
    signed = arena.sim.update("rover-2")
    arena.send("rover-2", signed)
    for each in held:
        each.cut()
    assert is_sound(arena, signed)
    assert remainders(arena) == []


def test_many_calls_of_one_upload_at_once_leave_what_one_would_leave(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each copies what the last one left, for some time if it is long, and while it does it does not hear of the next:
    a payload on the disk, and a thread, for each small request."""
    signed = arena.sim.update("rover-1")
    leave(arena, "rover-1", signed, 60)
    honest = FolderUpload.take_over

    def slowly(self: FolderUpload) -> Iterator[bytes]:
        for part in honest(self):
            time.sleep(0.2)
            yield part

    monkeypatch.setattr(FolderUpload, "take_over", slowly)
    most = 0

    def call() -> None:
        nonlocal most
        sending = Sending(arena, "rover-1", signed)
        with suppress(SfrlError):
            sending.said()
            most = max(most, len(remainders(arena)))
            sending.cut()

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    monkeypatch.undo()
    assert most <= UPLOADS_OF_PEER_MAX
    assert len(remainders(arena)) <= 2
    arena.send("rover-1", signed)
    assert is_sound(arena, signed)


def test_a_payload_in_single_bytes_is_the_same_payload(arena: Arena) -> None:
    signed = arena.sim.update("rover-1")
    sending = Sending(arena, "rover-1", signed)
    for at in range(len(signed[2])):
        sending.send(at, at + 1)
    sending.rest()
    assert is_sound(arena, signed)


def test_bytes_that_are_sent_again_and_again_end_the_call_and_not_the_gatekeeper(arena: Arena) -> None:
    signed = arena.sim.update("rover-1")
    sending = Sending(arena, "rover-1", signed)
    for _ in range(4):
        sending.send(0, len(signed[2]) // 2)
    with pytest.raises(MalformedError):
        sending.rest()
    arena.send("rover-1", signed)
    assert is_sound(arena, signed)


def test_who_left_wrong_bytes_himself_is_not_admitted_by_going_on_from_them(arena: Arena) -> None:
    signed = arena.sim.update("rover-1")
    wrong = signed[0], signed[1], signed[2][:70] + other(signed[2][70:])
    leave(arena, "rover-1", wrong, 80)
    size = len(arena.sim.log.raw)
    again = Sending(arena, "rover-1", signed)
    assert again.said() == 80
    again.send(80, len(signed[2]))
    with pytest.raises(UnavailableError):
        again.rest()
    # Nothing is decided, for nobody knows who left them; nothing is left, and he begins again.
    assert len(arena.sim.log.raw) == size
    assert remainders(arena) == []
    assert not arena.sim.objects.is_stored(signed[1].payload_sha256)
    arena.send("rover-1", signed)
    assert is_sound(arena, signed)


@pytest.mark.parametrize("held_bytes", [1, 2**16])
def test_what_waits_for_a_decoder_takes_the_memory_that_it_is_counted_with(held_bytes: int) -> None:
    """A chunk of one byte is an object like any other, and of a chunk that was mostly skipped the rest is held too."""
    waiting_bytes_max = 2**16
    decoders, goes_on = Decoders(threads=1, waiting_bytes_max=waiting_bytes_max), threading.Event()
    decoders.start()

    def wait(_: object) -> None:
        goes_on.wait(20)

    lane = decoders.lane(wait)

    def put() -> None:
        for _ in range(4_096):
            lane.put(memoryview(bytes(held_bytes))[-1:])

    putting = threading.Thread(target=put, daemon=True)
    tracemalloc.start()
    try:
        putting.start()
        putting.join(3)
        assert tracemalloc.get_traced_memory()[1] < 4 * waiting_bytes_max
    finally:
        tracemalloc.stop()
        goes_on.set()
        putting.join()
        lane.drop()
        decoders.stop()


# With write access to the store


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "pipe", "ring"])
def test_what_lies_among_remainders_and_is_none_is_neither_read_nor_in_the_way(arena: Arena, kind: str) -> None:
    """A link to the gatekeeper's key, say: it would be copied to where whoever made the link can read it."""
    signed = arena.sim.update("rover-1")
    leave(arena, "rover-1", signed, 40)
    (own,) = remainders(arena)
    secret = arena.sim.folder / "key.pem"
    secret.write_bytes(b"not for you" * 6)
    secret.chmod(0o600)
    planted = own.with_name(own.name.partition(".")[0] + "." + "0" * 16)
    if kind == "link":
        planted.symlink_to(secret)
    elif kind == "hard link":
        os.link(secret, planted)
    elif kind == "folder":
        planted.mkdir()
    elif kind == "pipe":
        os.mkfifo(planted)
    else:
        planted.symlink_to(planted)
    again = Sending(arena, "rover-1", signed)
    assert again.said() == 40
    held = [path.read_bytes() for path in remainders(arena) if path.is_file() and not path.is_symlink()]
    assert not [raw for raw in held if raw.startswith(b"not for you")]
    again.send(40, len(signed[2]))
    again.rest()
    assert is_sound(arena, signed)
    assert secret.exists()
    # Nor does it end the sweeping of what lies beside it.
    leave(arena, "rover-2", arena.sim.update("rover-2"), 30)
    arena.gatekeeper().uploads.sweep(2**62)
    assert [path.name for path in remainders(arena) if path.is_file() and not path.is_symlink()] == []
