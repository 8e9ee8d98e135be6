"""A bad link between this host and a network namespace: real TCP, shaped packet by packet.

Two TUN devices, one here and one in the namespace, are joined by a thread that limits the rate, delays, drops by
chance, drops what no queue holds, and can cut: then nothing passes for a time, and both ends are told that their
connections are gone. It needs root and /dev/net/tun, and no netem.

Runs in: a developer's machine. Linux only.
Trusts: the kernel.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.links.packets import Flow, Position, read_packet, reset_for
from benchmarks.links.shape import Shape, Traffic

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_PACKET_MAX = 65_536
_LOOK_SECONDS = 0.05


def can_shape() -> bool:
    """Whether this process may make namespaces and TUN devices."""
    return os.geteuid() == 0 and Path(_TUN).exists() and Path("/usr/sbin/ip").exists()


class ShapedLink:
    """The link; made by `shaped_link`."""

    def __init__(self, shape: Shape, near: int, far: int, number: int, namespace: str) -> None:
        """Join two TUN devices; `near` is the host's."""
        self._shape = shape
        self._devices = (near, far)
        self._number = number
        self._namespace = namespace
        self._chance = random.Random(shape.seed)
        self._lock = threading.Lock()
        self._flows: dict[Flow, tuple[int, Position]] = {}
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._queued = {near: 0, far: 0}
        self._free_at = {near: 0.0, far: 0.0}
        self._order = 0
        self._cut_until: float | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, name="shaped-link", daemon=True)
        self.traffic = Traffic()

    @property
    def host(self) -> str:
        """The address at which services listen."""
        return _address(self._number, 1)

    def far_address(self, address: str) -> str:
        """The same: the far end reaches the host's address."""
        return address

    def far_command(self, command: Sequence[str]) -> list[str]:
        """Run in the namespace."""
        return ["/usr/sbin/ip", "netns", "exec", self._namespace, *command]

    def cut(self, seconds: float) -> None:
        """Let nothing through for a time, and break what was connected; returns at once."""
        with self._lock:
            self._cut_until = time.monotonic() + seconds
            self._waiting.clear()
            self._queued = dict.fromkeys(self._devices, 0)
            self.traffic.cuts += 1

    def start(self) -> None:
        """Begin to pass packets on."""
        self._thread.start()

    def stop(self) -> None:
        """Pass nothing on any more."""
        self._ending.set()
        self._thread.join()

    def _pass_on(self) -> None:
        while not self._ending.is_set():
            now = time.monotonic()
            with self._lock:
                if self._cut_until is not None and now >= self._cut_until:
                    self._cut_until = None
                    self._break_connections()
                due = [min((at for at, *_ in self._waiting[:1]), default=now + _LOOK_SECONDS)]
                due += [self._cut_until] if self._cut_until is not None else []
            ready, _, _ = select.select(self._devices, [], [], max(0.0, min(*due, now + _LOOK_SECONDS) - now))
            with self._lock:
                for device in ready:
                    self._take(device, os.read(device, _PACKET_MAX))
                self._deliver(time.monotonic())

    def _take(self, device: int, packet: bytes) -> None:
        """Lock held."""
        read = read_packet(packet)
        if read is None:
            return  # the kernel's own chatter
        flow, position = read
        self._flows[flow] = device, position
        upward = device == self._devices[1]
        if upward:
            self.traffic.up_bytes += len(packet)
        else:
            self.traffic.down_bytes += len(packet)
        if self._cut_until is not None:
            return
        if self._chance.random() < self._shape.loss:
            self.traffic.lost += 1
            return
        if self._queued[device] + len(packet) > self._shape.queue_bytes:
            self.traffic.overflowed += 1
            return
        # A device's packets leave one after the other, each for as long as the rate takes.
        begins = max(self._free_at[device], time.monotonic())
        self._free_at[device] = begins + len(packet) * 8 / self._shape.bits_per_second
        self._queued[device] += len(packet)
        self._order += 1
        arrives = self._free_at[device] + self._shape.delay_seconds
        heapq.heappush(self._waiting, (arrives, self._order, device, packet))

    def _deliver(self, now: float) -> None:
        """Lock held."""
        while self._waiting and self._waiting[0][0] <= now:
            _, _, device, packet = heapq.heappop(self._waiting)
            self._queued[device] -= len(packet)
            if device == self._devices[1]:
                self.traffic.delivered_up_bytes += len(packet)
            self._write(self._other(device), packet)

    def _break_connections(self) -> None:
        """Tell each end that is known that its connection is gone. Lock held."""
        for flow, (device, position) in self._flows.items():
            self._write(device, reset_for(flow, position))
        alive = [flow for flow, (_, position) in self._flows.items() if not position.has_ended]
        self.traffic.resets += (len(alive) + 1) // 2
        self._flows.clear()
        self._free_at = dict.fromkeys(self._devices, 0.0)

    def _other(self, device: int) -> int:
        return self._devices[0] if device == self._devices[1] else self._devices[1]

    @staticmethod
    def _write(device: int, packet: bytes) -> None:
        try:
            os.write(device, packet)
        except OSError:
            return  # the device is down: the packet is lost, as packets are


@contextmanager
def shaped_link(shape: Shape) -> Iterator[ShapedLink]:
    """Make a link; namespace and devices are gone at the end of the block."""
    number = os.getpid() % 16_000
    namespace, near_name, far_name = f"sfrl-{number}", f"sfrl{number}n", f"sfrl{number}f"
    with ExitStack() as undoing:
        _ip("netns", "add", namespace)
        undoing.callback(_ip, "netns", "del", namespace)
        devices = []
        for name in (near_name, far_name):
            devices.append(_open_tun(name))
            undoing.callback(os.close, devices[-1])
        _ip("link", "set", far_name, "netns", namespace)
        for inside, name, last in (([], near_name, 1), (["-n", namespace], far_name, 2)):
            _ip(*inside, "addr", "add", f"{_address(number, last)}/30", "dev", name)
            _ip(*inside, "link", "set", name, "mtu", str(shape.mtu), "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        link = ShapedLink(shape, devices[0], devices[1], number, namespace)
        link.start()
        undoing.callback(link.stop)
        yield link


def _open_tun(name: str) -> int:
    device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


def _address(number: int, last: int) -> str:
    """An address of the run's own /30 in 10.192.0.0/10."""
    offset = number * 4 + last
    return f"10.{192 + (offset >> 16)}.{offset >> 8 & 255}.{offset & 255}"


def _ip(*arguments: str) -> None:
    subprocess.run(["/usr/sbin/ip", *arguments], check=True, capture_output=True, timeout=10)
