"""What liars send: they know each other, every honest update of the round before it is sent, the model and the rule.

ALIE: Baruch, Baruch and Goldberg 2019. IPM: Xie, Koyejo and Gupta 2019. Min-max and min-sum: Shejwalkar and Houmansadr
2021. Mimic: Karimireddy, He and Jaggi 2022. `roll_back` and `outvote` are of this bench; that lies learn from rounds
before is from Ozfatura and others 2022. `tries` uses the rule itself: each round it sends whichever of four other lies
does most. An attack comes in several strengths; a table shows what is left under the strongest.

A liar's payload keeps the form that a gatekeeper admits: as many coordinates as anybody's, of the mask where there is
one. What is beyond that is cut off by magnitude, as an honest participant does it.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from benchmarks.robustness.perceptrons import Shape

Floats = NDArray[np.float32]


@dataclass(slots=True)
class View:
    """What liars see of a round.

    Attributes:
        shape: of the model.
        honest: float32, (honest, coordinates): what the others send; zero where they send nothing.
        own: float32, (liars, coordinates): what the liars would send if they were honest.
        allowed: int64: the coordinates that a payload may have.
        width: coordinates that a payload has.
        last_step: float32, (coordinates,): what the model moved by in the round before.
        past: float32, (honest, coordinates): each one's sum of what it sent in all rounds so far.
        step_of: what clip, rule and cap would make of this round, were this what the liars send.
        rng: the liars' own, from the same seed each round: what is drawn first is the same in each.
    """

    shape: Shape
    honest: Floats
    own: Floats
    allowed: NDArray[np.int64]
    width: int
    last_step: Floats
    past: Floats
    step_of: Callable[[Floats], Floats]
    rng: np.random.Generator
    _norm: float = field(default=0.0, init=False)

    @property
    def norm(self) -> float:
        """The median norm of the honest updates."""
        if not self._norm:
            self._norm = float(np.median(np.linalg.norm(self.honest, axis=1)))
        return self._norm

    def same(self, vector: Floats) -> Floats:
        """One update for all liars."""
        return np.repeat(vector[np.newaxis].astype(np.float32), len(self.own), axis=0)

    def at(self, indices: NDArray[np.int64], directions: NDArray[np.floating], strength: float) -> Floats:
        """One update for all liars, of these directions at these coordinates, so many median norms long."""
        vector = np.zeros(self.shape.coordinates, dtype=np.float32)
        vector[indices] = directions * (strength * self.norm / max(float(np.linalg.norm(directions)), 1e-30))
        return self.same(vector)


def honest(view: View, strength: float) -> Floats:
    """Nobody lies: what the liars would send."""
    return view.own * np.float32(strength)


def alie(view: View, strength: float) -> Floats:
    """So many standard deviations beside the mean, at each coordinate: within what the others scatter."""
    return view.same(view.honest.mean(axis=0) - np.float32(strength) * view.honest.std(axis=0))


def ipm(view: View, strength: float) -> Floats:
    """The others' mean, the other way round."""
    return view.same(view.honest.mean(axis=0) * np.float32(-strength))


def sign_flip(view: View, strength: float) -> Floats:
    """What each liar learnt, the other way round."""
    return view.own * np.float32(-strength)


def min_max(view: View, strength: float) -> Floats:
    """As far along a direction as stays within the largest distance of two honest updates.

    Args:
        strength: 0 for the standard deviations as the direction, 1 for the mean's.
    """
    mean = view.honest.mean(axis=0)
    direction = view.honest.std(axis=0) if strength == 0 else mean
    length = float(np.linalg.norm(direction))
    if length == 0.0:
        return view.same(mean)
    direction = direction / np.float32(length)
    products = (view.honest @ view.honest.T).astype(np.float64)
    squares = np.diag(products)
    widest = float((squares[:, np.newaxis] + squares - 2.0 * products).max())
    # |mean - g * direction - honest|^2 = g^2 - 2 g * direction.(mean - honest) + |mean - honest|^2, for each.
    away = mean - view.honest
    half = (away @ direction).astype(np.float64)
    rest = np.einsum("ij,ij->i", away, away, dtype=np.float64)
    furthest = float((half + np.sqrt(np.maximum(half**2 + widest - rest, 0.0))).min())
    return view.same(mean - np.float32(furthest) * direction)


def min_sum(view: View, strength: float) -> Floats:
    """As far along a direction as the sum of squared distances to all stays within an honest update's largest.

    Args:
        strength: 0 for the standard deviations as the direction, 1 for the mean's.
    """
    mean = view.honest.mean(axis=0)
    direction = view.honest.std(axis=0) if strength == 0 else mean
    away = view.honest - mean
    squares = np.einsum("ij,ij->i", away, away, dtype=np.float64)
    # Seen from the mean, the sum of the squared distances to all is n times the square of one's own, and what all have.
    reach = math.sqrt(squares.max()) / max(float(np.linalg.norm(direction)), 1e-30)
    return view.same(mean - np.float32(reach) * direction)


def mimic(view: View, strength: float) -> Floats:
    """What one honest participant sends, once more: the one who went furthest along what they differ in most."""
    away = (view.past - view.past.mean(axis=0)) + (view.honest - view.honest.mean(axis=0))
    _, vectors = np.linalg.eigh((away @ away.T).astype(np.float64))
    return view.same(view.honest[int(np.abs(vectors[:, -1]).argmax())] * np.float32(strength))


def rare_indices(view: View, strength: float) -> Floats:
    """All liars alone on the coordinates that fewest others carry, each pushed one way in all rounds."""
    carriers = np.count_nonzero(view.honest, axis=0)[view.allowed]
    # A fixed order of coordinates, so that liars come back to the same; where all are carried, the least moved first.
    order = view.rng.permutation(view.shape.coordinates)[view.allowed]
    ways = view.rng.choice(np.array([-1.0, 1.0]), view.shape.coordinates)
    moved = np.abs(view.honest).sum(axis=0)[view.allowed] if carriers.min() else np.zeros(carriers.size)
    chosen = np.sort(view.allowed[np.lexsort((order, moved, carriers))[: max(1, view.width // 4)]])
    return view.at(chosen, ways[chosen], strength)


def roll_back(view: View, strength: float) -> Floats:
    """Against the way that each coordinate has gone so far, all equally far: back to where the model came from.

    Where a payload does not have all coordinates, those that have gone furthest.
    """
    return _against(view, view.allowed, strength)


def outvote(view: View, strength: float) -> Floats:
    """The same where liars are more than the others who carry a coordinate."""
    owned = view.allowed[np.count_nonzero(view.honest, axis=0)[view.allowed] < len(view.own)]
    return _against(view, owned if owned.size else view.allowed, strength)


def _against(view: View, places: NDArray[np.int64], strength: float) -> Floats:
    gone = view.past.sum(axis=0)
    chosen = np.sort(places[np.argsort(-np.abs(gone[places]), kind="stable")[: view.width]])
    # In the first round nothing has gone anywhere.
    return view.at(chosen, -np.sign(gone[chosen]) if gone.any() else np.ones(chosen.size), strength)


def one_head(view: View, strength: float) -> Floats:
    """Everything that leads to one output, upwards."""
    head = np.intersect1d(view.shape.of_output(int(view.rng.integers(view.shape.outputs))), view.allowed)
    return view.at(head, np.ones(head.size), strength) if head.size else view.same(view.last_step)


def free_rider(view: View, strength: float) -> Floats:
    """Nothing learnt: the step that everybody has seen, once more."""
    return view.same(view.last_step * np.float32(strength))


def tries(view: View, strength: float) -> Floats:
    """Of four lies the one after which the rule's own step goes least where the honest mean goes."""
    mean = view.honest.mean(axis=0)
    lies = [attack(view, each) for attack, each in _TRIED]
    return min(lies, key=lambda lie: float(view.step_of(lie) @ mean)) * np.float32(strength)


_TRIED = ((alie, -1.5), (ipm, 2.0), (min_max, 1.0), (roll_back, 1.0))


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack in its strengths.

    Attributes:
        strengths: that are tried where lengths are not bounded.
        gated: that are tried under a clip: longer than the others is no longer than they are there.
        flips_labels: whether what liars would send was learnt from flipped labels.
    """

    send: Callable[[View, float], Floats]
    strengths: Sequence[float] = (1.0,)
    gated: Sequence[float] = (1.0,)
    flips_labels: bool = False


ATTACKS: Mapping[str, Attack] = MappingProxyType({
    "none": Attack(honest),
    "alie": Attack(alie, (1.0, -1.5, -2.5), (-1.5, -2.5)),
    "ipm": Attack(ipm, (1.0, 2.0, 10.0), (2.0, 10.0)),
    "sign_flip": Attack(sign_flip, (1.0, 10.0)),
    "label_flip": Attack(honest, (3.0,), (3.0,), flips_labels=True),
    "min_max": Attack(min_max, (0.0, 1.0), (0.0, 1.0)),
    "min_sum": Attack(min_sum),
    "mimic": Attack(mimic),
    "tries": Attack(tries),
    "rare_indices": Attack(rare_indices, (1.0, 10.0)),
    "roll_back": Attack(roll_back, (1.0, 10.0)),
    "outvote": Attack(outvote, (1.0, 10.0)),
    "one_head": Attack(one_head, (1.0, 10.0)),
    "free_rider": Attack(free_rider),
})  # fmt: skip
"""By name, in the order of the tables; `none` is what the others are measured against."""
