"""What is learnt in the attack bench: clothes from small pictures, and the eon of a rock from its chemistry.

Fashion-MNIST, each picture as 14 x 14 means of four pixels: 10 classes, accuracy on 2,000 of the test pictures. Rocks
as in the demo, 44 contents and 44 marks of what was not measured: 3 eons. Most rocks are of one eon, so that the metric
is the mean of the eons' recalls; rocks of one publication are all in training or all in test.

Both are learnt by a perceptron with one hidden layer of 24. Twenty participants with equally many samples; each one's
mixture of classes is drawn from a Dirichlet distribution (Hsu, Qi and Brown 2019).

Runs in: a developer's machine.
Trusts: the data.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.demo.rocks import (
    EON_NAMES,
    FEATURE_NAMES,
    Rocks,
    eon_of_age,
    join_references,
    region_of_longitude,
    split_by_reference,
)
from sfrl_secure.demo.scaling import basalt_scaling, scale_features

PARTICIPANTS = 20
HIDDEN = 24
SAMPLES_EACH = 400
CONCENTRATION = 0.5
"""Of the Dirichlet distribution: half of the participants have half of their samples of one class or two."""
TEST_PICTURES = 2_000

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """A task with its samples given out.

    Attributes:
        inputs, labels: float32, (participants, samples, d), and int64, (participants, samples).
        test_inputs, test_labels: what the model is measured on.
    """

    inputs: Floats
    labels: Labels
    test_inputs: Floats
    test_labels: Labels


@dataclass(frozen=True)
class Task:
    """Something to learn.

    Attributes:
        rate: of the first local steps; it falls to a tenth along half a cosine.
        samples: from a seed to training inputs and labels, and test inputs and labels.
    """

    name: str
    classes: int
    rate: float
    samples: Callable[[int], tuple[Floats, Labels, Floats, Labels]]

    def split(self, seed: int) -> Split:
        """Give the training samples out to the participants."""
        inputs, labels, test_inputs, test_labels = self.samples(seed)
        chosen = dirichlet_split(labels, self.classes, np.random.default_rng([seed, 1]))
        return Split(inputs[chosen], labels[chosen], test_inputs, test_labels)


def dirichlet_split(labels: Labels, classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw for each participant a mixture of classes, and samples from it: indices, (participants, samples).

    A class that is used up begins again: a sample may then be with two participants.
    """
    pools = [_endless(np.flatnonzero(labels == label), rng) for label in range(classes)]
    chosen = np.empty((PARTICIPANTS, SAMPLES_EACH), dtype=np.int64)
    for row in chosen:
        mixture = rng.dirichlet(np.full(classes, CONCENTRATION))
        row[:] = [next(pools[label]) for label in rng.choice(classes, SAMPLES_EACH, p=mixture)]
    return chosen


def _endless(pool: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (int(each) for each in rng.permutation(pool))


TASKS = ("fashion_mnist", "rock_eons")


def load_tasks(folder: Path) -> tuple[Task, ...]:
    """Both tasks. The data are read when the first split is asked for.

    Args:
        folder: with `fashion-mnist` and `basalt-geochemistry`.
    """
    clothes, rocks = _Clothes(folder / "fashion-mnist"), _RockSamples(folder / "basalt-geochemistry" / "basalts.csv.gz")
    return (
        Task(TASKS[0], 10, 0.15, clothes.samples),
        Task(TASKS[1], len(EON_NAMES), 0.25, rocks.samples),
    )


class _Clothes:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _all(self) -> tuple[Floats, Labels, Floats, Labels]:
        return (*self._read("train", 60_000), *self._read("t10k", 10_000))

    def _read(self, part: str, count: int) -> tuple[Floats, Labels]:
        with gzip.open(self._folder / f"{part}-images-idx3-ubyte.gz") as file:
            raw = np.frombuffer(file.read(16 + count * 784), np.uint8, offset=16)
        with gzip.open(self._folder / f"{part}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8).astype(np.int64)
        pooled = raw.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 196)
        # Mean and spread of the training pictures, to two digits.
        return (pooled / 255.0 - 0.29) / 0.33, labels

    def samples(self, seed: int) -> tuple[Floats, Labels, Floats, Labels]:
        inputs, labels, test_inputs, test_labels = self._all
        rng = np.random.default_rng([seed, 2])
        mine = rng.permutation(len(labels))[: 2 * PARTICIPANTS * SAMPLES_EACH]
        test = rng.permutation(len(test_labels))[:TEST_PICTURES]
        return inputs[mine], labels[mine], test_inputs[test], test_labels[test]


class _RockSamples:
    def __init__(self, table: Path) -> None:
        self._table = table

    @cached_property
    def _all(self) -> tuple[Rocks, Floats]:
        features: list[list[float]] = []
        eon, region, references = [], [], []
        with gzip.open(self._table, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if not row["AGE"] or not row["LONGITUDE"]:
                    continue
                features.append([float(row[name]) if row[name] else float("nan") for name in FEATURE_NAMES])
                eon.append(eon_of_age(float(row["AGE"])))
                region.append(region_of_longitude(float(row["LONGITUDE"])))
                references.append(" ".join(row["REFERENCE"].casefold().split()))
        table = np.array(features)
        names, publication = join_references(references, table)
        rocks = Rocks(table, np.array(eon, np.int64), np.array(region, np.int64), publication, names)
        return rocks, scale_features(table, basalt_scaling())

    def samples(self, seed: int) -> tuple[Floats, Labels, Floats, Labels]:
        rocks, inputs = self._all
        train, test = split_by_reference(rocks, seed, 0.3)
        return inputs[train], rocks.eon[train], inputs[test], rocks.eon[test]
