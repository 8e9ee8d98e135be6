"""Witnesses: published is what the quorum has cosigned, and nobody runs behind a witness."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
import structlog

from sfrl_secure.errors import MalformedError, UnavailableError, UncertainStateError
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.sequencer import LogHead
from sfrl_secure.sequencer.start_check import check_not_behind
from sfrl_secure.sequencer.witness_client import ANSWER_BYTES_MAX, HttpWitness, WitnessReply
from sfrl_secure.sequencer.witnessing import WitnessingSettings
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import Note, format_note
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy
from sfrl_secure.translog.tree import MerkleTree

NOTE_MAX = 128 * 1024


def published(world):
    return open_checkpoint(read_bounded(world.log_dir / "checkpoint", NOTE_MAX), world.policy, quorum=True)


def grow(log, count: int) -> None:
    for _ in range(count):
        log.append(f"alpha n{log.history.size}")


def test_what_is_appended_is_witnessed_and_published(world) -> None:
    log = world.open().start()
    grow(log, 10)
    log.wait_witnessed(11)
    opened = published(world)
    assert opened.checkpoint.size == 11
    assert opened.note == log.sequencer.head.witnessed_note
    assert opened.checkpoint.root == log.history.tree.root(11)


def test_followers_hear_of_it_only_after_it_is_published(world) -> None:
    log = world.open().start()
    grow(log, 3)
    head = log.sequencer.head
    while head.witnessed_size < 4:
        head = log.sequencer.wait_for_change(head, 5)
        if head.witnessed_note:
            assert published(world).checkpoint.size >= head.witnessed_size


def test_a_quiet_log_is_published_sooner_again_than_a_busy_one() -> None:
    settings = WitnessingSettings(0.1, quiet_seconds=0.02, entry_seconds=0.001)
    assert [round(settings.interval_after(entries), 6) for entries in (0, 1, 30, 80, 10_000)] == [
        0.02, 0.021, 0.05, 0.1, 0.1,
    ]  # fmt: skip


def test_a_log_that_does_not_grow_is_cosigned_again(world) -> None:
    log = world.open(refresh_seconds=0.05).start()
    log.wait_witnessed(1)
    asked = len(world.witnesses[0].asked)
    until = time.monotonic() + 5
    while len(world.witnesses[0].asked) < asked + 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert world.witnesses[0].asked[asked : asked + 3] == [200, 200, 200]
    assert published(world).checkpoint.size == 1


def test_a_start_has_even_an_old_checkpoint_cosigned_again(world) -> None:
    log = world.open().start()
    log.wait_witnessed(1)
    log.close()
    asked = len(world.witnesses[0].asked)
    world.open().start()
    until = time.monotonic() + 5
    while 200 not in world.witnesses[0].asked[asked:] and time.monotonic() < until:
        time.sleep(0.01)
    assert 200 in world.witnesses[0].asked[asked:]


def test_nothing_is_published_without_the_quorum(make_world) -> None:
    world = make_world(witness_count=3, threshold=2)
    world.create()
    log = world.open()
    for witness in world.witnesses[1:]:
        witness.is_away = True
    log.start()
    appended = log.append("alpha one")
    assert appended.tree_size == 2
    while not world.witnesses[0].recorded:
        time.sleep(0.005)
    # Longer than a target lasts: it is given up, and not published either.
    time.sleep(0.7)
    assert log.sequencer.head.witnessed_size == 0
    assert not (world.log_dir / "checkpoint").exists()
    world.witnesses[1].is_away = False
    log.wait_witnessed(2)
    assert set(published(world).witness_times) == {"w0", "w1"}


def test_witnesses_of_different_speed_meet_in_a_growing_log(make_world) -> None:
    world = make_world(witness_count=3, threshold=3)
    world.create()
    for witness, seconds in zip(world.witnesses, (0.0, 0.01, 0.05), strict=True):
        witness.add_checkpoint = delayed(witness.add_checkpoint, seconds)
    log = world.open().start()
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        grow(log, 1)
    assert log.sequencer.head.witnessed_size > 1
    log.wait_witnessed(log.history.size)


def test_what_comes_while_a_checkpoint_is_carried_is_carried_without_waiting_for_more(world) -> None:
    ask, waits_with_work = world.witnesses[0].add_checkpoint, []

    def growing(request: bytes) -> WitnessReply:
        if log.history.size == 2:
            grow(log, 1)
        return ask(request)

    log = world.open()
    wait_for_change = log.sequencer.wait_for_change

    def watched(known: LogHead, seconds: float) -> LogHead:
        if threading.current_thread().name == "witnessing" and known == log.sequencer.head:
            waits_with_work.append(known.size > known.witnessed_size > 0)
        return wait_for_change(known, seconds)

    log.sequencer.wait_for_change = watched
    log.start()
    log.wait_witnessed(1)
    world.witnesses[0].add_checkpoint = growing
    grow(log, 1)
    log.wait_witnessed(3)
    assert log.history.size == 3
    assert True not in waits_with_work


def delayed(ask, seconds: float):
    def asking(request: bytes) -> WitnessReply:
        time.sleep(seconds)
        return ask(request)

    return asking


def test_without_a_quorum_to_meet_everything_is_published(make_world) -> None:
    world = make_world(witness_count=0)
    world.create()
    log = world.open().start()
    grow(log, 3)
    log.wait_witnessed(4)
    assert published(world).checkpoint.size == 4


def test_a_witness_that_knows_an_older_size_is_told_from_there(world) -> None:
    log = world.open().start()
    grow(log, 5)
    log.wait_witnessed(6)
    log.close()
    world.witnesses[0].asked.clear()
    # The new process does not know what the witness has recorded: one 409, then one proof from there.
    again = world.open().start()
    grow(again, 1)
    again.wait_witnessed(7)
    assert world.witnesses[0].asked[:2] == [409, 200]


@pytest.mark.parametrize(
    "reply",
    [
        WitnessReply(200, b""),
        WitnessReply(200, b"\xff"),
        WitnessReply(200, "— w0.example/witness AAAAAAAA\n".encode()),
        WitnessReply(403, b"no"),
        WitnessReply(409, b"nonsense"),
        WitnessReply(409, b"1000000\n"),
        WitnessReply(409, b"0\n"),
        WitnessReply(422, b""),
        WitnessReply(500, b""),
    ],
    ids=lambda reply: f"{reply.status}-{len(reply.body)}",
)
def test_a_lying_witness_stops_nothing_and_a_true_one_makes_the_quorum(make_world, reply: WitnessReply) -> None:
    world = make_world(witness_count=2, threshold=1)
    world.create()
    log = world.open()
    world.witnesses[0].reply = lambda _: reply
    log.start()
    grow(log, 2)
    log.wait_witnessed(3)
    assert set(published(world).witness_times) == {"w1"}
    time.sleep(0.15)
    assert log.uncertain == []


def test_a_cosignature_by_another_key_is_not_taken(make_world) -> None:
    world = make_world(witness_count=2, threshold=2)
    world.create()
    log = world.open()
    liar, other = world.witnesses
    liar.reply = other.add_checkpoint
    log.start()
    grow(log, 1)
    time.sleep(0.3)
    assert log.sequencer.head.witnessed_size == 0


def test_a_witness_that_turns_out_to_be_ahead_ends_the_log(make_world) -> None:
    ours, theirs = make_world(name="ours"), make_world(name="theirs")
    ours.create("governance genesis")
    theirs.create("governance other", "alpha one", "alpha two")
    # The same keys sign another history elsewhere: what a copied key file leads to.
    theirs.keys, theirs.policy, theirs.witnesses = ours.keys, ours.policy, ours.witnesses
    log = ours.open()
    theirs_log = theirs.open().start()
    theirs_log.wait_witnessed(3)
    log.start()
    until = time.monotonic() + 5
    while not log.uncertain and time.monotonic() < until:
        time.sleep(0.005)
    assert "signed for more entries" in str(log.uncertain[0])


# Starts


def test_a_start_waits_until_a_quorum_has_answered(make_world) -> None:
    world = make_world(witness_count=3, threshold=2)
    world.create()
    for witness in world.witnesses[1:]:
        witness.is_away = True
    opened: list[object] = []
    opening = threading.Thread(target=lambda: opened.append(world.open()))
    opening.start()
    time.sleep(0.1)
    assert opened == []
    world.witnesses[2].is_away = False
    opening.join(5)
    assert len(opened) == 1


def test_a_start_that_is_told_to_end_does(world) -> None:
    world.witnesses[0].is_away = True
    world.stopping.set()
    with pytest.raises(UnavailableError):
        world.open()


def test_a_witness_that_is_ahead_or_elsewhere_stops_the_start(make_world) -> None:
    ours, theirs = make_world(name="ours"), make_world(name="theirs")
    theirs.keys, theirs.policy, theirs.witnesses = ours.keys, ours.policy, ours.witnesses
    ours.create("governance genesis", "alpha one")
    theirs.create("governance other")
    theirs_log = theirs.open().start()
    theirs_log.wait_witnessed(1)
    with pytest.raises(UncertainStateError, match="another root"):
        ours.open()
    grow(theirs_log, 2)
    theirs_log.wait_witnessed(3)
    with pytest.raises(UncertainStateError, match="more entries"):
        ours.open()


def test_one_witness_that_is_ahead_is_enough_to_stop_though_a_quorum_is_not(make_world) -> None:
    world = make_world(witness_count=3, threshold=1)
    world.create()
    log = world.open().start()
    grow(log, 1)
    log.wait_witnessed(2)
    log.close()
    # The others make the quorum, and have nothing to say: the one that has is asked all the same.
    ahead = next(witness for witness in world.witnesses if witness.recorded)
    others = [witness for witness in world.witnesses if witness is not ahead]
    for witness in others:
        witness.recorded.clear()
    with pytest.raises(UncertainStateError, match="more entries"):
        check_not_behind([*others, ahead], ORIGIN, world.policy, MerkleTree(), threading.Event())


ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"


class Showing:
    """A witness that shows what it is given."""

    names = ("w0",)

    def __init__(self, reply: WitnessReply) -> None:
        self.reply = reply

    def add_checkpoint(self, request: bytes) -> WitnessReply:
        raise AssertionError

    def latest(self, origin: str) -> WitnessReply:
        return self.reply


def test_silent_witnesses_are_named_and_asked_ever_less_often(make_world) -> None:
    world = make_world(witness_count=1, threshold=1)
    world.create()
    log = world.open()

    class Patience:
        """Ends the wait after seven pauses."""

        def __init__(self) -> None:
            self.waited: list[float] = []

        def wait(self, seconds: float) -> bool:
            self.waited.append(seconds)
            return len(self.waited) == 7

    patience = Patience()
    silent = Showing(WitnessReply(500, b""))
    with structlog.testing.capture_logs() as lines, pytest.raises(UnavailableError):
        check_not_behind([silent], ORIGIN, world.policy, log.history.tree, cast(threading.Event, patience))
    assert patience.waited == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert {(line["event"], line["witness"]) for line in lines} == {("witnesses_awaited", "w0")}


@pytest.mark.parametrize("status", [200, 301, 403, 500])
@pytest.mark.parametrize("body", [b"", b"rubbish\n\nmore\n"])
def test_an_answer_that_proves_nothing_counts_as_silence(world, status: int, body: bytes) -> None:
    stopping = threading.Event()
    stopping.set()
    log = world.open()
    with pytest.raises(UnavailableError):
        check_not_behind(
            [Showing(WitnessReply(status, body))], ORIGIN, world.policy, log.history.tree, stopping
        )


def test_a_note_that_the_witness_itself_has_not_signed_counts_as_silence(world) -> None:
    log = world.open().start()
    grow(log, 1)
    stopping = threading.Event()
    stopping.set()
    # Signed by the log alone: an old one, copied by anybody.
    showing = Showing(WitnessReply(200, log.sequencer.head.note))
    with pytest.raises(UnavailableError):
        check_not_behind([showing], ORIGIN, world.policy, log.history.tree, stopping)
    log.wait_witnessed(2)
    witnessed = log.sequencer.head.witnessed_note
    showing.reply = WitnessReply(500, witnessed)
    with pytest.raises(UnavailableError):
        check_not_behind([showing], ORIGIN, world.policy, log.history.tree, stopping)
    showing.reply = WitnessReply(200, witnessed)
    check_not_behind([showing], ORIGIN, world.policy, log.history.tree, stopping)


def test_a_note_of_another_log_of_the_policy_stops_nothing(world) -> None:
    other, log = "another.example/log", world.open()
    keys = LogKeys.generate()
    both = TrustPolicy(
        (*world.policy.logs, TrustedLog(other, (keys.note_signer(other).key, keys.cosigner(other).key))),
        world.policy.witnesses, world.policy.groups, world.policy.quorum,
    )
    text = format_checkpoint(Checkpoint(other, 10**6, leaf_hash(b"elsewhere")))
    lines = (
        keys.note_signer(other).sign(text), keys.cosigner(other).cosign(text, 1_760_000_000),
        world.witnesses[0].cosigner.cosign(text, 1_760_000_000),
    )
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(UnavailableError):
        check_not_behind(
            [Showing(WitnessReply(200, format_note(Note(text, lines))))], ORIGIN, both, log.history.tree, stopping
        )


def test_a_quorum_of_none_asks_nobody(world) -> None:
    alone = TrustPolicy(world.policy.logs, (), (), "none")
    check_not_behind([], ORIGIN, alone, world.open().history.tree, threading.Event())


# Over HTTP


class WitnessHandler(http.server.BaseHTTPRequestHandler):
    """Answers as its server is told."""

    def do_GET(self) -> None:
        self.server.answer(self, b"")

    def do_POST(self) -> None:
        self.server.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., HttpWitness]]:
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: Callable[[WitnessHandler, bytes], None], timeout_seconds: float = 5.0) -> HttpWitness:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), WitnessHandler)
        server.answer = answer
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/w"
        return HttpWitness(("w0",), url + "/", url, timeout_seconds=timeout_seconds)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_endpoints_are_asked_as_the_protocol_says(serve) -> None:
    asked: list[tuple[str, str, bytes]] = []

    def answer(handler: WitnessHandler, body: bytes) -> None:
        asked.append((handler.command, handler.path, body))
        handler.reply(200, b"answer")

    witness = serve(answer)
    assert witness.add_checkpoint(b"request") == WitnessReply(200, b"answer")
    assert witness.latest("origin") == WitnessReply(200, b"answer")
    digest = hashlib.sha256(b"origin").hexdigest()
    assert asked == [("POST", "/w/add-checkpoint", b"request"), ("GET", f"/w/{digest}/checkpoint", b"")]


def test_a_whole_log_is_witnessed_over_http(world, serve) -> None:
    memory = world.witnesses[0]

    def answer(handler: WitnessHandler, body: bytes) -> None:
        reply = memory.add_checkpoint(body) if handler.command == "POST" else memory.latest(ORIGIN)
        handler.reply(reply.status, reply.body)

    log = world.open([serve(answer)]).start()
    grow(log, 3)
    log.wait_witnessed(4)


def test_an_answer_over_the_bound_is_no_answer(serve) -> None:
    witness = serve(lambda handler, _: handler.reply(200, bytes(ANSWER_BYTES_MAX + 1)))
    with pytest.raises(UnavailableError, match="longer"):
        witness.latest("origin")
    witness = serve(lambda handler, _: handler.reply(200, bytes(ANSWER_BYTES_MAX)))
    assert len(witness.latest("origin").body) == ANSWER_BYTES_MAX


def test_a_redirect_is_not_followed(serve) -> None:
    witness = serve(lambda handler, _: handler.reply(302, b"", (("Location", "http://127.0.0.1:1/"),)))
    assert witness.latest("origin").status == 302


@pytest.mark.parametrize(
    "raw", [b"", b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200]
)
def test_a_broken_answer_is_no_answer(serve, raw: bytes) -> None:
    def answer(handler: WitnessHandler, _: bytes) -> None:
        handler.wfile.write(raw)

    with pytest.raises(UnavailableError):
        serve(answer).latest("origin")


def test_an_answer_that_drips_is_cut_off(serve) -> None:
    going = threading.Event()

    def answer(handler: WitnessHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not going.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            pass

    begun = time.monotonic()
    witness = serve(answer, timeout_seconds=0.3)
    with pytest.raises(UnavailableError):
        witness.latest("origin")
    assert time.monotonic() - begun < 3
    going.set()


def test_nobody_there_is_no_answer() -> None:
    witness = HttpWitness(("w0",), "http://127.0.0.1:9/", "http://127.0.0.1:9/", timeout_seconds=0.5)
    with pytest.raises(UnavailableError):
        witness.latest("origin")


@pytest.mark.parametrize(
    "url", ["", "ftp://host/", "http://", "host/path", "http://host:x/", "http://host/?q", "http://host/#f",
            "http://user@host/", "http://host/ with space", "http://höst/", "http://host/\n"]
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(MalformedError):
        HttpWitness(("w0",), url, "http://host/")
    with pytest.raises(MalformedError):
        HttpWitness(("w0",), "http://host/", url)
