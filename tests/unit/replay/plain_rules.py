"""A round's model with Python's integers and fractions, coordinate by coordinate, as the specification reads.

No array, no shortcut: for models of a few dozen coordinates. `terms` is the segment-terms document as JSON has it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

VALUE_MAX = 2**40
RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


@dataclass(frozen=True)
class Sent:
    """An update that is added up: its values at the coordinates that it carries, zeros among them."""

    name: str
    weight: int
    norm: int
    carried: dict[int, int]


@dataclass(frozen=True)
class Outcome:
    u: list[int]
    model: list[int]
    state: list[int] | None
    mask: list[int] | None
    clusters: list[tuple[list[int], list[int]]]


def rhe(x: int, y: int) -> int:
    # round() of a Fraction is exact, with ties to even.
    return round(Fraction(x, y))


def cut(x: int, low: int = -VALUE_MAX, high: int = VALUE_MAX) -> int:
    return min(max(x, low), high)


def tie(opened: bytes, name: str) -> bytes:
    return hashlib.sha256(opened + name.encode()).digest()


def clipped(clip: dict[str, int] | None, sent: list[Sent]) -> list[Sent]:
    if clip is None:
        return sent
    if "norm" in clip:
        bound = clip["norm"]
    else:
        bound = sorted(each.norm for each in sent)[(len(sent) - 1) // 2] * clip["median_ppm"] // 10**6
    after = []
    for each in sent:
        values = each.carried
        if each.norm > bound:
            q = 2**20 * bound // (each.norm + 1)
            values = {c: rhe(v * q, 2**20) for c, v in values.items()}
        after.append(Sent(each.name, each.weight, each.norm, values))
    return after


def apply_rule(rule: dict[str, Any], sent: list[Sent], opened: bytes, coordinates: int) -> list[int]:
    n = len(sent)
    f = n * rule.get("liars_ppm", 0) // 10**6
    values = [[each.carried.get(c, 0) for c in range(coordinates)] for each in sent]
    columns = list(zip(*values, strict=True))
    weights = [each.weight for each in sent]
    ties = [tie(opened, each.name) for each in sent]

    def d(i: int, j: int) -> int:
        return sum((v - w) ** 2 for v, w in zip(values[i], values[j], strict=True))

    match rule["name"]:
        case "weighted_mean/v1" | "clustered_mean/v1":
            return weighted_mean(values, weights)
        case "union_mean/v1":
            a = []
            for c, column in enumerate(columns):
                den = sum(w for each, w in zip(sent, weights, strict=True) if c in each.carried)
                num = sum(w * v for v, w in zip(column, weights, strict=True))
                a.append(rhe(num, den) if den else 0)
            return a
        case "nnm_trimmed_mean/v1":
            mixed = []
            for i in range(n):
                others = sorted((j for j in range(n) if j != i), key=lambda j: (d(i, j), ties[j]))
                near = [i, *others[: n - f - 1]]
                mixed.append([sum(values[j][c] for j in near) for c in range(coordinates)])
            return [
                rhe(sum(sorted(column)[f : n - f]), (n - f) * (n - 2 * f)) for column in zip(*mixed, strict=True)
            ]
        case "multi_krum/v1":
            k = min(n - 1, max(1, n - f - 2))
            scores = [sum(sorted(d(i, j) for j in range(n) if j != i)[:k]) for i in range(n)]
            m = max(1, n * rule["selected_ppm"] // 10**6)
            selected = sorted(range(n), key=lambda i: (scores[i], ties[i]))[:m]
            return [rhe(sum(column[i] for i in selected), m) for column in columns]
        case "median/v1":
            ranked = [sorted(column) for column in columns]
            return [
                column[n // 2] if n % 2 else rhe(column[n // 2 - 1] + column[n // 2], 2) for column in ranked
            ]
    raise AssertionError("the rules are these")


def weighted_mean(values: list[list[int]], weights: list[int]) -> list[int]:
    columns = zip(*values, strict=True)
    return [rhe(sum(w * v for v, w in zip(column, weights, strict=True)), sum(weights)) for column in columns]


def apply_server(server: dict[str, Any] | None, a: list[int], state: list[int] | None) -> tuple[list[int], Any]:
    if server is None:
        return a, None
    n = len(a)
    if server["name"] == "momentum/v1":
        m = [cut(rhe(server["decay"] * m, 2**16) + x) for m, x in zip(state or [0] * n, a, strict=True)]
        return [cut(rhe(server["rate"] * x, 2**16)) for x in m], m
    before = state or [0] * (2 * n)
    m = [
        rhe(server["decay"] * m + (2**16 - server["decay"]) * x, 2**16) for m, x in zip(before[:n], a, strict=True)
    ]
    s = [max(server["decay_max"] * s // 2**16, abs(x)) for s, x in zip(before[n:], a, strict=True)]
    return [cut(rhe(server["rate"] * x, max(y, server["floor"]))) for x, y in zip(m, s, strict=True)], m + s


def bounds_of(terms: dict[str, Any]) -> list[tuple[int, int]]:
    bounds: list[tuple[int, int]] = []
    for tensor in terms["model"]["manifest"]["tensors"]:
        bounds += [RANGES[tensor["dtype"]]] * product(tensor["shape"])
    return bounds


def product(shape: list[int]) -> int:
    return shape[0] * product(shape[1:]) if shape else 1


def added(base: list[int], u: list[int], bounds: list[tuple[int, int]]) -> list[int]:
    return [cut(b + x, low, high) for b, x, (low, high) in zip(base, u, bounds, strict=True)]


def clusters_of(values: list[list[int]], ties: list[bytes], alike_ppm: int, cohort_min: int) -> list[list[int]]:
    n = len(values)
    p = [[sum(v * w for v, w in zip(x, y, strict=True)) for y in values] for x in values]
    component = list(range(n))
    for i in range(n):
        for j in range(n):
            is_alike = p[i][j] > 0 and p[i][j] ** 2 * 10**12 >= alike_ppm**2 * p[i][i] * p[j][j]
            if is_alike and component[i] != component[j]:
                old, new = component[j], component[i]
                component = [new if each == old else each for each in component]
    groups = [[i for i in range(n) if component[i] == name] for name in sorted(set(component))]
    groups.sort(key=lambda group: (-len(group), min(ties[i] for i in group)))
    clusters, rest = [], []
    for number, group in enumerate(groups):
        if len(group) < cohort_min or number >= 8:
            rest += group
        else:
            clusters.append(group)
    while rest and len(rest) < cohort_min and clusters:
        rest += clusters.pop()
    return clusters


def mixed_hash(seed: int, c: int) -> int:
    word = 2**64
    z = (seed + (c + 1) * 0x9E3779B97F4A7C15) % word
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % word
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % word
    return z ^ (z >> 31)


def next_mask(
    terms: dict[str, Any], opened: bytes, before: list[int], a: list[int], base: list[int], votes: list[int]
) -> list[int] | None:
    mask = terms["mask"]
    if mask is None or mask["next"] is None:
        return None
    chosen, k = mask["next"], mask["nonzeros"]
    sizes = [product(tensor["shape"]) for tensor in terms["model"]["manifest"]["tensors"]]
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    names = [tensor["name"] for tensor in terms["model"]["manifest"]["tensors"]]
    of = {name: range(low, high) for name, (low, high) in zip(names, pairwise([0, *ends]), strict=True)}
    score = {
        "contribution": lambda c: abs(a[c]),
        "votes": lambda c: votes[c],
        "saliency": lambda c: abs(a[c]) * min(abs(base[c]), 2**40) // 2**20,
    }[chosen["score"]]
    seed = int.from_bytes(hashlib.sha256(b"sfrl-mask/v1\n" + opened).digest()[:8], "little")
    candidates = {c for name in terms["tensors"] for c in of[name]}
    ranked = sorted(candidates, key=lambda c: (-score(c), mixed_hash(seed, c), c))
    is_in = {c for name in chosen["protected"] for c in of[name]}
    keep = k - len(is_in) - chosen["regrow"]
    is_in |= set([c for c in ranked if c in before and c not in is_in][:keep])
    if keep > 0:
        ranked.sort(key=lambda c: c in before)
    is_in |= set([c for c in ranked if c not in is_in][: k - len(is_in)])
    return sorted(is_in)


def outcome_of(
    terms: dict[str, Any], opened: bytes, sent: list[Sent], positions: list[int], base: list[int],
    state: list[int] | None, mask: list[int],
) -> Outcome:  # fmt: skip
    """Everything that comes of a round; `positions` are those of `sent` in the counted list."""
    coordinates, bounds = len(base), bounds_of(terms)
    if len(sent) < terms["round"]["cohort_min"]:
        changes = terms["mask"] is not None and terms["mask"]["next"] is not None
        return Outcome([0] * coordinates, base, state, mask if changes else None, [])
    sent = clipped(terms["clip"], sent)
    a = apply_rule(terms["rule"], sent, opened, coordinates)
    votes = [sum(each.carried.get(c, 0) != 0 for each in sent) for c in range(coordinates)]
    following = next_mask(terms, opened, mask, a, base, votes)
    if terms["cap"] is not None:
        most, below = terms["cap"]["magnitude"], terms["cap"]["contributors_below"]
        carriers = [sum(c in each.carried for each in sent) for c in range(coordinates)]
        a = [cut(x, -most, most) if few < below else x for x, few in zip(a, carriers, strict=True)]
    u, after = apply_server(terms["server"], a, state)
    clusters = []
    if terms["rule"]["name"] == "clustered_mean/v1":
        values = [[each.carried.get(c, 0) for c in range(coordinates)] for each in sent]
        ties = [tie(opened, each.name) for each in sent]
        for group in clusters_of(values, ties, terms["rule"]["alike_ppm"], terms["round"]["cohort_min"]):
            mean = weighted_mean([values[i] for i in group], [sent[i].weight for i in group])
            clusters.append(([positions[i] for i in group], added(base, mean, bounds)))
    return Outcome(u, added(base, u, bounds), after, following, clusters)
