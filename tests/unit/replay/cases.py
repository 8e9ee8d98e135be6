"""Rounds of a few updates over a small model, drawn at random or at their extremes, for whoever works one out.

A `Case` is what a round's model is a function of, as plain integers. `recomputed` lets the replay work it out from
objects, as it does for a log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from random import Random
from typing import Any

import numpy as np

from sfrl_secure.ids import Digest
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.recomputation import Result, Task, recompute
from sfrl_secure.replay.segments import Admission, Verdict
from sfrl_secure.replay.terms import Terms, parse_terms
from sfrl_secure.replay.words import Update

from .builder import DAY, SECOND, MemoryObjects, sha
from .payloads import encode_aggregate, encode_mask, encode_payload, payload_root
from .plain_rules import RANGES, Outcome, Sent, outcome_of

GRID = 10
SHAPES: dict[str, tuple[list[int], str]] = {"a": ([2, 3, 2], "int32"), "b": ([5], "int64"), "c": ([7], "int32")}
COORDINATES = 24
VALUE_MAX = 2**40
WEIGHTS_MAX = 2**22

RULES: dict[str, dict[str, tuple[int, int]]] = {
    "weighted_mean/v1": {},
    "union_mean/v1": {},
    "nnm_trimmed_mean/v1": {"liars_ppm": (0, 499_999)},
    "multi_krum/v1": {"liars_ppm": (0, 499_999), "selected_ppm": (0, 1_000_000)},
    "median/v1": {},
    "clustered_mean/v1": {"alike_ppm": (1, 1_000_000)},
}
NAMES = tuple(f"r{number:03}" for number in range(500))
OPENED = sha(b"round_opened")
AT = Position(7, sha(b"entry"), 1, "somebody")


@dataclass(frozen=True)
class Case:
    """One round.

    Attributes:
        terms: the segment-terms document.
        updates: of each participant, in the order of the counted list: its support mode, what it carries, its weight.
        left_out: positions of those that are not added up.
        state: None in the beginning, and where there is no server step.
    """

    terms: dict[str, Any]
    updates: tuple[tuple[str, dict[int, int], int], ...]
    base: list[int]
    state: list[int] | None
    mask: list[int]
    left_out: frozenset[int] = frozenset()

    @property
    def sent(self) -> list[Sent]:
        return [Sent(NAMES[i], *self.measured(i)) for i in self.kept]

    @property
    def kept(self) -> list[int]:
        return [i for i in range(len(self.updates)) if i not in self.left_out]

    def measured(self, i: int) -> tuple[int, int, dict[int, int]]:
        _, carried, weight = self.updates[i]
        return weight, isqrt(sum(value * value for value in carried.values())), carried

    def plain(self) -> Outcome:
        return outcome_of(self.terms, OPENED, self.sent, self.kept, self.base, self.state, self.mask)


def document(shapes: dict[str, tuple[list[int], str]], **other: Any) -> dict[str, Any]:
    """Terms that allow everything, for a model of these tensors."""
    tensors = [{"name": name, "shape": shape, "dtype": dtype} for name, (shape, dtype) in shapes.items()]
    coordinates = sum(int(np.prod(shape)) for shape, _ in shapes.values())
    return {
        "segment": "rocks", "sensitivity": 5, "groups": ["rovers"], "operations": ["submit"],
        "model": {"manifest": {"tensors": tensors, "constants_exponent": 0, "constants": {}}, "grid_exponent": GRID,
                  "initial": "00" * 32},
        "tensors": sorted(shapes), "value_types": ["exact"], "support_modes": ["dense", "free"], "mask": None,
        "relay_groups": [], "suites": ["ed25519"],
        "limits": {"payload_bytes_max": 2**30, "nonzeros_max": coordinates, "norm_max": 2**62,
                   "magnitude_max": VALUE_MAX, "weight_max": WEIGHTS_MAX},
        "quota": {"window_us": 30 * DAY, "updates_max": 1000, "bytes_max": 2**40},
        "leakage": {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": [], "labels": []},
        "round": {"duration_us": 600 * SECOND, "cohort_min": 1, "cohort_max": 1, "rounds_max": 100},
        "rule": {"name": "weighted_mean/v1"}, "clip": None, "cap": None, "server": None, "privacy": "open",
        "evidence_days": 1, "retention_days": 30,
    } | other  # fmt: skip


def of_cohort(terms: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    """The terms for rounds of so many updates."""
    rounds = {**terms["round"], "cohort_min": least, "cohort_max": most}
    return terms | {"round": rounds, "limits": {**terms["limits"], "weight_max": WEIGHTS_MAX // most}}


def governed(terms: dict[str, Any]) -> bytes:
    """The document with what all documents have."""
    common = {"type": "segment-terms", "federation_id": "11" * 32, "version": 1, "previous": "00" * 32}
    return json.dumps(common | {"expires_us": 2**62} | terms).encode()


def objects_of(case: Case, terms: Terms, objects: MemoryObjects) -> Task:
    """Put everything that a round takes into the store; gives what the replay is told of it."""
    raw_mask = encode_mask(case.mask, terms.manifest.coordinates) if case.mask else b""
    admissions = []
    for i, (support, carried, weight) in enumerate(case.updates):
        payload = encode_payload(
            carried, terms.manifest.coordinates, "exact", GRID, support=support, mask=raw_mask, mask_indices=case.mask
        )
        indices = sorted(carried)
        ends = [indices[min(at + 65_536, len(indices)) - 1] + 1 for at in range(0, len(indices), 65_536)]
        update = Update(
            federation_id=Digest(bytes(32)), segment="rocks", participant=NAMES[i], key_id=Digest(bytes(32)), round=1,
            round_opened=OPENED, base_model=Digest(bytes(32)), payload_sha256=objects.put(payload),
            payload_root=Digest(payload_root(payload)), payload_bytes=len(payload), nonzeros=len(carried), codec=2,
            support=support, values="exact", weight=weight, noise_std=0,
        )  # fmt: skip
        norm = case.measured(i)[1]
        admissions.append(Admission(i, sha(NAMES[i].encode()), update, Verdict.SOUND, norm, np.array(ends, np.int64)))
    return Task(
        round=1, terms=terms, opened=OPENED, counted=tuple(admissions),
        left_out=frozenset(admissions[i].statement_digest for i in case.left_out), base=sha(b"base"),
        base_values=np.array(case.base, np.int64),
        server_state=None if case.state is None else objects.put(encode_aggregate(case.state, GRID)),
        mask=objects.put(raw_mask) if case.mask else None,
    )  # fmt: skip


def recomputed(case: Case) -> Result:
    """What the replay makes of it, from objects."""
    objects = MemoryObjects()
    docket = Docket(objects)
    result = recompute(docket, objects_of(case, parse_terms(case.terms), objects), AT)
    assert docket.findings == []
    assert docket.missing == ()
    return result


def some_value(rng: Random) -> int:
    """A value that is small, or at a border, or anything."""
    border = rng.choice([VALUE_MAX, VALUE_MAX - 1, 2**20, 2**20 - 1, 2**21 + 1]) * rng.choice([-1, 1])
    return rng.choice([rng.randint(-3, 3), border, rng.randint(-(2**22), 2**22), rng.randint(-VALUE_MAX, VALUE_MAX)])


def low_value(rng: Random) -> int:
    """One of few, so that there are ties."""
    return rng.randint(-2, 2)


def some_number(rng: Random, low: int, high: int) -> int:
    """A number of a range; often an end of it."""
    return rng.choice([low, high, rng.randint(low, high), rng.randint(low, min(high, low + 4))])


def random_case(
    rule: str, number: int | str, shapes: dict[str, tuple[list[int], str]] = SHAPES, updates_max: int = 12
) -> Case:
    """A round under a rule, with any clip, cap, server step and mask; the same for the same number."""
    rng = Random(f"{rule} {number}")
    sizes = {name: int(np.prod(shape)) for name, (shape, _) in shapes.items()}
    coordinates = sum(sizes.values())
    n = rng.randint(1, updates_max)
    nonzeros = some_number(rng, 1, coordinates)
    mask = sorted(rng.sample(range(coordinates), nonzeros)) if rng.random() < 0.6 else []
    value = rng.choice([some_value, low_value])
    updates: list[tuple[str, dict[int, int], int]] = []
    weights_left = WEIGHTS_MAX
    supports = ["free", "free", "dense", *(["agreed", "agreed"] if mask else [])]
    # Sometimes all alike.
    supports = [rng.choice(supports)] if rng.random() < 0.3 else supports
    for i in range(n):
        weight = some_number(rng, 1, weights_left - (n - i - 1))
        weights_left -= weight
        earlier = [carried for _, carried, _ in updates]
        updates.append((*_update(rng, value, coordinates, rng.choice(supports), mask, earlier), weight))
    terms = of_cohort(document(
        shapes, rule=_rule(rng, rule), clip=_clip(rng), cap=_cap(rng, n), server=_server(rng),
        **_mask_terms(rng, mask, sizes),
    ), rng.randint(1, min(n, 4)), n)  # fmt: skip
    left_out = rng.sample(range(n), rng.randint(0, n)) if rng.random() < 0.3 else []
    state = None
    if terms["server"] is not None and rng.random() < 0.7:
        size = coordinates * (2 if terms["server"]["name"] == "adaptive/v1" else 1)
        state = [some_value(rng) if rng.random() < 0.6 else 0 for _ in range(size)]
    base = [some_number(rng, *RANGES[dtype]) for name, (_, dtype) in shapes.items() for _ in range(sizes[name])]
    return Case(terms, tuple(updates), base, state, mask, frozenset(left_out))


def _update(
    rng: Random, value: Callable[[Random], int], coordinates: int, support: str, mask: list[int],
    earlier: Sequence[dict[int, int]],
) -> tuple[str, dict[int, int]]:  # fmt: skip
    where: Iterable[int] = mask if support == "agreed" else range(coordinates)
    if support == "free":
        some = [0, 1, min(3, coordinates), coordinates // 8, coordinates // 2, coordinates]
        where = rng.sample(range(coordinates), rng.choice(some))
    # Sometimes like one before, or against it.
    like = rng.choice(earlier) if earlier and rng.random() < 0.5 else None
    sign = rng.choice([1, 1, -1])
    found = {c: value(rng) if like is None else sign * like.get(c, 0) for c in where}
    return support, {c: v for c, v in found.items() if v or support != "free"}


def _rule(rng: Random, name: str) -> dict[str, Any]:
    return {"name": name} | {key: some_number(rng, low, high) for key, (low, high) in RULES[name].items()}


def _clip(rng: Random) -> dict[str, int] | None:
    norm = rng.choice([rng.randint(1, 5), rng.randint(1, 2**42), 2**62])
    return rng.choice([None, {"norm": norm}, {"median_ppm": rng.choice([1, 10**6, 10**7, rng.randint(1, 2 * 10**6)])}])


def _cap(rng: Random, n: int) -> dict[str, int] | None:
    below = rng.choice([rng.randint(1, n + 1), 501])
    return rng.choice([None, {"contributors_below": below, "magnitude": some_number(rng, 1, VALUE_MAX)}])


def _server(rng: Random) -> dict[str, Any] | None:
    decay = rng.choice([2**15, some_number(rng, 0, 65_535)])
    momentum = {"name": "momentum/v1", "decay": decay, "rate": rng.choice([2**16, some_number(rng, 1, 2**20)])}
    adaptive = {
        "name": "adaptive/v1", "decay": decay, "decay_max": some_number(rng, 0, 65_535),
        "rate": some_number(rng, 1, 2**22), "floor": rng.choice([some_number(rng, 1, VALUE_MAX), 2**20]),
    }  # fmt: skip
    return rng.choice([None, momentum, adaptive])


def _mask_terms(rng: Random, mask: list[int], sizes: dict[str, int]) -> dict[str, Any]:
    """The members `support_modes`, `mask` and `tensors`."""
    if not mask:
        return {}
    following = None
    names = sorted(rng.sample(sorted(sizes), rng.randint(1, len(sizes))))
    if sum(sizes[name] for name in names) >= len(mask) and rng.random() < 0.8:
        regrow = some_number(rng, 1, len(mask))
        protected: list[str] = []
        for name in rng.sample(names, len(names)):
            room = len(mask) - regrow - sum(sizes[each] for each in protected)
            protected += [name] if sizes[name] <= room and rng.random() < 0.5 else []
        score = rng.choice(["contribution", "saliency", "votes"])
        following = {"score": score, "regrow": regrow, "protected": sorted(protected)}
    digest = sha(encode_mask(mask, sum(sizes.values()))).hex()
    return {
        "support_modes": ["agreed", "dense", "free"], "tensors": names,
        "mask": {"digest": digest, "nonzeros": len(mask), "next": following},
    }  # fmt: skip


def assert_same(outcome: Outcome, result: Result, terms: Terms, base: Digest) -> None:
    """What the replay names is what was worked out otherwise."""
    model = base if result.values is not None and result.names["model"] == base else model_name(outcome.model, terms)
    assert result.values is not None
    assert result.values.tolist() == outcome.model
    assert result.names == {
        "aggregate": sha(encode_aggregate(outcome.u, GRID)),
        "model": model,
        "server_state": None if outcome.state is None else sha(encode_aggregate(outcome.state, GRID)),
        "next_mask": None if outcome.mask is None else sha(encode_mask(outcome.mask, len(outcome.u))),
    }
    assert result.clusters is not None
    assert [(list(each.members), each.model) for each in result.clusters] == [
        (members, model_name(values, terms)) for members, values in outcome.clusters
    ]


def model_name(values: list[int], terms: Terms) -> Digest:
    """The digest of a model object with these integers."""
    header = b"SFRLMDL1" + bytes([GRID]) + bytes(7) + terms.manifest.digest + len(values).to_bytes(8, "little")
    lengths = {"int32": 4, "int64": 8}
    ends = [0, *(tensor.end for tensor in terms.manifest.tensors)]
    parts = [
        value.to_bytes(lengths[tensor.dtype], "little", signed=True)
        for tensor, (low, high) in zip(terms.manifest.tensors, pairwise(ends), strict=True)
        for value in values[low:high]
    ]
    return sha(header + b"".join(parts))
