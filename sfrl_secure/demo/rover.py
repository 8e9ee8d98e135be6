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
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.rpc.status import exit_code_of
from sfrl_secure.sparse.encode import encode_update
from sfrl_secure.sparse.topk import ErrorFeedback
from sfrl_secure.wire.gatekeeper_service import encode_submit_request
from sfrl_secure.wire.receipts import ReceiptKind

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
        self._feedback: ErrorFeedback | None = None
        self._rng = np.random.default_rng([seed, region])

    def run(self) -> None:
        """Take part until the segment's rounds are used up."""
        number, last = 0, None
        while True:
            opened = self._participant.open_round(SEGMENT, number, wait_seconds=_ROUND_SECONDS)
            if isinstance(opened, FinishedSegment):
                break
            number, last = opened.number, self._take_part(opened)
            say("submitted", round=number, bytes=last.request_bytes, index=last.index)
        if last is not None:
            for kind in (ReceiptKind.WITNESSED, ReceiptKind.COUNTED):
                self._participant.receipt(last, kind)
                say("receipt", kind=kind.name, path=str(self._participant.receipt_path(SEGMENT, number, kind)))

    def _take_part(self, opened: OpenRound) -> Submitted:
        terms = opened.terms.model
        model = self._participant.model(opened)
        samples = Samples(scale_features(self._features, scaling_of(terms.manifest)), self._eons)
        update = rover_update(
            model.to_float32(), terms.manifest, samples,
            region=self._region, seed=self._seed, round_number=opened.number, rounds=self._rounds,
        )  # fmt: skip
        if self._feedback is None:
            self._feedback = ErrorFeedback(terms.manifest.coordinates)
        indices, values = self._feedback.select(update, coordinates_to_send(terms.manifest))
        encoded = encode_update(
            terms.manifest.coordinates, indices, values,
            value_type="int8", grid_exponent=terms.grid_exponent, rng=self._rng,
        )  # fmt: skip
        statement = self._participant.update_of(opened, encoded.payload, encoded.update.nonzeros, len(samples))
        request = encode_submit_request(self._participant.sign(statement), encoded.payload)
        if opened.number == self._hold:
            (self._folder / HELD_NAME).write_bytes(request)
            say("holding", round=opened.number)
            sys.stdin.readline()
        (self._folder / SENT_NAME).write_bytes(request)
        submitted = self._participant.submit_update(statement, encoded.payload, encoded=encoded)
        # Only now: what is not admitted stays in the residual.
        self._feedback.keep(encoded.update, terms.grid_exponent)
        return submitted


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
    try:
        with Participant.from_profile(asked.profile) as participant:
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
