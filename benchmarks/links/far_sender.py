"""The far end of a link: sends one update that was signed before, with the SDK's own upload, and says how it goes.

    python -m benchmarks.links.far_sender PROFILE UPDATE ADDRESS

A JSON object a line: what is durable, as it is learnt; at the end what was handed to gRPC, counted here and not by the
SDK.

Runs in: a developer's machine, at the far end of a link.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sfrl_secure.limits import UPDATE_HEADER_BYTES_MAX
from sfrl_secure.participant.profile import read_profile
from sfrl_secure.rpc.channel import RpcChannel, RpcStream
from sfrl_secure.rpc.sources import FileSource
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.rpc.uploads import Uploader
from sfrl_secure.wire.entries import parse_envelope

DEADLINE_SECONDS = 1_800.0


@dataclass(slots=True)
class Handed:
    """Request messages that were handed to gRPC: how long each is, call by call."""

    calls: list[list[int]] = field(default_factory=list)


class CountedChannel(RpcChannel):
    """A channel that counts what is handed to it."""

    def counting(self, handed: Handed) -> CountedChannel:
        """Count into `handed`."""
        self._handed = handed
        return self

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        """Call a method, and count the requests as gRPC draws them."""
        self._handed.calls.append([])
        return super().exchange(
            path, self._counted(requests, self._handed.calls[-1]), deadline_seconds=deadline_seconds
        )

    @staticmethod
    def _counted(requests: Iterator[bytes], lengths: list[int]) -> Iterator[bytes]:
        for request in requests:
            lengths.append(len(request))
            yield request


def main() -> None:
    """Send, and say how it goes."""
    profile, path, address = read_profile(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
    with path.open("rb") as file:
        length = int.from_bytes(file.read(4), "little")
        envelope = parse_envelope(file.read(length), UPDATE_HEADER_BYTES_MAX)
    handed, begun = Handed(), time.monotonic()
    channel = CountedChannel(
        address, role="gatekeeper", trust_domain=profile.trust_domain, tls=profile.open_tls()
    ).counting(handed)
    with channel, FileSource(path, start=4 + length) as source:
        sent = Uploader(channel, Patience()).send(
            envelope,
            source,
            deadline_seconds=DEADLINE_SECONDS,
            on_progress=lambda durable, _size: print(json.dumps({"durable": durable}), flush=True),
        )
    said = {
        "seconds": time.monotonic() - begun,
        "index": sent.admitted.logged.index,
        "sdk_request_bytes": sent.request_bytes,
        "requests": handed.calls,
    }
    print(json.dumps({"sent": said}), flush=True)


if __name__ == "__main__":
    main()
