"""A rover, as its own process with its own keys and its own rocks: fetch, train, submit, keep the receipts.

It reads its profile and its rocks and nothing else of the federation's folder. One JSON line on standard output per
step; with `--hold N` it waits in round N, its update signed, for a line on standard input.

Runs in: demo.
Trusts: its profile. Nothing that arrives.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from sfrl_secure.demo.federation import SEGMENT
from sfrl_secure.demo.scaling import scale_features, scaling_of
from sfrl_secure.demo.task import coordinates_to_send, rover_update
from sfrl_secure.errors import SfrlError
from sfrl_secure.learning.mlp import use_one_thread
from sfrl_secure.learning.samples import Samples
from sfrl_secure.participant.membership import Training
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.update_receipt import UpdateReceipt
from sfrl_secure.rpc.logs import configure_logs
from sfrl_secure.rpc.status import exit_code_of
from sfrl_secure.wire.receipts import ReceiptKind
from sfrl_secure.wire.uploads import Chunk, encode_upload_start

HELD_NAME = "held-request.bin"
"""What a rover that waits is about to send; the demo's liar has listened."""

SENT_NAME = "sent-request.bin"
"""What a rover sent last, likewise."""

_ROUND_SECONDS = 180.0


class Rover:
    """One rover's learning, from round to round."""

    def __init__(
        self, participant: Participant, rocks: Path, *, region: int, seed: int, rounds: int, hold: int
    ) -> None:
        """Read the rover's rocks; train in `rounds` rounds; wait in round `hold`, 0 for never."""
        with np.load(rocks, allow_pickle=False) as found:
            self._features, self._eons = found["features"], found["eons"]
        self._participant = participant
        self._folder = rocks.parent
        self._region, self._seed, self._rounds, self._hold = region, seed, rounds, hold

    def run(self) -> None:
        """Take part until the segment's rounds are used up."""
        receipt: UpdateReceipt | None = None
        for training in self._participant.join(SEGMENT).rounds(wait_seconds=_ROUND_SECONDS):
            receipt = self._take_part(training)
            say("submitted", round=receipt.round, bytes=receipt.submitted.request_bytes, index=receipt.index)
        if receipt is not None:
            for kind in (ReceiptKind.WITNESSED, ReceiptKind.COUNTED):
                receipt.wait(kind)
                say("receipt", kind=kind.name, path=str(receipt.path(kind)))

    def _take_part(self, training: Training) -> UpdateReceipt:
        manifest = training.terms.model.manifest
        samples = Samples(scale_features(self._features, scaling_of(manifest)), self._eons)
        change = rover_update(
            training.model.vector(), manifest, samples,
            region=self._region, seed=self._seed, round_number=training.number, rounds=self._rounds,
        )  # fmt: skip
        signed = training.prepare(
            delta=change, num_samples=len(samples),
            density=coordinates_to_send(manifest) / manifest.coordinates, value_type="int8",
        )  # fmt: skip
        assert isinstance(signed.payload, memoryview)
        request = encode_upload_start(signed.envelope, Chunk(0, bytes(signed.payload)))
        if training.number == self._hold:
            (self._folder / HELD_NAME).write_bytes(request)
            say("holding", round=training.number)
            sys.stdin.readline()
        (self._folder / SENT_NAME).write_bytes(request)
        return training.send(signed)


def say(event: str, **fields: object) -> None:
    """Write one JSON line for whoever started us."""
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201 - the rover's one way to speak


def main() -> int:
    """Run one rover; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--rocks", type=Path, required=True)
    parser.add_argument("--region", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--hold", type=int, default=0)
    asked = parser.parse_args()
    use_one_thread()
    configure_logs("rover")  # standard output is for what the rover says
    try:
        rng = np.random.default_rng([asked.seed, asked.region])
        with Participant.from_profile(asked.profile, rng=rng) as participant:
            Rover(
                participant, asked.rocks,
                region=asked.region, seed=asked.seed, rounds=asked.rounds, hold=asked.hold,
            ).run()  # fmt: skip
    except SfrlError as error:
        say("failed", error=type(error).__name__, message=str(error))
        return exit_code_of(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
