"""A sender of updates that were signed before: one process, a connection of its own for each participant.

It takes one JSON object a line on standard input and answers each with one. Messages are written and connections made
before a clock starts; the same messages go to the gatekeeper and to the sink.

    python -m benchmarks.uploads.sender

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks.uploads.sink import DROP
from sfrl_secure.limits import CHUNK_BYTES_MAX, UPDATE_HEADER_BYTES_MAX
from sfrl_secure.participant.profile import read_profile
from sfrl_secure.rpc.channel import service_dns_name
from sfrl_secure.wire.entries import parse_envelope
from sfrl_secure.wire.uploads import SUBMIT_UPDATE, Chunk, encode_chunk, encode_upload_start, parse_upload_answer

_CALL_SECONDS = 300.0


class Sender:
    """Sends as several participants."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}
        self._requests: dict[str, list[bytes]] = {}

    async def run(self, line: dict[str, Any]) -> dict[str, Any]:
        """Do what a line asks for."""
        kind = line.pop("do")
        if kind == "prepare":
            return await self.prepare(**line)
        if kind == "send":
            return await self.send(**line)
        if kind == "forget":
            return {"messages": len(self._requests.pop(line["file"]))}
        return await self.send_at_once(**line)

    async def prepare(self, file: str, profile: str, addresses: list[str]) -> dict[str, Any]:
        """Have an update's messages in memory, and its sender connected."""
        self._requests[file] = list(requests_of(Path(file)))
        for address in addresses:
            await self._connect(profile, address)
        return {"messages": len(self._requests[file]), "bytes": sum(map(len, self._requests[file]))}

    async def send(self, file: str, profile: str, address: str, sink: bool) -> dict[str, Any]:
        """Send a prepared update; give the seconds from the first message to the last answer."""
        channel = await self._connect(profile, address)
        requests = self._requests[file]
        begun = time.perf_counter()
        last = await self._exchange(channel, DROP if sink else SUBMIT_UPDATE, iter(requests))
        seconds = time.perf_counter() - begun
        if not sink:
            _check_admitted(last)
        return {"seconds": seconds}

    async def send_at_once(self, updates: list[dict[str, str]], address: str) -> dict[str, Any]:
        """Send several updates from their files, each as its own participant; give the seconds that all took."""
        channels = [await self._connect(each["profile"], address) for each in updates]
        begun = time.perf_counter()
        answers = await asyncio.gather(
            *(
                self._exchange(channel, SUBMIT_UPDATE, requests_of(Path(each["file"])))
                for channel, each in zip(channels, updates, strict=True)
            )
        )
        seconds = time.perf_counter() - begun
        for last in answers:
            _check_admitted(last)
        return {"seconds": seconds}

    @staticmethod
    async def _exchange(channel: grpc.aio.Channel, method: str, requests: Iterator[bytes]) -> bytes:
        call: Any = channel.stream_stream(method)(timeout=_CALL_SECONDS)
        last = b""
        for request in requests:
            await call.write(request)
        await call.done_writing()
        async for answer in call:
            last = answer
        return last

    async def _connect(self, path: str, address: str) -> grpc.aio.Channel:
        if (path, address) not in self._channels:
            profile = read_profile(Path(path))
            tls = profile.open_tls()
            channel = grpc.aio.secure_channel(
                address,
                grpc.ssl_channel_credentials(tls.service_roots, tls.key.expose(), tls.chain),
                (("grpc.ssl_target_name_override", service_dns_name("gatekeeper", profile.trust_domain)),),
            )
            await channel.channel_ready()
            self._channels[path, address] = channel
        return self._channels[path, address]


def requests_of(path: Path) -> Iterator[bytes]:
    """The messages of an update, from its file: the envelope with the first chunk, then a chunk each."""
    with path.open("rb") as file:
        envelope = parse_envelope(file.read(int.from_bytes(file.read(4), "little")), UPDATE_HEADER_BYTES_MAX)
        yield encode_upload_start(envelope, Chunk(0, file.read(CHUNK_BYTES_MAX)))
        offset = CHUNK_BYTES_MAX
        while data := file.read(CHUNK_BYTES_MAX):
            yield encode_chunk(Chunk(offset, data))
            offset += len(data)


def _check_admitted(answer: bytes) -> None:
    assert not isinstance(parse_upload_answer(answer), int), "the last answer is the receipt"


async def main() -> None:
    """Answer line by line until there are no more."""
    sender = Sender()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await sender.run(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
