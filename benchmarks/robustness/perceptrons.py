"""Twenty perceptrons at a time: the local steps of all participants as products of stacks of matrices.

A model is flat: hidden weights, hidden biases, output weights, output biases; weights with one row for each output.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of a perceptron with one hidden layer."""

    inputs: int
    hidden: int
    outputs: int

    @property
    def ends(self) -> tuple[int, int, int, int]:
        """Where hidden weights, hidden biases, output weights and output biases end."""
        first = self.inputs * self.hidden
        second = first + self.hidden
        third = second + self.hidden * self.outputs
        return first, second, third, third + self.outputs

    @property
    def coordinates(self) -> int:
        """Parameters."""
        return self.ends[-1]

    def of_output(self, output: int) -> NDArray[np.int64]:
        """The coordinates of what leads to one output."""
        _, second, third, _ = self.ends
        row = np.arange(second + output * self.hidden, second + (output + 1) * self.hidden)
        return np.append(row, third + output)

    def first_model(self, rng: np.random.Generator) -> Floats:
        """Draw a model: weights as He and others 2015 have them, biases zero."""
        first, second, third, end = self.ends
        model = np.zeros(end, dtype=np.float32)
        model[:first] = rng.normal(0.0, np.sqrt(2.0 / self.inputs), first)
        model[second:third] = rng.normal(0.0, np.sqrt(1.0 / self.hidden), third - second)
        return model

    def layers(self, models: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Views of stacked flat models, (n, coordinates), as stacks of what the layers have."""
        first, second, third, end = self.ends
        count = len(models)
        return (models[:, :first].reshape(count, self.hidden, self.inputs), models[:, first:second],
                models[:, second:third].reshape(count, self.outputs, self.hidden), models[:, third:end])


def local_changes(shape: Shape, model: Floats, inputs: Floats, labels: Labels, rate: float) -> Floats:
    """Take the local steps of all participants from one model, and give each one's change.

    Args:
        inputs: float32, (participants, steps, batch, inputs).
        labels: int64, (participants, steps, batch).
        rate: of stochastic gradient descent on the mean cross-entropy.

    Returns: float32, (participants, coordinates).
    """
    count, steps, batch = labels.shape
    models = np.repeat(model[np.newaxis], count, axis=0)
    weights, biases, out_weights, out_biases = shape.layers(models)
    each, sample = np.arange(count)[:, np.newaxis], np.arange(batch)[np.newaxis]
    for step in range(steps):
        x, y = inputs[:, step], labels[:, step]
        hidden = np.maximum(x @ weights.transpose(0, 2, 1) + biases[:, np.newaxis], 0.0)
        scores = hidden @ out_weights.transpose(0, 2, 1) + out_biases[:, np.newaxis]
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        scores[each, sample, y] -= 1.0
        scores *= rate / batch
        back = (scores @ out_weights) * (hidden > 0.0)
        out_weights -= scores.transpose(0, 2, 1) @ hidden
        out_biases -= scores.sum(axis=1)
        weights -= back.transpose(0, 2, 1) @ x
        biases -= back.sum(axis=1)
    models -= model
    return models


def recalls(shape: Shape, model: Floats, inputs: Floats, labels: Labels) -> NDArray[np.float64]:
    """The share of each class's samples that the model puts into it."""
    weights, biases, out_weights, out_biases = (layer[0] for layer in shape.layers(model[np.newaxis]))
    scores = np.maximum(inputs @ weights.T + biases, 0.0) @ out_weights.T + out_biases
    hits = np.bincount(labels[scores.argmax(axis=1) == labels], minlength=shape.outputs)
    return hits / np.maximum(np.bincount(labels, minlength=shape.outputs), 1)
