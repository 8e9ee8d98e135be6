"""Writes `corpus.json`: a few hundred cases, one or two for each way in which each target refuses or accepts.

A case is what it changes in one of its target's seeds, so that it stays the same case when the mutators change; the
seeds are named by their digests, so that it is noticed when they do. `python -m tests.fuzz.write_corpus` writes the
file; `test_corpus.py` runs it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from sfrl_secure.errors import SfrlError

from .harness import ACCEPTED, Target
from .targets import all_targets

CORPUS = Path(__file__).parent / "corpus.json"
SEED = 3
TRIED = 3_000
KEPT_OF_A_KIND = 2
INSERTED_BYTES_MAX = 300


def seed_name(raw: bytes) -> str:
    """How a seed is named: the first 16 digits of its digest."""
    return hashlib.sha256(raw).hexdigest()[:16]


def case_of(edit: dict[str, Any], target: Target) -> bytes:
    """Make a case of the corpus again.

    Raises:
        LookupError: the seed is another one by now: the corpus is to be written anew.
    """
    raw = next((each for each in target.seeds if seed_name(each) == edit["seed"]), None)
    if raw is None:
        raise LookupError(f"a seed of {target.name} has changed: run python -m tests.fuzz.write_corpus")
    at, removed = edit["at"], edit["removed"]
    return raw[:at] + base64.b64decode(edit["inserted"]) + raw[at + removed :]


def corpus() -> list[dict[str, Any]]:
    """Choose the cases."""
    return [case for target in all_targets() for case in _cases_of(target)]


def _cases_of(target: Target) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    kept: Counter[str] = Counter()
    for number in range(TRIED):
        random = Random(f"corpus {SEED}/{target.name}/{number}")
        seed = random.choice(target.seeds)
        raw = target.mutate(random, seed, target.seeds)
        edit = _edit(seed, raw)
        if edit is None:
            continue
        try:
            target.check(raw)
            kind, outcome = ACCEPTED, ACCEPTED
        except SfrlError as refused:
            kind, outcome = f"{type(refused).__name__}: {refused}", type(refused).__name__
        if kept[kind] < KEPT_OF_A_KIND:
            kept[kind] += 1
            found.append({"target": target.name, "seed": seed_name(seed), **edit, "outcome": outcome})
    return found


def _edit(seed: bytes, raw: bytes) -> dict[str, Any] | None:
    """What lies between the common beginning and the common end; none where that is long, or nothing."""
    begin = 0
    while begin < min(len(seed), len(raw)) and seed[begin] == raw[begin]:
        begin += 1
    end = 0
    while end < min(len(seed), len(raw)) - begin and seed[-1 - end] == raw[-1 - end]:
        end += 1
    inserted = raw[begin : len(raw) - end]
    if seed == raw or len(inserted) > INSERTED_BYTES_MAX:
        return None
    encoded = base64.b64encode(inserted).decode()
    return {"at": begin, "removed": len(seed) - end - begin, "inserted": encoded}


if __name__ == "__main__":
    cases = corpus()
    CORPUS.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases")
