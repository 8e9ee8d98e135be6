"""What the links of the tests and benchmarks are: slow, lossy, and broken when they are cut."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.links.broken_upload import CHUNK_BYTES_MAX, BrokenUpload
from benchmarks.links.packets import Flow, Position, read_packet, reset_for
from benchmarks.links.shape import Link, Shape, Traffic
from benchmarks.links.shaped_link import can_shape, shaped_link
from benchmarks.links.throttling_proxy import throttling_proxy

FAST = Shape(bits_per_second=400_000.0, loss=0.0, delay_seconds=0.0, queue_bytes=16_384)
FLOW = Flow(bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), 40_000, 443)

CLIENT = """
import socket, sys
host, port = sys.argv[1].split(":")
with socket.create_connection((host, int(port)), 20) as connection:
    connection.settimeout(20)
    try:
        connection.sendall(bytes(int(sys.argv[2])))
        connection.shutdown(socket.SHUT_WR)
        print(connection.recv(100).decode())
    except ConnectionError:
        print("broken")
"""


def link_kinds() -> list[object]:
    needs_root = pytest.mark.skipif(not can_shape(), reason="this process may make no network namespaces")
    return [pytest.param(shaped_link, marks=needs_root, id="namespace"), pytest.param(throttling_proxy, id="proxy")]


@contextmanager
def counting_server(host: str) -> Iterator[str]:
    """Answers each connection with how many bytes it got."""

    def serve(connection: socket.socket) -> None:
        with connection:
            count = 0
            try:
                while data := connection.recv(65_536):
                    count += len(data)
                connection.sendall(str(count).encode())
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server((host, 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"{host}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def sending(link: Link, address: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CLIENT, link.far_address(address), str(count)]
    return subprocess.Popen(link.far_command(command), stdout=subprocess.PIPE)


@pytest.mark.parametrize("make", link_kinds())
def test_a_link_carries_everything_at_its_rate(make) -> None:
    with make(FAST) as link, counting_server(link.host) as address:
        begun = time.monotonic()
        said = sending(link, address, 50_000).communicate(timeout=30)[0].decode().strip()
        seconds = time.monotonic() - begun
    assert said == "50000"
    assert seconds > 0.8 * 50_000 * 8 / FAST.bits_per_second
    assert link.traffic.delivered_up_bytes >= 50_000


@pytest.mark.parametrize("make", link_kinds())
def test_a_link_that_loses_packets_still_carries_everything(make) -> None:
    lossy = Shape(bits_per_second=400_000.0, loss=0.05, delay_seconds=0.0, queue_bytes=16_384)
    with make(lossy) as link, counting_server(link.host) as address:
        said = sending(link, address, 40_000).communicate(timeout=60)[0].decode().strip()
    assert said == "40000"
    assert link.traffic.lost > 0


@pytest.mark.parametrize("make", link_kinds())
def test_a_cut_breaks_the_connection_and_the_next_one_is_whole(make) -> None:
    with make(FAST) as link, counting_server(link.host) as address:
        broken = sending(link, address, 500_000)
        deadline = time.monotonic() + 20.0
        while link.traffic.delivered_up_bytes < 10_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        link.cut(0.3)
        assert broken.communicate(timeout=20)[0].decode().strip() in ("broken", "")
        time.sleep(0.3)
        assert sending(link, address, 1_000).communicate(timeout=20)[0].decode().strip() == "1000"
    assert (link.traffic.cuts, link.traffic.resets) == (1, 1)


def packet(flow: Flow, sequence: int, acknowledged: int, flags: int, data: bytes = b"") -> bytes:
    tcp = struct.pack(
        ">HHIIBBHHH", flow.source_port, flow.target_port, sequence, acknowledged, 5 << 4, flags, 1_000, 0, 0
    )
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0, flow.source, flow.target)
    return ip + tcp + data


@pytest.mark.parametrize(
    ("flags", "data", "position"),
    [
        (0x10, b"abc", Position(700, 503)),
        (0x02, b"", Position(0, 501)),
        (0x11, b"", Position(700, 501, has_ended=True)),
        (0x14, b"", Position(700, 500, has_ended=True)),
    ],
)
def test_where_a_sender_stands_is_read_from_its_packet(flags: int, data: bytes, position: Position) -> None:
    assert read_packet(packet(FLOW, 500, 700, flags, data)) == (FLOW, position)


def test_what_is_no_tcp_over_ipv4_is_nobody_s() -> None:
    whole = packet(FLOW, 500, 700, 0x10)
    assert read_packet(b"\x60" + whole[1:]) is None
    assert read_packet(whole[:9] + b"\x11" + whole[10:]) is None
    assert read_packet(whole[:39]) is None
    assert read_packet(b"\x4f" + whole[1:]) is None


def test_a_reset_has_the_number_that_is_expected_next_and_right_checksums() -> None:
    raw = reset_for(FLOW, Position(acknowledged=700, sent=503))
    assert (raw[12:16], raw[16:20]) == (FLOW.target, FLOW.source)
    source_port, target_port, sequence, acknowledged, _, flags = struct.unpack_from(">HHIIBB", raw, 20)
    assert (source_port, target_port, sequence, acknowledged, flags) == (443, 40_000, 700, 503, 0x14)
    assert ones_sum(raw[:20]) == 0xFFFF
    assert ones_sum(raw[12:20] + struct.pack(">BBH", 0, 6, 20) + raw[20:]) == 0xFFFF


def ones_sum(raw: bytes) -> int:
    total = sum(struct.unpack(f">{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_what_an_upload_may_send_beyond_its_message_is_one_chunk_of_each_call_that_a_cut_broke() -> None:
    went = BrokenUpload(
        seconds=1.0, message_bytes=1_000, envelope_bytes=50, requests=[[500, 200], [50], [50, 150], [50, 350]],
        cuts=2, index=3, traffic=Traffic(),
    )  # fmt: skip
    assert (went.calls, went.request_bytes, went.longest_request_bytes) == (4, 1_350, 500)
    assert went.cut_chunks == [150, 200], "two cuts, the last chunk of each call, and the last call was not broken"
    assert went.share == 1.0
    assert went.chunk_bytes_median == 275
    assert replace(went, requests=[[10**6], [10]]).cut_chunks == [CHUNK_BYTES_MAX], "chunks are small on a slow link"
    assert replace(went, cuts=0).cut_chunks == []
