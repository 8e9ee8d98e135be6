"""A Flower `NumPyClient` in a federation of sfrl-secure: the same client, without a change.

`take_part` is the adapter. It asks nothing of a client but its methods, so Flower need not be installed. Arrays go
over in the order of the segment's tensors, which is that of `get_parameters`; `num_examples` becomes the weight.

    python examples/flower_numpy_client.py --profile fed/participants/rover-1/profile.toml --segment example

Runs in: participant.
Trusts: what the participant's SDK does; the client is your own code.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = list[NDArray[Any]]


class NumPyClient(Protocol):
    """What Flower's class of this name has, and all that is called here."""

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        """Train from `parameters`; give the new ones, on how many examples, and metrics."""
        ...

    def evaluate(self, parameters: Arrays, config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Judge `parameters`; give the loss, on how many examples, and metrics."""
        ...


def take_part(client: NumPyClient, membership: Any, *, rounds: int | None = None, **options: Any) -> None:
    """Let a client fit in each round of a segment until there are no more, or for so many rounds.

    Args:
        membership: what `Participant.join` gives.
        options: of `Training.submit`: `density`, `value_type`, `noise_std` and others.
    """
    for done, training in enumerate(membership.rounds(), start=1):
        base, config = training.model.arrays(), {"server_round": training.number}
        loss, _, judged = client.evaluate(base, config)
        parameters, num_examples, metrics = client.fit(base, config)
        receipt = training.submit(parameters, num_samples=num_examples, **options)
        print(f"round {training.number}: loss {loss:.4f}, entry {receipt.index}", {**judged, **metrics})
        if done == rounds:
            print(f"counted in model {receipt.wait().model.hex()}")
            return


class LineClient:
    """A client to try it with: a linear model of 16 weights and a bias, on examples drawn for its name.

    With Flower installed it would be `class LineClient(flwr.client.NumPyClient)`.
    """

    def __init__(self, name: str, examples: int = 200) -> None:
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
        self.weights, self.bias = np.linspace(-1.0, 1.0, 16), 0.5
        self.inputs = rng.normal(size=(examples, 16))
        self.outputs = self.inputs @ self.weights + self.bias + rng.normal(scale=0.1, size=examples)

    def get_parameters(self, config: dict[str, Any]) -> Arrays:
        """What it was born with; nobody asks for it here, since the log names the first model."""
        return [np.zeros(16, np.float32), np.zeros(1, np.float32)]

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        """Some steps of gradient descent."""
        weight, bias = (each.astype(np.float64) for each in parameters)
        for _ in range(20):
            off = self.inputs @ weight + bias - self.outputs
            weight = weight - 0.05 * self.inputs.T @ off / off.size
            bias = bias - 0.05 * off.mean()
        return [weight, bias], self.outputs.size, {}

    def evaluate(self, parameters: Arrays, config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Mean squared error."""
        weight, bias = parameters
        return float(np.mean((self.inputs @ weight + bias - self.outputs) ** 2)), self.outputs.size, {}


def main() -> None:
    """Take part as a profile says."""
    from sfrl_secure.participant.sdk import Participant

    parser = argparse.ArgumentParser(description="A Flower NumPyClient takes part in a segment's rounds.")
    parser.add_argument("--profile", required=True, help="the participant's profile.toml")
    parser.add_argument("--segment", required=True)
    parser.add_argument("--rounds", type=int, help="end after so many; by default when there are no more")
    given = parser.parse_args()
    with Participant.from_profile(given.profile) as participant:
        take_part(LineClient(participant.name), participant.join(given.segment), rounds=given.rounds)


if __name__ == "__main__":
    main()
