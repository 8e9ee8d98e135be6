"""A bad link where no namespaces may be made: a TCP proxy that forwards slowly, stalls by chance, and cuts.

A byte stream cannot lose packets; what a loss costs is a wait for its retransmission, so that is what a lost piece
does here. A cut closes every connection with a reset and takes no new one for a time.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from benchmarks.links.shape import Shape, Traffic

_RETRANSMISSION_SECONDS = 0.4
_LOOK_SECONDS = 0.05
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)

_Pair = tuple[socket.socket, socket.socket]
"""The caller's connection, and the service's."""


class ThrottlingProxy:
    """The link; made by `throttling_proxy`."""

    def __init__(self, shape: Shape) -> None:
        """Forward nothing yet."""
        self._shape = shape
        self._chance = random.Random(shape.seed)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pairs: list[_Pair] = []
        self._listeners: dict[str, socket.socket] = {}
        self._free_at = [0.0, 0.0]
        self._cut_until = 0.0
        self._ending = threading.Event()
        self.traffic = Traffic()

    @property
    def host(self) -> str:
        """The address at which services listen."""
        return "127.0.0.1"

    def far_address(self, address: str) -> str:
        """The proxy's own address for that service."""
        with self._lock:
            if address not in self._listeners:
                listener = socket.create_server(("127.0.0.1", 0))
                listener.settimeout(_LOOK_SECONDS)
                self._listeners[address] = listener
                self._run(self._listen, listener, address)
            return f"127.0.0.1:{self._listeners[address].getsockname()[1]}"

    def far_command(self, command: Sequence[str]) -> list[str]:
        """The same command: the far end is here."""
        return list(command)

    def cut(self, seconds: float) -> None:
        """Reset all connections and take no new one for a time; returns at once."""
        with self._lock:
            self._cut_until = time.monotonic() + seconds
            self.traffic.cuts += 1
            self.traffic.resets += len(self._pairs)
            self._close_all()

    def stop(self) -> None:
        """Close everything."""
        self._ending.set()
        with self._lock:
            self._close_all()
        for thread in self._threads:
            thread.join()
        for listener in self._listeners.values():
            listener.close()

    def _run(self, target: object, *arguments: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self, listener: socket.socket, address: str) -> None:
        host, _, port = address.rpartition(":")
        while not self._ending.is_set():
            try:
                caller, _ = listener.accept()
            except TimeoutError:
                continue
            if time.monotonic() < self._cut_until:
                caller.close()
                continue
            try:
                service = socket.create_connection((host, int(port)), 5.0)
            except OSError:
                caller.close()
                continue
            # What the proxy takes in ahead of its rate, its peers believe delivered: it is little.
            for each in (caller, service):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._shape.queue_bytes)
            pair = (caller, service)
            with self._lock:
                self._pairs.append(pair)
            self._run(self._carry, pair)

    def _carry(self, pair: _Pair) -> None:
        """Forward both ways until both have ended; then close."""
        down = threading.Thread(target=self._forward, args=(pair[1], pair[0], 1), daemon=True)
        down.start()
        self._forward(pair[0], pair[1], 0)
        down.join()
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
                _close(pair, with_reset=False)

    def _forward(self, source: socket.socket, target: socket.socket, way: int) -> None:
        with suppress(OSError, ValueError):  # cut meanwhile
            while not self._ending.is_set():
                readable, _, _ = select.select([source], [], [], _LOOK_SECONDS)
                if not readable:
                    continue
                piece = source.recv(self._shape.mtu)
                if not piece:
                    target.shutdown(socket.SHUT_WR)
                    return
                self._wait_turn(len(piece), way)
                target.sendall(piece)
                if way == 0:
                    self.traffic.delivered_up_bytes += len(piece)

    def _wait_turn(self, length: int, way: int) -> None:
        with self._lock:
            if way == 0:
                self.traffic.up_bytes += length
            else:
                self.traffic.down_bytes += length
            begins = max(self._free_at[way], time.monotonic())
            self._free_at[way] = begins + length * 8 / self._shape.bits_per_second
            if self._chance.random() < self._shape.loss:
                self._free_at[way] += _RETRANSMISSION_SECONDS
                self.traffic.lost += 1
            until = self._free_at[way] + self._shape.delay_seconds
        time.sleep(max(0.0, until - time.monotonic()))

    def _close_all(self) -> None:
        """Lock held."""
        for pair in self._pairs:
            _close(pair, with_reset=True)
        self._pairs.clear()


def _close(pair: _Pair, *, with_reset: bool) -> None:
    for each in pair:
        if with_reset:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        each.close()


@contextmanager
def throttling_proxy(shape: Shape) -> Iterator[ThrottlingProxy]:
    """Make a link; its sockets are closed at the end of the block."""
    with ExitStack() as undoing:
        proxy = ThrottlingProxy(shape)
        undoing.callback(proxy.stop)
        yield proxy
