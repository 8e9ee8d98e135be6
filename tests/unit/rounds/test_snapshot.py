"""The snapshot: a fold that was stored is the fold, goes on as the fold, and whatever else was stored is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulator import Simulator

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import parse_document
from sfrl_secure.governance.header import DocumentHeader
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.rounds import snapshot
from sfrl_secure.rounds.fold import Content, FederationFold
from sfrl_secure.rounds.shapes import shape_of
from sfrl_secure.rounds.snapshot import copy_state, decode_fold, encode_fold, freeze_fold
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rounds.statement_index import MemoryStatements
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from ...adversary.test_fold_and_replay_agree import STEPS
from ...adversary.two_folds import BASE, Pair

VKEYS = (BASE.signer.key.vkey, BASE.cosigner.key.vkey)


def fold_on(fold: FederationFold, raws: list[bytes]) -> list[str | None]:
    voids = []
    for raw in raws:
        entry = parse_entry(raw)
        content: Content | None = None
        with suppress(MalformedError):
            content = parse_content(entry.envelope)
        voids.append(fold.apply(fold.state.size, leaf_hash(raw), entry, content))
    return voids


def stored(fold: FederationFold) -> FederationFold:
    statements = copy.deepcopy(fold.state.statements)
    return decode_fold(encode_fold(fold), fold.state.origin, fold.log_vkeys, statements)


def assert_same(left: Any, right: Any) -> None:
    """Equal, field by field: also in what a class leaves out of its own comparison."""
    assert type(left) is type(right)
    if is_dataclass(left):
        for each in fields(left):
            assert_same(getattr(left, each.name), getattr(right, each.name))
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


@settings(deadline=None, max_examples=40)
@given(steps=STEPS, data=st.data())
def test_a_stored_fold_is_the_fold_and_goes_on_as_it(steps: Any, data: st.DataObject) -> None:
    pair = Pair()
    for act, n in steps:
        act(pair, n)
        pair.catch_up()
    raws = pair.log.entries
    size = data.draw(st.integers(0, len(raws)))
    fold = FederationFold(BASE.origin, VKEYS)
    fold_on(fold, raws[:size])
    again = stored(fold)
    assert_same(again.state, fold.state)
    for end in range(size, len(raws)):
        assert fold_on(fold, raws[end : end + 1]) == fold_on(again, raws[end : end + 1])
    assert_same(again.state, fold.state)


def test_a_fold_is_stored_at_every_prefix_of_an_honest_history(sim: Simulator) -> None:
    played(sim)
    fold = FederationFold(sim.origin, sim.log.fold.log_vkeys)
    for raw in sim.log.raw:
        assert_same(stored(fold).state, fold.state)
        fold_on(fold, [raw])
    assert_same(stored(fold).state, sim.state)


def played(sim: Simulator) -> None:
    """Two rounds with all that can be said in one; a new root; an invitation; orders; one round to be derived again."""
    sim.play_round("rover-1", "rover-2", "rover-3")
    sim.publish_terms(sensitivity=2)
    sim.issue("rover-1", spki=sha256(b"renewed"))
    sim.rotate_root()
    sim.invite("rover-9")
    sim.join("rover-9")
    sim.revoke_key(sha256(b"rover-1"))
    sim.override(sim.decide("rover-2"), 5)
    sim.open_round()
    sim.admit("rover-1")
    sim.admit("rover-2")
    sim.withdraw("rover-1")
    sim.complain("rover-3")
    sim.record("rover-3", state="revoked")
    sim.accept(3, "censorship")
    sim.reaggregate(1)
    sim.halt()


# Every field of every class, by types: what is added to the state is in this test at once.


class Samples:
    """Values of any type that a state holds, each different from the one before."""

    def __init__(self, sim: Simulator) -> None:
        self.documents = [parse_content(sim.log.envelope_at(index)) for index in range(len(sim.log.raw))]
        self.made = 0
        self.covered: set[tuple[type, str]] = set()

    def of(self, hint: Any) -> Any:
        self.made += 1
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is Digest:
            return sha256(b"%d" % self.made)
        if hint is SpiffeId:
            return parse_spiffe_id(f"spiffe://mars.example/participant/x{self.made}")
        if origin in (Union, types.UnionType):
            return self.of(next(each for each in arguments if each is not types.NoneType))
        if origin is tuple:
            return tuple(self.of(each) for each in arguments if each is not Ellipsis)
        if origin in (set, frozenset, list):
            return origin(self.of(arguments[0]) for _ in range(3))
        if origin is Counter:
            return Counter({self.of(arguments[0]): self.made for _ in range(3)})
        if origin is dict:
            return {self.of(arguments[0]): self.of(arguments[1]) for _ in range(2)}
        if issubclass(hint, DocumentHeader):
            found = next((each for each in self.documents if isinstance(each, hint)), None)
            if found is None:
                found = next(each.root for each in self.documents if hasattr(each, "root"))
                assert isinstance(found, hint)
            return parse_document(found.payload_type, found.raw)
        if issubclass(hint, IntEnum):
            return list(hint)[-1]
        if is_dataclass(hint):
            return self.instance(hint)
        return {int: self.made, str: f"s{self.made}", bytes: b"%d" % self.made, bool: True}[hint]

    def instance(self, kind: type) -> Any:
        hints = get_type_hints(kind)
        names = [each.name for each in fields(kind) if (kind, each.name) != (FederationState, "statements")]
        self.covered |= {(kind, name) for name in names}
        return kind(**{name: self.of(hints[name]) for name in names})


def parts_of(value: Any) -> Iterator[Any]:
    """Everything in a value that can change."""
    if is_dataclass(value) and not isinstance(value, type):
        if not type(value).__dataclass_params__.frozen:  # type: ignore[attr-defined]
            yield value
        if not isinstance(value, DocumentHeader | MemoryStatements):
            for each in fields(value):
                yield from parts_of(getattr(value, each.name))
    elif isinstance(value, dict | set | list):
        yield value
        for each in value.values() if isinstance(value, dict) else ():
            yield from parts_of(each)


@pytest.fixture
def sampled(sim: Simulator) -> FederationFold:
    samples = Samples(sim)
    state = samples.instance(FederationState)
    state.origin = sim.origin
    # A dataclass of the state that nobody made a sample of would be one that nobody stores.
    names = {kind.__name__ for kind, _ in samples.covered}
    assert {"RoundState", "Admission", "UpdateStatement", "RoundClosed", "StreamState", "KeyOwners"} <= names
    assert all((kind, each.name) in samples.covered or each.name == "statements"
               for kind, _ in samples.covered for each in fields(kind))  # fmt: skip
    return FederationFold.resume(state, sim.log.fold.log_vkeys)


def test_every_field_of_every_class_is_stored(sampled: FederationFold) -> None:
    assert_same(stored(sampled).state, sampled.state)


def test_a_copy_shares_nothing_that_can_change(sampled: FederationFold) -> None:
    copied = copy_state(sampled.state)
    assert_same(copied, sampled.state)
    ours = {id(part) for part in parts_of(sampled.state)}
    shared = [part for part in parts_of(copied) if id(part) in ours]
    assert shared == [sampled.state.statements]
    assert len(ours) > 20


def test_a_frozen_fold_is_stored_as_it_was_whatever_comes_after(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    before, frozen = encode_fold(sim.log.fold), freeze_fold(sim.log.fold)
    sim.admit("rover-2")
    sim.record("rover-3", state="revoked")
    assert frozen() == before != encode_fold(sim.log.fold)


def test_what_stands_at_two_places_is_one_object_again(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    state = stored(sim.log.fold).state
    (admission,) = state.admitted_updates.values()
    current = state.segments["rocks"].current
    assert current is not None
    assert current.admissions["rover-1"] is admission
    assert admission.participant is state.participant("rover-1")


def test_statements_that_the_index_knows_from_later_are_not_there_yet(sim: Simulator) -> None:
    played(sim)
    half = len(sim.log.raw) // 2
    fold = FederationFold(sim.origin, sim.log.fold.log_vkeys)
    fold_on(fold, sim.log.raw[:half])
    # The index was flushed after the snapshot was written.
    again = decode_fold(encode_fold(fold), sim.origin, fold.log_vkeys, sim.state.statements)
    digest = sim.log.envelope_at(half).digest
    assert again.index_of(digest) is None
    assert fold_on(again, sim.log.raw[half:]) == [None] * (len(sim.log.raw) - half)
    assert again.index_of(digest) == half
    assert_same(again.state, sim.state)


# What is refused


def resealed(found: Any) -> bytes:
    body = json.dumps(found).encode()
    return body + hashlib.sha256(body).digest()


def refuses(raw: bytes, sim: Simulator, **changes: Any) -> None:
    given = {"origin": sim.origin, "log_vkeys": sim.log.fold.log_vkeys, "statements": MemoryStatements(), **changes}
    with pytest.raises(MalformedError):
        decode_fold(raw, **given)


def test_a_damaged_snapshot_is_refused(sim: Simulator) -> None:
    raw = encode_fold(sim.log.fold)
    for at in (*range(0, len(raw), 97), len(raw) - 1):
        refuses(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], sim)
    for cut in (b"", raw[:16], raw[:-1], raw + b"\0"):
        refuses(cut, sim)


def test_a_snapshot_of_another_log_or_of_other_code_is_refused(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = encode_fold(sim.log.fold)
    found = json.loads(raw[:-32])
    assert decode_fold(resealed(found), sim.origin, sim.log.fold.log_vkeys, MemoryStatements()).state.size
    refuses(raw, sim, origin="log.mars.example/sfrl/00")
    refuses(raw, sim, log_vkeys=sim.log.fold.log_vkeys[::-1])
    refuses(resealed({**found, "format": "sfrl-fold/v1"}), sim)
    refuses(resealed({**found, "more": 1}), sim)
    refuses(resealed([found]), sim)
    inner = FederationFold.resume(copy_state(sim.state), sim.log.fold.log_vkeys)
    inner.state.origin = "log.mars.example/sfrl/00"
    refuses(resealed({**found, "state": json.loads(encode_fold(inner)[:-32])["state"]}), sim)
    monkeypatch.setattr(snapshot, "code_digest", lambda: "00" * 32)
    refuses(raw, sim)


def test_a_snapshot_beyond_the_bound_is_refused(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encode_fold(sim.log.fold)
    monkeypatch.setattr(snapshot, "SNAPSHOT_BYTES_MAX", len(raw) - 1)
    refuses(raw, sim)


def test_what_is_no_json_is_refused(sim: Simulator) -> None:
    for body in (b"", b"\xff", b"[" * 100_000, b"1" * 10_000, b"NaN"):
        refuses(body + hashlib.sha256(body).digest(), sim)


ODD = (None, True, -1, 1.5, 2**70, "", "zz", "\ud800", [], [[], []], {}, 10**6, [0], ["a", "b"])


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_odd_value_anywhere_raises_nothing_but_a_typed_error(sampled: FederationFold, data: st.DataObject) -> None:
    found = json.loads(encode_fold(sampled)[:-32])
    parent, key = found, "state"
    while isinstance(parent[key], list) and parent[key] and data.draw(st.integers(0, 9)):
        parent = parent[key]
        key = data.draw(st.integers(0, len(parent) - 1))  # type: ignore[assignment]
    parent[key] = data.draw(st.sampled_from(ODD))
    with suppress(MalformedError):
        decode_fold(resealed(found), sampled.state.origin, sampled.log_vkeys, MemoryStatements())


def test_a_type_that_is_not_foreseen_is_met_before_any_value() -> None:
    for hint in (float, int | str, list[set[int]], object, tuple[dict[str, int], ...], set[tuple[set[int], int]]):
        with pytest.raises(TypeError):
            shape_of(hint)


def test_all_that_decides_is_in_the_snapshots_name() -> None:
    program = (
        "import sys, sfrl_secure.rounds.fold, sfrl_secure.wire.content, sfrl_secure.wire.entries;"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('sfrl_secure.')])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    root = Path(snapshot.__file__).parents[1]
    loaded = {Path(name).relative_to(root).parts[0] for name in ran.stdout.split()}
    assert loaded - {"errors.py"} <= set(snapshot.DECIDING_CODE)
