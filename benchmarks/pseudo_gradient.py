"""What participants of a real federation would send: the change of a ResNet-18 after some local steps.

The network is the usual one for 32 x 32 images and 10 classes, 11,173,962 parameters. It is trained a little on a
sample of Fashion-MNIST, so that gradients are no longer those of random weights, and then goes on at each client with
images of its own, which no other client has, of four classes only. The change of its parameters is that client's
pseudo-gradient. Seeded: the same machine gives the same numbers.

Runs in: a developer's machine.
Trusts: the data.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

PARAMETERS = 11_173_962
IMAGES = 12_000
CLASSES_OF_A_CLIENT = 4


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outer)
        self.around = nn.Sequential()
        if stride != 1 or inner != outer:
            self.around = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        through = self.second_norm(self.second(functional.relu(self.first_norm(self.first(images)))))
        return functional.relu(through + self.around(images))


def resnet18() -> nn.Sequential:
    """The network, with fresh weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inner = 64
    for outer, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(Block(inner, outer, stride))
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def data_folder() -> Path:
    """Where the data sets are: `SFRL_DATA`, or `shared/data` beside the checkout."""
    given = os.environ.get("SFRL_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"


def pseudo_gradients(clients: int, warm_steps: int, local_steps: int, batch: int) -> Iterator[NDArray[np.float32]]:
    """Train, and give one change of all parameters for each client, one after the other."""
    torch.manual_seed(1)
    images, labels = _fashion(data_folder() / "fashion-mnist")
    model = resnet18()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS
    _train(model, images, labels, warm_steps, batch)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = _flat(model)
    owners = torch.arange(len(images)) % clients
    for client in range(clients):
        model.load_state_dict(start)
        classes = torch.randperm(10)[:CLASSES_OF_A_CLIENT]
        mine = (owners == client) & torch.isin(labels, classes)
        _train(model, images[mine], labels[mine], local_steps, batch)
        yield (_flat(model) - before).numpy()


def _train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int, batch: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,))
        optimizer.zero_grad()
        functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()


def _flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def _fashion(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The first images, padded to 32 x 32 and in three channels, and their classes."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(16 + IMAGES * 784), np.uint8, offset=16)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + IMAGES), np.uint8, offset=8)
    grey = np.pad(raw.reshape(-1, 28, 28) / 255.0 - 0.5, ((0, 0), (2, 2), (2, 2)))
    images = np.repeat(grey[:, None].astype(np.float32), 3, axis=1)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
