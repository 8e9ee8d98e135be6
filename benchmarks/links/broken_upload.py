"""One upload over a bad link that is cut again and again: whether it completes, and what it sends.

Cuts come by what the link has carried up, evenly over the upload and a little at random, whatever the sender knows of
its progress: they find it in handshakes, in chunks, and between them.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.links.shape import Link, Shape, Traffic
from benchmarks.links.shaped_link import can_shape, shaped_link
from benchmarks.links.throttling_proxy import throttling_proxy
from benchmarks.uploads.site import GRID, SPARSE, UploadSite, name_of
from sfrl_secure.sparse.encode import EncodedUpdate, encode_update
from sfrl_secure.wire.uploads import Chunk, encode_upload_start

CUT_SECONDS = 0.3
HANDSHAKE_BYTES = 2_000
"""What a new connection sends up before the first request, roughly."""

TIMEOUT_SECONDS = 1_800.0

CHUNK_BYTES_MAX = 8_700
"""What counts as one chunk at most: about two seconds of 32 kbit/s, which is the first, of 8 KiB and the envelope."""

_LOOK_SECONDS = 0.02
_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class BrokenUpload:
    """How an upload went.

    Attributes:
        message_bytes: of one request with the envelope and the whole payload.
        envelope_bytes: of a request with the envelope alone, which begins each call anew.
        requests: length of each request that was handed to gRPC, call by call.
        cuts: that were made before it was admitted.
    """

    seconds: float
    message_bytes: int
    envelope_bytes: int
    requests: list[list[int]]
    cuts: int
    index: int
    traffic: Traffic

    @property
    def calls(self) -> int:
        """Calls that it took."""
        return len(self.requests)

    @property
    def request_bytes(self) -> int:
        """Of all requests, in all calls."""
        return sum(map(sum, self.requests))

    @property
    def longest_request_bytes(self) -> int:
        """Of all requests."""
        return max(map(max, filter(None, self.requests)))

    @property
    def chunk_bytes_median(self) -> float:
        """Of the requests that hold a chunk: each but the envelope alone."""
        chunks = [each for call in self.requests for each in call if each != self.envelope_bytes]
        return statistics.median(chunks)

    @property
    def cut_chunks(self) -> list[int]:
        """The chunk that was in use when a call was cut: the last that was handed over. One for each cut at most."""
        last = sorted(min(call[-1], CHUNK_BYTES_MAX) for call in self.requests[:-1] if call)
        return last[-self.cuts :] if self.cuts else []

    @property
    def share(self) -> float:
        """What was sent beyond one chunk a cut, in proportion to the message."""
        return (self.request_bytes - sum(self.cut_chunks)) / self.message_bytes


def link_of(shape: Shape) -> AbstractContextManager[Link]:
    """A link of this shape: a namespace's where this process may make one, else a proxy's."""
    return shaped_link(shape) if can_shape() else throttling_proxy(shape)


def sparse_update(payload_bytes: int, coordinates: int, rng: np.random.Generator) -> EncodedUpdate:
    """An int8 update of about this length."""
    nonzeros = payload_bytes // 2
    for _ in range(3):  # what a coordinate costs depends little on how many there are
        indices = np.sort(rng.choice(coordinates, nonzeros, replace=False)).astype(np.int64)
        values = rng.normal(0.0, 0.01, nonzeros)
        encoded = encode_update(coordinates, indices, values, value_type="int8", grid_exponent=GRID, rng=rng)
        nonzeros = nonzeros * payload_bytes // len(encoded.payload)
    return encoded


def upload_over(
    link: Link, site: UploadSite, encoded: EncodedUpdate, folder: Path, *, cuts: int, seed: int = 7
) -> BrokenUpload:
    """Send an update from the far end, and cut the link `cuts` times meanwhile."""
    signed = site.sign(name_of(0), SPARSE, encoded)
    path = folder / "far.update"
    signed.write(path)
    profile = site.federation.folder.participant(signed.profile.name) / "profile.toml"
    command = [sys.executable, "-m", "benchmarks.links.far_sender", str(profile), str(path)]
    with (folder / "far.log").open("ab") as log:
        process = subprocess.Popen(
            link.far_command([*command, link.far_address(site.address)]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=_REPOSITORY,
            start_new_session=True,
        )
    timer = threading.Timer(TIMEOUT_SECONDS, process.kill)
    timer.start()
    cutter = _Cutter(link, len(encoded.payload) / (cuts + 1) + HANDSHAKE_BYTES, cuts, random.Random(seed))
    cutter.start()
    try:
        sent = _read_to_end(process)
    finally:
        cutter.stop()
        timer.cancel()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    message = encode_upload_start(signed.envelope, Chunk(0, encoded.payload))
    return BrokenUpload(
        seconds=sent["seconds"],
        message_bytes=len(message),
        envelope_bytes=len(encode_upload_start(signed.envelope)),
        requests=sent["requests"],
        cuts=cutter.made,
        index=sent["index"],
        traffic=link.traffic,
    )


def _read_to_end(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Give the far end's last words."""
    assert process.stdout is not None
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if "sent" in said:
            return dict(said["sent"])
    raise RuntimeError("the far end ended before its upload was admitted: see far.log")


class _Cutter(threading.Thread):
    """Cuts a link each time that it has carried about so many bytes up."""

    def __init__(self, link: Link, every_bytes: float, cuts: int, rng: random.Random) -> None:
        super().__init__(name="cutter", daemon=True)
        self._link, self._every_bytes, self._cuts, self._rng = link, every_bytes, cuts, rng
        self._ending = threading.Event()
        self.made = 0

    def run(self) -> None:
        """Cut until it is enough, or nobody sends any more."""
        while self.made < self._cuts:
            due = self._link.traffic.delivered_up_bytes + self._every_bytes * self._rng.uniform(0.6, 1.0)
            while self._link.traffic.delivered_up_bytes < due:
                if self._ending.wait(_LOOK_SECONDS):
                    return
            self._link.cut(CUT_SECONDS)
            self.made += 1

    def stop(self) -> None:
        """Cut no more."""
        self._ending.set()
        self.join()
