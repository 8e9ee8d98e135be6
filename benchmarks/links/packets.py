"""As much of IPv4 and TCP as a link needs that breaks connections: who acknowledged what, and a reset that is believed.

A receiver takes a reset only with exactly the number that it expects next (RFC 5961, section 3), which is what it last
acknowledged.

Runs in: a developer's machine.
Trusts: nothing; packets of another form are none of its flows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_TCP = 6
_SYN, _RST, _ACK, _FIN = 0x02, 0x04, 0x10, 0x01
_HEADERS = 40


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of a TCP connection: addresses and ports of the sender and of the receiver."""

    source: bytes
    target: bytes
    source_port: int
    target_port: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where the sender of a flow stands.

    Attributes:
        acknowledged: what it expects next of the other side.
        sent: the number after the last byte that it sent.
        has_ended: it has reset the connection, or sends nothing more.
    """

    acknowledged: int
    sent: int
    has_ended: bool = False


def read_packet(packet: bytes) -> tuple[Flow, Position] | None:
    """Whose packet it is; None where it is no TCP over IPv4."""
    if len(packet) < _HEADERS or packet[0] >> 4 != 4 or packet[9] != _TCP:
        return None
    begin = (packet[0] & 15) * 4
    if len(packet) < begin + 20:
        return None
    source_port, target_port, sequence, acknowledged, offset, flags = struct.unpack_from(">HHIIBB", packet, begin)
    length = len(packet) - begin - (offset >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
    flow = Flow(packet[12:16], packet[16:20], source_port, target_port)
    has_ended = bool(flags & (_RST | _FIN))
    return flow, Position(acknowledged if flags & _ACK else 0, (sequence + length) % 2**32, has_ended)


def reset_for(flow: Flow, position: Position) -> bytes:
    """A packet that the sender of `flow` takes for the other side's reset."""
    tcp = struct.pack(
        ">HHIIBBHHH",
        flow.target_port, flow.source_port, position.acknowledged, position.sent, 5 << 4, _RST | _ACK, 0, 0, 0,
    )  # fmt: skip
    pseudo = flow.target + flow.source + struct.pack(">BBH", 0, _TCP, len(tcp))
    tcp = tcp[:16] + struct.pack(">H", _checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, _HEADERS, 0, 0x4000, 64, _TCP, 0, flow.target, flow.source)
    return ip[:10] + struct.pack(">H", _checksum(ip)) + ip[12:] + tcp


def _checksum(raw: bytes) -> int:
    total = sum(struct.unpack(f">{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
