"""Upload streams: requests in any order, of any size, with anything in them, over calls that break.

A case is a script: records of one byte, a length of three bytes, and a message. The byte says what comes after the
message: the next one, the end of the call, its end in an error, or its end and a next call to another gatekeeper. A
reader of our own says what the gatekeeper has after each message, and what the last call must end with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.errors import DeniedError, MalformedError, SfrlError, UnavailableError
from sfrl_secure.ids import sha256
from sfrl_secure.services.gatekeeper import uploads as intake_module
from sfrl_secure.services.gatekeeper.admit import Submission
from sfrl_secure.services.gatekeeper.arrivals import CallEndedError
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2 as messages
from sfrl_secure.wire.uploads import Chunk, encode_chunk, encode_upload_start, parse_upload_start

from .mutators import change_field, flip_bits, insert, remove, truncate
from .upload_world import PEER, SignedPayload, Site, inline_site, judge_of, key, threaded_site, updates

_MORE, _END, _BREAK, _ELSEWHERE = range(4)
_HEAD_BYTES = 4
_CHUNK_BYTES_MAX = 2**20
_SAY_BYTES = 64
_CALLS_MAX = 8

Record = tuple[int, bytes]


def check_upload_stream(raw: bytes) -> None:
    """Play a script to gatekeepers that read in the order in which it comes."""
    _play(raw, inline_site())


def check_upload_threads(raw: bytes) -> None:
    """Play it to gatekeepers whose threads receive and decode; what is refused first is then not always the same."""
    try:
        _play(raw, threaded_site())
    except SfrlError:
        raise MalformedError("refused") from None


def _play(raw: bytes, site: Site) -> None:
    site.forget_all()
    ended: SfrlError | None = None
    for number, (messages_of_call, end) in enumerate(_calls(read_script(raw))[:_CALLS_MAX]):
        try:
            _call(site, number % 2 if end == _ELSEWHERE else 0, messages_of_call, end)
        except (UnavailableError, MalformedError) as error:
            ended = error
            continue
        return
    raise ended or MalformedError("nothing was sent")


def _call(site: Site, which: int, sent: list[bytes], end: int) -> None:
    """Make one call; return where the update was admitted.

    Raises:
        SfrlError: what the call ended with.
    """
    start = parse_upload_start(sent[0])
    signed = _known(start.envelope)
    assert encode_upload_start(start.envelope, start.chunk) == sent[0], "a request is taken in another form"
    reader = _Reader(signed, max(site.left(start.envelope), key=len, default=b""))
    request = Submission(PEER, start.envelope_raw, start.envelope, start.update, sha256(sent[0]))
    said = 0
    with _often(site), site.intakes[which].payload(request, start.chunk, _requests(reader, sent, end)) as payload:
        reader.take_first(start.chunk)
        try:
            receiving = payload.receive(judge_of(start.update), lambda: None)
            for durable in receiving:
                assert said <= durable <= len(reader.content), "more is said to be durable than came"
                assert any(len(each) >= durable for each in site.left(start.envelope)), "it is not where it would be"
                said = durable
            payload.keep()
        except DeniedError as denied:
            payload.drop()
            reader.check_end(denied.reason)
            assert not site.left(start.envelope), "something is left of what was refused"
            raise
        except CallEndedError as ended:
            reader.check_end("UnavailableError")
            raise ended.error from None
        except SfrlError as error:
            reader.check_end(type(error).__name__)
            raise
    reader.check_end("admitted")
    assert site.objects.get(signed.update.payload_sha256, 2**20) == signed.payload
    assert not site.left(start.envelope), "something is left of what was admitted"


def _requests(reader: _Reader, sent: list[bytes], end: int) -> Iterator[bytes]:
    for message in sent[1:]:
        reader.take(message)
        yield message
    reader.has_ended = True
    if end == _BREAK:
        raise UnavailableError("the caller has gone")


def _known(envelope: Envelope) -> SignedPayload:
    for each in updates():
        if each.envelope == envelope:
            return each
    verify_single(envelope, key().public_key)
    raise AssertionError("a signature holds for what was never signed")


@contextmanager
def _often(site: Site) -> Iterator[None]:
    """Let gatekeepers say how far they are after a few bytes, and receive as the site does."""
    before = intake_module.SAY_BYTES, intake_module.Arrivals
    intake_module.SAY_BYTES, intake_module.Arrivals = _SAY_BYTES, site.arrivals  # type: ignore[misc]
    try:
        yield
    finally:
        intake_module.SAY_BYTES, intake_module.Arrivals = before  # type: ignore[misc]


class _Reader:
    """What a gatekeeper has of a payload, by the words of the specification, and where the requests went wrong."""

    def __init__(self, signed: SignedPayload, held: bytes) -> None:
        self._signed = signed
        self._size = signed.update.payload_bytes
        self._repeated = 0
        self._is_broken = False
        self._held = len(held)
        self.content = held
        self.has_ended = False

    def take_first(self, chunk: Chunk | None) -> None:
        if chunk is not None:
            self._place(chunk.offset, bytes(chunk.data))

    def take(self, message: bytes) -> None:
        """Take a request that is not the first: protobuf in canonical form, a chunk and nothing else."""
        if len(self.content) == self._size:
            return  # it was decided before
        try:
            parsed = messages.SubmitUpdateRequest.FromString(message)
        except Exception:  # noqa: BLE001 - whatever protobuf raises: it is no message
            self._is_broken = True
            return
        parsed.DiscardUnknownFields()
        is_canonical = parsed.SerializeToString(deterministic=True) == message
        if not is_canonical or parsed.HasField("envelope") or not 1 <= len(parsed.chunk) <= _CHUNK_BYTES_MAX:
            self._is_broken = True
            return
        self._place(parsed.offset, parsed.chunk)

    def _place(self, offset: int, data: bytes) -> None:
        here, end = len(self.content), offset + len(data)
        self._repeated += min(here, end) - offset
        if offset > here or end > self._size or self._repeated > self._size:
            self._is_broken = True
        if not self._is_broken:
            self.content += data[max(here - offset, 0) :]

    def check_end(self, what: str) -> None:
        """Check that a call may end so."""
        is_whole = len(self.content) == self._size
        if self.content == self._signed.payload:
            wanted = {"admitted" if self._signed.is_admitted else "norm_limit"}
            # A first chunk that is no part of it, beside all of it that lay here.
            wanted |= {"MalformedError"} if self._is_broken else set()
        elif self._signed.payload.startswith(self.content):
            wanted = {"MalformedError"} if self._is_broken else {"UnavailableError"}
        else:
            # Foul bytes: found where a leaf is whole, unless the call ended before.
            wanted = {"UnavailableError" if self._held else "digest_mismatch"}
            wanted |= set() if is_whole and not self._is_broken else {"MalformedError", "UnavailableError"}
        assert what in wanted, f"a call ended as {what}, and not as {sorted(wanted)}"


# Scripts


def read_script(raw: bytes) -> list[Record]:
    """The records of a script, as many as there are."""
    found, at = [], 0
    while len(raw) - at >= _HEAD_BYTES and len(found) < 200:
        length = int.from_bytes(raw[at + 1 : at + _HEAD_BYTES], "big")
        found.append((raw[at] % 4, raw[at + _HEAD_BYTES : at + _HEAD_BYTES + length]))
        at += _HEAD_BYTES + length
    return found


def write_script(records: Sequence[Record]) -> bytes:
    """The script of some records."""
    return b"".join(bytes([kind]) + len(message).to_bytes(3, "big") + message for kind, message in records)


def _calls(records: Sequence[Record]) -> list[tuple[list[bytes], int]]:
    calls: list[tuple[list[bytes], int]] = []
    sent: list[bytes] = []
    for kind, message in records:
        sent.append(message)
        if kind != _MORE:
            calls.append((sent, kind))
            sent = []
    return [*calls, (sent, _END)] if sent else calls


def stream_seeds() -> tuple[bytes, ...]:
    """Uploads as they may go: at once, in chunks, over calls that broke, with bytes sent twice, elsewhere."""
    found = []
    for each in updates():
        size = len(each.payload)
        found += [
            write_script([(_END, encode_upload_start(each.envelope, Chunk(0, each.payload)))]),
            write_script([(_MORE, encode_upload_start(each.envelope)), *_chunks(each, 0, size, 64, _END)]),
            write_script([(_MORE, _first(each, 0, 28)), *_chunks(each, 28, size, 150, _END)]),
            write_script([(_MORE, _first(each, 0, 64)), *_chunks(each, 40, 120, 30, _BREAK),
                          (_MORE, encode_upload_start(each.envelope)), *_chunks(each, 0, size, 70, _END)]),
            write_script([(_BREAK, _first(each, 0, 1)), (_ELSEWHERE, _first(each, 0, 200)),
                          (_MORE, _first(each, 100, 230)), *_chunks(each, 230, size, 90, _ELSEWHERE)]),
            write_script([(_MORE, _first(each, 0, 64)), *_chunks(each, 64, size - 1, 100, _BREAK),
                          (_END, _first(each, size - 1, size))]),
        ]
    return tuple(found)


def _first(each: SignedPayload, begin: int, end: int) -> bytes:
    return encode_upload_start(each.envelope, Chunk(begin, each.payload[begin:end]))


def _chunks(each: SignedPayload, begin: int, end: int, size: int, last: int) -> list[Record]:
    found = [(_MORE, encode_chunk(Chunk(at, each.payload[at : min(at + size, end)]))) for at in range(begin, end, size)]
    return [*found[:-1], (last, found[-1][1])]


def mutate_stream(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Change what is sent, or when: one to three things."""
    records = read_script(raw)
    for _ in range(random.choice((1, 1, 2, 3))):
        if not records:
            break
        at = random.randrange(len(records))
        kind, message = records[at]
        what = random.random()
        if what < 0.1:
            del records[at]
        elif what < 0.2:
            records.insert(random.randint(0, len(records)), records[at])
        elif what < 0.3:
            to = random.randrange(len(records))
            records[at], records[to] = records[to], records[at]
        elif what < 0.4:
            records[at] = (random.randrange(4), message)
        elif what < 0.45:
            records.insert(at, random.choice(read_script(random.choice(others))))
        elif what < 0.75:
            records[at : at + 1] = [(kind if more else _MORE, each) for more, each in _changed(random, message)]
        else:
            damage = random.choice((flip_bits, truncate, remove, insert, change_field, change_field))
            records[at] = (kind, damage(random, message, [each for _, each in records]))
    return write_script(records)


def _changed(random: Random, message: bytes) -> list[tuple[bool, bytes]]:
    """A chunk that begins elsewhere, has other bytes, or is two; in canonical form. Whether a message is the last."""
    try:
        parsed = messages.SubmitUpdateRequest.FromString(message)
    except Exception:  # noqa: BLE001 - whatever protobuf raises: it is no message
        return [(True, message)]
    data, what = bytearray(parsed.chunk), random.randrange(7)
    if what == 0:
        near = (parsed.offset + 1, max(parsed.offset - 1, 0), max(parsed.offset - 30, 0), parsed.offset + len(data))
        parsed.offset = random.choice((*near, 0, 2**63 - 1, 2**63, 2**64 - 1, random.randrange(400))) % 2**64
    elif what == 1 and data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif what == 2:
        data += random.choice((b"x", bytes(40), bytes(1_000)))
    elif what == 3:
        data = data[: random.randint(0, len(data))]
    elif what == 4 and len(data) > 1:
        half = random.randrange(1, len(data))
        parsed.chunk = bytes(data[:half])
        return [(False, parsed.SerializeToString(deterministic=True)),
                (True, encode_chunk(Chunk(parsed.offset % 2**63, bytes(data[half:]))))]
    elif what == 5 and random.random() < 0.02:
        data = bytearray(_CHUNK_BYTES_MAX + random.choice((0, 1)))
    elif random.random() < 0.3:
        parsed.envelope.MergeFrom(messages.SubmitUpdateRequest.FromString(b"\x0a\x00").envelope)
    parsed.chunk = bytes(data)
    return [(True, parsed.SerializeToString(deterministic=True))]
