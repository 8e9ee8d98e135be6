"""Training with PyTorch: a `state_dict` in, a `state_dict` out.

The module's names and shapes are the segment's tensors; those that updates may not touch stay as they are.

    python examples/train_torch.py --profile fed/participants/rover-1/profile.toml --segment example

Runs in: participant.
Trusts: what the participant's SDK does.
"""

from __future__ import annotations

import argparse
import zlib
from typing import Any

import torch

STEPS = 20


class Line(torch.nn.Module):
    """A linear model of 16 weights and a bias: the segment that `sfrl init` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(16))
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs for inputs of shape (n, 16)."""
        return inputs @ self.weight + self.bias


def examples_of(name: str, count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and outputs to train on, drawn for a name."""
    source = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    inputs = torch.randn(count, 16, generator=source)
    noise = 0.1 * torch.randn(count, generator=source)
    return inputs, inputs @ torch.linspace(-1.0, 1.0, 16) + 0.5 + noise


def train(model: torch.nn.Module, inputs: torch.Tensor, outputs: torch.Tensor) -> float:
    """Take some steps; give the loss before the first."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), outputs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0]


def take_part(membership: Any, inputs: torch.Tensor, outputs: torch.Tensor, *, rounds: int | None = None) -> None:
    """Train in each round of a segment until there are no more, or for so many rounds."""
    model = Line()
    for done, training in enumerate(membership.rounds(), start=1):
        base = training.model.state_dict()
        model.load_state_dict({name: torch.from_numpy(array) for name, array in base.items()})
        loss = train(model, inputs, outputs)
        receipt = training.submit(model.state_dict(), num_samples=len(inputs))
        print(f"round {training.number}: loss {loss:.4f}, entry {receipt.index}")
        if done == rounds:
            print(f"counted in model {receipt.wait().model.hex()}")
            return


def main() -> None:
    """Take part as a profile says."""
    from sfrl_secure.participant.sdk import Participant

    parser = argparse.ArgumentParser(description="A PyTorch module takes part in a segment's rounds.")
    parser.add_argument("--profile", required=True, help="the participant's profile.toml")
    parser.add_argument("--segment", required=True)
    parser.add_argument("--rounds", type=int, help="end after so many; by default when there are no more")
    given = parser.parse_args()
    with Participant.from_profile(given.profile) as participant:
        take_part(participant.join(given.segment), *examples_of(participant.name), rounds=given.rounds)


if __name__ == "__main__":
    main()
