"""What a service takes as a document of the operators, the verifier does, and what one refuses the other refuses too.

`governance` and `replay` read the same strict JSON, each with rules of its own making. Bytes that one takes and the
other does not would govern some and not others.
"""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance import documents as ours
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MaskTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.build import (
    DEFAULT_RULES,
    build_genesis,
    build_join,
    build_key_revocation,
    build_order,
    build_participant,
    build_root,
    build_rules,
    build_services,
    build_terms,
)
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    OrderAction,
    OrderTarget,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.root import RootDocument, Thresholds
from sfrl_secure.governance.services import Signatory
from sfrl_secure.governance.terms import (
    LeakageBound,
    LeakageTerms,
    ModelTerms,
    QuotaTerms,
    RoundTerms,
    UpdateLimits,
)
from sfrl_secure.ids import Digest, parse_spiffe_id, sha256
from sfrl_secure.replay import documents as theirs
from tests.fuzz.mutators import mutate
from tests.fuzz.world import ed25519_key, generation

EXPIRES_US = 1_900_000_000_000_000
FEDERATION = sha256(b"federation")
TARGETS: dict[OrderAction, OrderTarget] = {
    OrderAction.HALT: NoTarget(),
    OrderAction.RESUME: NoTarget(),
    OrderAction.EXCLUDE: ExcludeTarget(sha256(b"update")),
    OrderAction.ROLLBACK: RollbackTarget(sha256(b"model")),
    OrderAction.REAGGREGATE: ReaggregateTarget(2**31, ("rover-1", "rover-2")),
    OrderAction.ACCEPT: AcceptTarget(2**63 - 1, "void_entry"),
    OrderAction.OVERRIDE: OverrideTarget(sha256(b"decision"), 2**31 - 1),
}
DAMAGED = 1_500
NUMBERS = (
    0, 1, -1, 2, 16, 20, 21, 40, 41, 64, 65, 200, 500, 501, 10**6, 10**6 + 1, 2**22, 2**22 + 1, 2**30, 2**30 + 1, 2**31,
    2**31 - 1, 2**31 + 1, 2**40, 2**40 + 1, 2**53, 2**53 + 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 10**15, 10**15 + 1,
    10**30,
)  # fmt: skip
WORDS = (
    "", "a", "A", "-", "a.b", "a" * 64, "a" * 65, "a" * 128, "a" * 200, "a" * 201, "\u00e9", "a\n", "active", "revoked",
    "fetch", "record", "submit", "free", "agreed", "dense", "int8", "packed", "none", "X25519",
    "X25519MLKEM768", "ed25519", "ed25519+ml-dsa-44", "0" * 64,
    "f" * 64, "F" * 64, "halt", "exclude", "accept", "open", "weighted_mean/v1", "rocks", "w", "b",
)  # fmt: skip
ADDING_UP = ("rule", "clip", "cap", "server", "mask")
ADDING_UP_VALUES = (
    *NUMBERS, 3, 4, 5, 15, 17, 19, 24, 25, 65_535, 65_536, 499_999, 500_000, 10**7, 10**7 + 1, 2**20, 2**20 + 1, None,
    True, 1.0, [], {}, ["b"], ["w"], ["b", "w"], ["w", "b"], ["b", "b"], "", "b", "weighted_mean/v1", "union_mean/v1",
    "median/v1", "mean/v1", "nnm_trimmed_mean/v1", "multi_krum/v1", "clustered_mean/v1", "momentum/v1", "adaptive/v1",
    "contribution", "saliency", "votes", "0" * 64, {"norm": 1}, {"median_ppm": 1}, {"name": "median/v1"},
)  # fmt: skip
ADDING_UP_KEYS = (
    "name", "liars_ppm", "selected_ppm", "alike_ppm", "norm", "median_ppm", "magnitude", "decay", "decay_max", "rate",
    "floor", "next", "score", "regrow", "protected", "x",
)  # fmt: skip


def _key(name: str) -> SigningKey:
    return SigningKey(ed25519_key(name), None)


def _root(version: int = 1) -> bytes:
    later: dict[str, Any] = {} if version == 1 else {"federation_id": FEDERATION, "previous": sha256(b"root before")}
    return build_root(
        version=version,
        expires_us=EXPIRES_US,
        trust_domain="rover.example",
        log_host="log.example",
        operators={name: _key(name).public_key for name in ("ada", "ben")},
        thresholds=Thresholds(root=2, governance=1, enrolment=1, revocation=1),
        **later,
    )


def _genesis() -> bytes:
    root = sign_envelope(RootDocument.payload_type, _root(), [_key("ada"), _key("ben")])
    keys = generation("documents", origin_of("log.example", Digest(sha256(_root()))))
    return build_genesis(root_envelope=root, log_keys=(keys.signer.key.vkey, keys.cosigner.key.vkey))


def _signatory(spiffe_id: str) -> Signatory:
    return Signatory(parse_spiffe_id(spiffe_id), _key(spiffe_id).public_key)


def _terms(**others: Any) -> bytes:
    manifest = ModelManifest((TensorSpec("w", (6, 4), "int32"), TensorSpec("b", (4,), "int64")), 8, {"scale": (1, -2)})
    return build_terms(
        federation_id=FEDERATION,
        expires_us=EXPIRES_US,
        segment="rocks",
        sensitivity=10,
        groups=["field", "lab"],
        operations=("fetch", "record", "submit"),
        model=ModelTerms(manifest, 16, sha256(b"initial")),
        limits=UpdateLimits(
            payload_bytes_max=4_000, nonzeros_max=20, norm_max=2**30, magnitude_max=2**20, weight_max=500
        ),
        quota=QuotaTerms(window_us=1_000_000, updates_max=10**6, bytes_max=2**53),
        leakage=LeakageTerms(
            nonzeros_min=20,
            weight_min=500,
            noise_std_min=2**40,
            rows=(LeakageBound("b", 0, 4), LeakageBound("w", 0, 6), LeakageBound("w", 1, 1)),
            labels=(LeakageBound("b", 0, 2),),
        ),
        round_terms=RoundTerms(duration_us=1_000_000, cohort_min=2, cohort_max=4, rounds_max=2**31),
        evidence_days=1,
        retention_days=30,
        **others,
    )


def _ways_to_add_up() -> dict[str, bytes]:
    """Terms with each rule, each clip and server step, a cap, and a mask that changes."""
    # Of the 20 places 4 are b's for ever; of w's 24 coordinates there is room for the rest.
    changing = MaskTerms(sha256(b"mask"), 20, NextMaskTerms("saliency", 16, frozenset({"b"})))
    return {
        "segment-terms nnm": _terms(
            rule=RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=499_999), clip=ClipTerms(norm=2**62), cap=CapTerms(501, 2**40),
            server=MomentumTerms(65_535, 2**20),
        ),
        "segment-terms krum": _terms(
            rule=RuleTerms(MULTI_KRUM, liars_ppm=1, selected_ppm=10**6), clip=ClipTerms(median_ppm=10**7),
            server=AdaptiveTerms(65_535, 65_535, 2**22, 2**40),
        ),
        "segment-terms clustered": _terms(rule=RuleTerms(CLUSTERED_MEAN, alike_ppm=10**6), cap=CapTerms(1, 1)),
        "segment-terms union": _terms(rule=RuleTerms(UNION_MEAN), clip=ClipTerms(norm=1), server=MomentumTerms(0, 1)),
        "segment-terms changing": _terms(
            rule=RuleTerms(MEDIAN), support_modes=["agreed", "free"], mask=changing, server=AdaptiveTerms(0, 0, 1, 1)
        ),
    }  # fmt: skip


def _participant() -> bytes:
    return build_participant(
        federation_id=FEDERATION,
        expires_us=EXPIRES_US,
        name="rover-7",
        key=_key("rover-7").public_key,
        possession=bytes(64),
        clearance=1_000_000,
        groups=["field"],
        reason="new",
    )


def _documents() -> Iterator[tuple[str, str, bytes]]:
    """Name, payload type and bytes of one document of each kind, and of each action of an order."""
    built = {
        "root": _root(),
        "root 2": _root(2),
        "genesis": _genesis(),
        "services": build_services(
            federation_id=FEDERATION,
            expires_us=EXPIRES_US,
            services=[_signatory(f"spiffe://rover.example/service/{role}/x") for role in ("gatekeeper", "aggregator")],
            auditors=[_signatory("spiffe://rover.example/auditor/lea")],
        ),
        "rules": build_rules(federation_id=FEDERATION, expires_us=EXPIRES_US, cedar=DEFAULT_RULES),
        "segment-terms": _terms(),
        "segment-terms agreed": _terms(
            value_types=["bf16", "exact", "fp32", "int8", "packed", "sign"],
            support_modes=["agreed", "dense", "free"],
            mask=MaskTerms(sha256(b"mask"), 20),
            relay_groups=["lorries", "orbiters"],
        ),
        **_ways_to_add_up(),
        "participant": _participant(),
        "join": build_join(
            federation_id=FEDERATION,
            expires_us=EXPIRES_US,
            name="rover-8",
            join_key=_key("join").public_key,
            clearance=0,
            groups=["field", "lab"],
            record_expires_us=2**63 - 1,
        ),
        "key-revocation": build_key_revocation(
            federation_id=FEDERATION,
            expires_us=EXPIRES_US,
            spiffe_id=parse_spiffe_id("spiffe://rover.example/participant/rover-7"),
            spki_sha256=sha256(b"tls key"),
            reason="lost",
        ),
    }
    for name, raw in built.items():
        yield name, f"application/vnd.sfrl.{name.split()[0]}.v1+json", raw
    for action, target in TARGETS.items():
        raw = build_order(
            federation_id=FEDERATION, expires_us=EXPIRES_US, segment="rocks", action=action, target=target, reason="why"
        )
        yield f"order {action}", "application/vnd.sfrl.order.v1+json", raw


DOCUMENTS = {name: (payload_type, raw) for name, payload_type, raw in _documents()}


def _is_taken(payload_type: str, raw: bytes) -> bool:
    """Whether both take it; both must, or neither, and each with our own error."""
    read: list[Any] = []
    for parse in (ours.parse_document, theirs.parse_document):
        try:
            read.append(parse(payload_type, raw))
        except MalformedError:
            read.append(None)
    mine, verifiers = read
    assert (mine is None) == (verifiers is None), f"one reader takes what the other refuses: {raw!r}"
    if mine is not None:
        assert mine.digest == verifiers.digest
        if not isinstance(mine, ours.GenesisDocument):
            for name in ("federation_id", "version", "previous", "expires_us"):
                assert getattr(mine, name) == getattr(verifiers, name)
    return mine is not None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each key or index in it."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _damage(random: Random, raw: bytes) -> bytes:
    """Change one member somewhere, as whoever writes a document could."""
    document = copy.deepcopy(json.loads(raw))
    holder, key = random.choice(list(_places(document)))
    value = holder[key]
    what = random.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(value))
    elif what == 1:
        holder[random.choice((*WORDS, f"{key}x"))] = value
    elif what == 2 and isinstance(value, list):
        value.reverse()
    elif what == 3:
        holder[key] = random.choice((None, True, False, 1.0, [], {}, "1", 1, [value], {"a": value}))
    elif isinstance(value, int):
        holder[key] = random.choice((*NUMBERS, value + 1, value - 1))
    elif isinstance(value, str):
        holder[key] = random.choice((*WORDS, value + "0", value[:-1], value.upper(), f" {value}"))
    else:
        del holder[key]
    return json.dumps(document, ensure_ascii=random.random() < 0.5).encode()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_both_readers_take_every_document_that_is_built(name: str) -> None:
    assert _is_taken(*DOCUMENTS[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_both_readers_agree_on_damaged_documents(name: str) -> None:
    payload_type, raw = DOCUMENTS[name]
    seeds = [each for other, each in DOCUMENTS.values() if other == payload_type]
    tally: Counter[bool] = Counter()
    for number in range(DAMAGED):
        random = Random(f"two readers/{name}/{number}")
        damaged = mutate(random, raw, seeds) if number % 4 == 0 else _damage(random, raw)
        tally[_is_taken(payload_type, damaged)] += damaged != raw
    assert tally[False] > DAMAGED // 4
    # Hardly anything of a genesis can be another and still be read.
    assert tally[True] > DAMAGED // 150


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.startswith("segment-terms")])
def test_both_readers_agree_on_every_change_of_how_rounds_are_added_up(name: str) -> None:
    payload_type, raw = DOCUMENTS[name]
    tally: Counter[bool] = Counter()

    def read(changed: dict[str, Any]) -> None:
        tally[_is_taken(payload_type, json.dumps(changed).encode())] += 1

    for place in range(len(_adding_up(json.loads(raw)))):
        for value in ADDING_UP_VALUES:
            document = json.loads(raw)
            holder, key = _adding_up(document)[place]
            holder[key] = value
            read(document)
        for other in ADDING_UP_KEYS:
            document = json.loads(raw)
            holder, key = _adding_up(document)[place]
            if holder is not document and isinstance(holder, dict):
                holder[other] = holder[key]
                read(document)
                holder.pop(key)
                read(document)
    assert min(tally[True], tally[False]) > len(ADDING_UP)


def _adding_up(document: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Where what says how rounds are added up stands, each member by itself."""
    whole = [(document, key) for key in ADDING_UP]
    return whole + [place for key in ADDING_UP for place in _places(document[key])]


def test_both_readers_take_a_document_for_its_own_type_only() -> None:
    types = {payload_type for payload_type, _ in DOCUMENTS.values()}
    for own, raw in DOCUMENTS.values():
        for payload_type in types | {"application/vnd.sfrl.verdict.v1+json"}:
            assert _is_taken(payload_type, raw) is (payload_type == own)
