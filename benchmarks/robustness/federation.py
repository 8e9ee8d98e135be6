"""One federation that learns under attack: local steps, supports, the grid, the real rule, the real server step.

Honest participants send what they changed: all of it, or the k coordinates of their own that are largest, with what
they did not send added to the next (`free`), or those of a sparsity mask of all (`agreed`); or, where a row says so, a
running mean of it (momentum on their side: Karimireddy, He and Jaggi 2021). Every value is rounded to int8 blocks on
the integer grid, as the codec rounds; rule, clip, cap and server step are those that an aggregator runs.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.robustness.attacks import ATTACKS, Attack, View
from benchmarks.robustness.perceptrons import Floats, Shape, local_changes, recalls
from benchmarks.robustness.rows import DENSITIES, Row, combined_step
from benchmarks.robustness.tasks import HIDDEN, PARTICIPANTS, Split, Task
from sfrl_secure.aggregation.server_state import ServerState
from sfrl_secure.aggregation.server_step import server_step
from sfrl_secure.ids import Digest
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.quantize import round_and_drop, round_values
from sfrl_secure.sparse.update import UpdatePart

GRID_EXPONENT = 20
BATCH = 32
STEPS = 4
ROUNDS = 200
MEASURED = 5
"""The metric is the mean over the models of the last so many rounds."""
BLOCK = 64
"""Values of a block of the codec."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """What does not depend on the rule: a task, its split, who lies and which samples are drawn when."""

    task: Task
    seed: int
    liars: int
    rounds: int = ROUNDS

    @cached_property
    def split(self) -> Split:
        """Who has which samples."""
        return self.task.split(self.seed)

    @cached_property
    def shape(self) -> Shape:
        """Of the model."""
        return Shape(self.split.inputs.shape[2], HIDDEN, self.task.classes)

    @cached_property
    def first_model(self) -> Floats:
        """The model before the first round."""
        return self.shape.first_model(np.random.default_rng([self.seed, 3]))

    def mask_of(self, width: int) -> Integers:
        """A sparsity mask: the output layer, and what a first honest round moves most."""
        rng, (count, samples) = np.random.default_rng([self.seed, 6]), self.split.labels.shape
        drawn = rng.integers(samples, size=(count, STEPS, BATCH))
        each = np.arange(count)[:, np.newaxis, np.newaxis]
        changes = local_changes(self.shape, self.first_model, self.split.inputs[each, drawn],
                                self.split.labels[each, drawn], self.task.rate)
        moved = np.abs(changes.mean(axis=0))
        moved[self.shape.ends[1] :] = np.inf
        return np.sort(np.argsort(-moved, kind="stable")[:width])

    @cached_property
    def ties(self) -> tuple[Digest, ...]:
        """An order of participants."""
        return tuple(Digest(hashlib.sha256(b"%d %d" % (self.seed, each)).digest()) for each in range(PARTICIPANTS))


def run(scene: Scene, row: Row, attack_name: str, strength: float) -> float:
    """Train to the end; give the mean of the classes' recalls."""
    return _Run(scene, row, ATTACKS[attack_name], strength).metric()


class _Run:
    """One training. The liars are the last participants: a split is drawn from the seed, one is as good as another."""

    def __init__(self, scene: Scene, row: Row, attack: Attack, strength: float) -> None:
        self._scene, self._row, self._attack, self._strength = scene, row, attack, strength
        self._shape = scene.shape
        self._rng = np.random.default_rng([scene.seed, 4])
        self._honest = PARTICIPANTS - (scene.liars if attack is not ATTACKS["none"] else 0)
        coordinates = self._shape.coordinates
        self._model: Integers = np.rint(np.ldexp(scene.first_model.astype(np.float64), GRID_EXPONENT)).astype(np.int64)
        self._momenta = np.zeros((PARTICIPANTS, coordinates), dtype=np.float32)
        self._owed = np.zeros((PARTICIPANTS, coordinates), dtype=np.float32)
        self._width = int(coordinates * DENSITIES[row.support])
        self._mask = scene.mask_of(self._width) if row.support == "agreed" else np.arange(coordinates)
        self._state: ServerState | None = None
        self._held_back = np.zeros(coordinates, dtype=np.int64)
        self._last_step = np.zeros(coordinates, dtype=np.float32)
        self._past = np.zeros((self._honest, coordinates), dtype=np.float32)

    def metric(self) -> float:
        """Run all rounds."""
        split, measured = self._scene.split, []
        labels = split.labels
        if self._attack.flips_labels:
            labels = labels.copy()
            labels[self._honest :] = self._shape.outputs - 1 - labels[self._honest :]
        each = np.arange(PARTICIPANTS)[:, np.newaxis, np.newaxis]
        for number in range(self._scene.rounds):
            drawn = self._rng.integers(labels.shape[1], size=(PARTICIPANTS, STEPS, BATCH))
            passed = number / max(self._scene.rounds - 1, 1)
            rate = self._scene.task.rate * (0.55 + 0.45 * math.cos(math.pi * passed))
            self._round(split.inputs[each, drawn], labels[each, drawn], rate)
            model = self._floats(self._model)
            if np.abs(model).max() > 1e4:
                # Beyond any return; on the way there float32 would overflow.
                return 1.0 / self._shape.outputs
            if number >= self._scene.rounds - MEASURED:
                measured.append(recalls(self._shape, model, split.test_inputs, split.test_labels).mean())
        return float(np.mean(measured))

    def _round(self, inputs: Floats, labels: Integers, rate: float) -> None:
        changes = local_changes(self._shape, self._floats(self._model), inputs, labels, rate)
        decay = np.float32(self._row.participant_momentum)
        self._momenta *= decay
        self._momenta += (np.float32(1.0) - decay) * changes
        pending = self._momenta
        if self._row.support == "free":
            pending = pending + self._owed
        vectors = self._cut(pending)
        honest = vectors[: self._honest]
        updates = self._on_grid(honest, self._rng)
        if self._honest < PARTICIPANTS:
            view = View(self._shape, honest, vectors[self._honest :], self._mask, self._width, self._last_step,
                        self._past, partial(self._tried, updates), np.random.default_rng([self._scene.seed, 5]))
            vectors[self._honest :] = self._cut(self._attack.send(view, self._strength))
        self._past += honest
        updates += self._on_grid(vectors[self._honest :], self._rng)
        if self._row.support == "free":
            self._owed = pending - self._sent(updates)
        step = combined_step(self._row, updates, self._scene.ties, self._scene.liars, self._shape.coordinates)
        if self._row.server_top:
            step = self._top_of(step)
        u, self._state = server_step(self._row.server, step, self._state, self._shape.coordinates)
        before = self._model.copy()
        self._model[u.at] += u.values
        np.clip(self._model, -VALUE_MAX, VALUE_MAX, out=self._model)
        self._last_step = self._floats(self._model - before)

    def _cut(self, vectors: Floats) -> Floats:
        """What of some vectors a payload may hold: the mask's coordinates, or the largest ones of each."""
        coordinates = self._shape.coordinates
        if self._row.support == "agreed":
            cut = np.zeros_like(vectors)
            cut[:, self._mask] = vectors[:, self._mask]
            return cut
        if self._width == coordinates:
            return vectors.copy()
        magnitudes = np.abs(vectors)
        least = np.partition(magnitudes, coordinates - self._width, axis=1)[:, coordinates - self._width]
        kept = magnitudes >= least[:, np.newaxis]
        for row in np.flatnonzero(kept.sum(axis=1) > self._width):
            # Of equally large ones, the first.
            tied = np.flatnonzero(magnitudes[row] == least[row])
            kept[row, tied[self._width - int(kept[row].sum()) :]] = False
        return np.where(kept, vectors, np.float32(0.0))

    def _on_grid(self, vectors: Floats, rng: np.random.Generator) -> list[UpdatePart]:
        """Each vector as a payload would carry it."""
        bound = np.float32(math.ldexp(VALUE_MAX, -GRID_EXPONENT) * 0.99)
        vectors = np.clip(vectors, -bound, bound)
        if self._row.support == "free":
            updates = []
            for vector in vectors:
                at = np.flatnonzero(vector)
                kept, values = round_and_drop(vector[at], "int8", GRID_EXPONENT, rng)
                updates.append(UpdatePart(at[kept], values))
            return updates
        carried = vectors[:, self._mask]
        # All in one call, each from a block of its own on.
        padded = np.pad(carried, ((0, 0), (0, -carried.shape[1] % BLOCK)))
        values = round_values(padded.reshape(-1), "int8", GRID_EXPONENT, rng).reshape(padded.shape)
        at = slice(0, self._shape.coordinates) if self._row.support == "dense" else self._mask
        return [UpdatePart(at, np.ascontiguousarray(row[: carried.shape[1]])) for row in values]

    def _tried(self, honest: list[UpdatePart], lies: Floats) -> Floats:
        """The step that some lies would lead to; of a rounding of its own, so that a try changes no run."""
        sent = self._on_grid(self._cut(lies), np.random.default_rng([self._scene.seed, 7]))
        part = combined_step(self._row, [*honest, *sent], self._scene.ties, self._scene.liars, self._shape.coordinates)
        step = np.zeros(self._shape.coordinates, dtype=np.float32)
        step[part.at] = self._floats(part.values)
        return step

    def _top_of(self, step: UpdatePart) -> UpdatePart:
        """The largest of a step and of what was held back of earlier ones."""
        self._held_back[step.at] += step.values
        magnitudes = np.abs(self._held_back)
        top = np.argsort(-magnitudes, kind="stable")[: int(magnitudes.size * self._row.server_top)]
        at = np.sort(top[magnitudes[top] > 0])
        values = np.clip(self._held_back[at], -VALUE_MAX, VALUE_MAX)
        self._held_back[at] = 0
        return UpdatePart(at, values)

    def _sent(self, updates: list[UpdatePart]) -> Floats:
        sent = np.zeros_like(self._owed)
        for vector, update in zip(sent, updates, strict=True):
            vector[update.at] = self._floats(update.values)
        return sent

    @staticmethod
    def _floats(units: Integers) -> Floats:
        return np.ldexp(units.astype(np.float64), -GRID_EXPONENT).astype(np.float32)
