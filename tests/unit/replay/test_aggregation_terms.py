"""What segment terms say of how rounds are added up: every bound, here and in the services' own reading."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import parse_document as parse_governance
from sfrl_secure.replay.documents import parse_document

from .cases import SHAPES, document, governed

PAYLOAD_TYPE = "application/vnd.sfrl.segment-terms.v1+json"
DIGEST = "00" * 32
MOMENTUM = {"name": "momentum/v1", "decay": 0, "rate": 1}
ADAPTIVE = {"name": "adaptive/v1", "decay": 0, "decay_max": 0, "rate": 1, "floor": 1}
NEXT = {"score": "votes", "regrow": 1, "protected": []}
LARGE = {"a": ([2**15, 2**15], "int32"), "b": ([1], "int32")}


def masked(nonzeros: int = 12, following: Any = None, **other: Any) -> dict[str, Any]:
    """Members of terms with a mask, for tensors of 12, 5 and 7 coordinates."""
    mask = {"digest": DIGEST, "nonzeros": nonzeros, "next": following}
    return {"support_modes": ["agreed"], "mask": mask} | other


ALLOWED: list[dict[str, Any]] = [
    {},
    *({"rule": {"name": name}} for name in ("weighted_mean/v1", "union_mean/v1", "median/v1")),
    *({"rule": {"name": "nnm_trimmed_mean/v1", "liars_ppm": ppm}} for ppm in (0, 499_999)),
    {"rule": {"name": "multi_krum/v1", "liars_ppm": 0, "selected_ppm": 0}},
    {"rule": {"name": "multi_krum/v1", "liars_ppm": 499_999, "selected_ppm": 1_000_000}},
    *({"rule": {"name": "clustered_mean/v1", "alike_ppm": ppm}} for ppm in (1, 1_000_000)),
    {"clip": {"norm": 1}}, {"clip": {"norm": 2**62}}, {"clip": {"median_ppm": 1}}, {"clip": {"median_ppm": 10**7}},
    {"cap": {"contributors_below": 1, "magnitude": 1}}, {"cap": {"contributors_below": 501, "magnitude": 2**40}},
    {"server": MOMENTUM}, {"server": MOMENTUM | {"decay": 65_535, "rate": 2**20}},
    {"server": ADAPTIVE}, {"server": ADAPTIVE | {"decay": 65_535, "decay_max": 65_535, "rate": 2**22, "floor": 2**40}},
    masked(), masked(24), masked(24, NEXT | {"regrow": 24}), masked(12, NEXT | {"score": "saliency"}),
    masked(12, NEXT | {"score": "contribution", "protected": ["b"], "regrow": 7}),
    masked(13, NEXT | {"protected": ["b", "c"]}), masked(12, NEXT, tensors=["a"]),
    masked(12, NEXT, tensors=["b", "c"]), masked(13, tensors=["b"]),
]  # fmt: skip

MALFORMED: list[dict[str, Any]] = [
    {"rule": "weighted_mean/v1"}, {"rule": None}, {"rule": []}, {"rule": {}}, {"rule": {"name": "mean/v1"}},
    {"rule": {"name": None}}, {"rule": {"name": "median/v1", "liars_ppm": 0}}, {"rule": {"liars_ppm": 0}},
    {"rule": {"name": "weighted_mean/v1", "alike_ppm": 1}}, {"rule": {"name": ["median/v1"]}},
    {"rule": {"name": "nnm_trimmed_mean/v1"}}, {"rule": {"name": "nnm_trimmed_mean/v1", "liars_ppm": 500_000}},
    {"rule": {"name": "nnm_trimmed_mean/v1", "liars_ppm": -1}},
    {"rule": {"name": "nnm_trimmed_mean/v1", "liars_ppm": True}},
    {"rule": {"name": "nnm_trimmed_mean/v1", "liars_ppm": 0, "selected_ppm": 0}},
    {"rule": {"name": "multi_krum/v1", "liars_ppm": 0}}, {"rule": {"name": "multi_krum/v1", "selected_ppm": 0}},
    {"rule": {"name": "multi_krum/v1", "liars_ppm": 500_000, "selected_ppm": 0}},
    {"rule": {"name": "multi_krum/v1", "liars_ppm": 0, "selected_ppm": 1_000_001}},
    {"rule": {"name": "clustered_mean/v1", "alike_ppm": 0}},
    {"rule": {"name": "clustered_mean/v1", "alike_ppm": 1_000_001}},
    {"clip": {}}, {"clip": []}, {"clip": {"norm": 0}}, {"clip": {"norm": 2**62 + 1}}, {"clip": {"median_ppm": 0}},
    {"clip": {"median_ppm": 10**7 + 1}}, {"clip": {"norm": 1, "median_ppm": 1}}, {"clip": {"norm": None}}, {"clip": 1},
    {"clip": {"more": 1}},
    {"cap": {}}, {"cap": 1}, {"cap": {"contributors_below": 0, "magnitude": 1}}, {"cap": {"contributors_below": 1}},
    {"cap": {"contributors_below": 502, "magnitude": 1}}, {"cap": {"contributors_below": 1, "magnitude": 0}},
    {"cap": {"contributors_below": 1, "magnitude": 2**40 + 1}},
    {"server": {}}, {"server": "momentum/v1"}, {"server": {"name": "adam/v1"}}, {"server": MOMENTUM | {"floor": 1}},
    {"server": MOMENTUM | {"decay": 65_536}}, {"server": MOMENTUM | {"decay": -1}}, {"server": MOMENTUM | {"rate": 0}},
    {"server": MOMENTUM | {"rate": 2**20 + 1}}, {"server": {"name": "momentum/v1", "decay": 0}},
    {"server": ADAPTIVE | {"decay": 65_536}}, {"server": ADAPTIVE | {"decay_max": 65_536}},
    {"server": ADAPTIVE | {"rate": 2**22 + 1}}, {"server": ADAPTIVE | {"rate": 0}}, {"server": ADAPTIVE | {"floor": 0}},
    {"server": ADAPTIVE | {"floor": 2**40 + 1}}, {"server": ADAPTIVE | {"more": 0}},
    {"server": MOMENTUM | {"name": "adaptive/v1"}},
    masked(12, {}), masked(12, []), masked(12, NEXT | {"more": 1}), masked(12, NEXT | {"score": "size"}),
    masked(12, NEXT | {"regrow": 0}), masked(12, NEXT | {"regrow": 13}), masked(12, NEXT | {"protected": ["b", "b"]}),
    masked(24, NEXT | {"protected": ["c", "b"]}), masked(12, NEXT | {"protected": ["b"], "regrow": 8}),
    masked(12, NEXT | {"protected": ["d"]}), masked(12, NEXT | {"protected": ["c"]}, tensors=["a", "b"]),
    masked(13, NEXT, tensors=["a"]), masked(12, NEXT | {"protected": None}),
    {"support_modes": ["agreed"], "mask": {"digest": DIGEST, "nonzeros": 12}},
]  # fmt: skip


def both(terms: dict[str, Any]) -> tuple[Any, Any]:
    """What the replay and the services make of them: None where they refuse."""
    raw, read = governed(terms), []
    for parse in (parse_document, parse_governance):
        try:
            read.append(parse(PAYLOAD_TYPE, raw))
        except MalformedError:
            read.append(None)
    return read[0], read[1]


@pytest.mark.parametrize("changes", ALLOWED, ids=json.dumps)
def test_what_may_be_said_is_read_alike(changes: dict[str, Any]) -> None:
    ours, theirs = both(document(SHAPES, **changes))
    assert ours is not None
    terms = ours.content
    assert (terms.rule.name, terms.rule.liars_ppm, terms.rule.selected_ppm, terms.rule.alike_ppm) == (
        theirs.rule.name, theirs.rule.liars_ppm, theirs.rule.selected_ppm, theirs.rule.alike_ppm
    )  # fmt: skip
    for name in ("clip", "cap", "server"):
        mine, other = getattr(terms, name), getattr(theirs, name)
        assert (mine is None) == (other is None)
        for key in changes[name] if mine is not None else ():
            assert getattr(mine, key) == getattr(other, key) == changes[name][key]
    if terms.mask is None:
        assert theirs.mask is None
        return
    assert (terms.mask.digest, terms.mask.nonzeros) == (theirs.mask.digest, theirs.mask.nonzeros)
    mine, other = terms.mask.next, theirs.mask.next
    assert (mine is None) == (other is None)
    if mine is not None:
        names = {terms.manifest.tensors[position].name for position in mine.protected}
        assert (mine.score, mine.regrow, names) == (other.score, other.regrow, other.protected)


@pytest.mark.parametrize("changes", MALFORMED, ids=json.dumps)
def test_what_may_not_be_said_is_refused_by_both(changes: dict[str, Any]) -> None:
    assert both(document(SHAPES, **changes)) == (None, None)


@pytest.mark.parametrize("name", ["rule", "clip", "cap", "server"])
def test_every_key_is_there(name: str) -> None:
    terms = document(SHAPES)
    del terms[name]
    assert both(terms) == (None, None)


@pytest.mark.parametrize(("server", "is_allowed"), [(MOMENTUM, True), (ADAPTIVE, False)])
def test_an_adaptive_step_is_for_models_of_a_billion_coordinates(server: dict[str, Any], is_allowed: bool) -> None:
    for shapes, fits in ((LARGE, is_allowed), ({"a": LARGE["a"]}, True)):
        ours, theirs = both(document(shapes, server=server))
        assert (ours is not None, theirs is not None) == (fits, fits)
