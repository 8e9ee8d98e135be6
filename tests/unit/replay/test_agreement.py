"""Two programs, one specification: the replay and the services agree on what is written and what has effect.

What needs an object is the replay's alone, so those rows are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import parse_document as parse_governance
from sfrl_secure.replay import documents, reader, statements, words_reader
from sfrl_secure.rounds.fold import Content, FederationFold
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry
from sfrl_secure.wire.participants import parse_decision, parse_identity_request, parse_withdrawal
from sfrl_secure.wire.statements import parse_statement, parse_update_envelope

from .builder import Writer, sha
from .intervention_rows import INTERVENTIONS, NEW_KEY, R1, R5, TOKEN
from .void_rows import DOCUMENTS, STATEMENTS, UPDATES, Act

NEEDS_OBJECTS = {"aggregate", "model"}
ALL_ROWS = DOCUMENTS + STATEMENTS + INTERVENTIONS
ROWS = [row for row in ALL_ROWS if row[2] not in NEEDS_OBJECTS and "defective" not in row[0]]


def effects_in_fold(writer: Writer) -> list[bool]:
    fold = FederationFold(writer.origin, (writer.signer.key.vkey, writer.cosigner.key.vkey))
    effects = []
    for index, raw in enumerate(writer.entries):
        entry = parse_entry(raw)
        content: Content | None
        try:
            content = parse_content(entry.envelope)
        except MalformedError:
            content = None
        effects.append(fold.apply(index, leaf_hash(raw), entry, content) is None)
    return effects


@pytest.mark.parametrize(("stage", "act"), [pytest.param(row[1], row[3], id=row[0]) for row in ROWS])
def test_both_find_the_same_entries_void(stage: Callable[[Writer], None], act: Act) -> None:
    writer = Writer().begin()
    stage(writer)
    act(writer)
    writer.count()
    void = {finding.index for finding in writer.replay().docket.findings}
    assert effects_in_fold(writer) == [index not in void for index in range(len(writer.entries))]


def test_both_issue_a_thousand_identities_a_day_under_one_name_and_no_more() -> None:
    writer = Writer().begin()
    for number in range(1000):
        writer.issue(R1, bytes(30) + number.to_bytes(2, "big"), renews=sha(R1.encode()))
    # R1 had one before: the last of these is one too many.
    void = [finding.index for finding in writer.replay().docket.findings]
    assert void == [len(writer.entries) - 1]
    assert effects_in_fold(writer) == [index not in void for index in range(len(writer.entries))]


def whole_log() -> Writer:
    """Every kind of entry once, and every order."""
    writer = Writer().begin()
    floors = [{"tensor": "a", "axis": 1, "min": 1}, {"tensor": "b", "axis": 0, "min": 1}]
    least = {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": floors, "labels": floors[1:]}
    writer.publish_terms(writer.terms(leakage=least))
    writer.rotate_root(list(writer.operators.values()))
    writer.invite("r5", TOKEN)
    writer.record_by(TOKEN, "r5", NEW_KEY)
    writer.revoke_key(R1, bytes(32))
    writer.issue(R5)
    writer.run_round({name: {1: 5, 13: 2, 14: -2} for name in UPDATES})
    digest = writer.decide("r1")
    writer.order("override", {"decision": digest, "class": 4})
    writer.order("exclude", {"update": writer.steps[0].counted[0].digest})
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})
    writer.publish_again(1, ["r1"])
    writer.open_round()
    writer.admit("r3", {1: 5, 13: 2, 14: -2})
    writer.withdraw("r3")
    writer.complain("r4")
    writer.order("accept", {"index": 3, "code": "overdue"})
    writer.refuse("r1", "weight_limit", fields={"weight": 0})
    writer.refuse("r2", "policy_denied", evidence=2, update={1: 127 * 64}, facts=writer.facts({1: 127 * 64}),
                  rule_ids=["large"])  # fmt: skip
    writer.count()
    writer.fetch([("r1", writer.model_digest)])
    writer.order("rollback", {"model": writer.put_model([0] * 17)})
    writer.close(body={"cause": 3, "outcome": 2}, dropped={"r3": "withdrawn"})
    writer.order("halt")
    writer.order("resume")
    return writer


WHOLE = whole_log()


def test_both_find_a_whole_log_effective() -> None:
    assert WHOLE.replay().docket.findings == []
    assert all(effects_in_fold(WHOLE))


def accepts(parse: Callable[[bytes], Any], raw: bytes) -> bool:
    try:
        parse(raw)
    except MalformedError:
        return False
    return True


def damage(raw: bytes, data: st.DataObject) -> bytes:
    """Change, cut out or put in a few bytes, most often near the beginning, where the fields' tags are."""
    where = data.draw(st.one_of(st.integers(0, min(len(raw) - 1, 260)), st.integers(0, len(raw) - 1)))
    cut = data.draw(st.integers(0, 3))
    return raw[:where] + data.draw(st.binary(max_size=4)) + raw[where + cut :]


@settings(deadline=None, max_examples=400)
@given(index=st.integers(0, len(WHOLE.entries) - 1), data=st.data())
def test_both_read_the_same_entries(index: int, data: st.DataObject) -> None:
    raw = damage(WHOLE.entries[index], data)
    assert accepts(reader.parse_entry, raw) == accepts(parse_entry, raw)


KEYS = [WHOLE.participants["r1"]]


def statement_in(kind: int) -> bytes:
    """What is signed inside the first statement of this kind."""
    for envelope in SIGNED:
        if envelope.payload_type == statements.STATEMENT_TYPE:
            found = reader.parse_statement(envelope.statement)
            if found.kind == kind:
                return found.body.envelope.statement  # type: ignore[union-attr]
    raise AssertionError("the log holds every kind")


SIGNED = [parse_entry(raw).envelope for raw in WHOLE.entries]
STATEMENT_BYTES = [e.statement for e in SIGNED if e.payload_type == statements.STATEMENT_TYPE]
DOCUMENT_BYTES = [(e.payload_type, e.statement) for e in SIGNED if e.payload_type != statements.STATEMENT_TYPE]


@settings(deadline=None, max_examples=800)
@given(raw=st.sampled_from(STATEMENT_BYTES), data=st.data())
def test_both_read_the_same_statements(raw: bytes, data: st.DataObject) -> None:
    damaged = damage(raw, data)
    assert accepts(reader.parse_statement, damaged) == accepts(parse_statement, damaged)


WORDS: list[tuple[Callable[[bytes], Any], Callable[[bytes], Any], bytes]] = [
    (words_reader.parse_update_envelope, parse_update_envelope,
     WHOLE.sign_update(WHOLE.update_fields("r1", b"payload", {1: 5}, 10) | {"noise_std": 300}, KEYS)[0]),
    (words_reader.parse_withdrawal, parse_withdrawal, statement_in(9)),
    (words_reader.parse_decision, parse_decision, statement_in(16)),
    (words_reader.parse_identity_request, parse_identity_request, statement_in(4)),
]  # fmt: skip


@settings(deadline=None, max_examples=800)
@given(word=st.sampled_from(WORDS), data=st.data())
def test_both_read_the_same_words_of_participants(
    word: tuple[Callable[[bytes], Any], Callable[[bytes], Any], bytes], data: st.DataObject
) -> None:
    ours, theirs, raw = word
    damaged = damage(raw, data)
    assert accepts(ours, damaged) == accepts(theirs, damaged)


HOSTILE: list[Any] = [
    None, True, 1.5, "", "R1", "r1", "-r", "a" * 65, "a" * 129, "A" * 128, "a" * 201, "b\n", "é", "/", "int32", "int64",
    "ed25519", "ed25519+ml-dsa-44", "active", "revoked", "free", "00" * 32, "11" * 32, "AA" * 32,
    [], {}, [[]], [1], ["fetch"], ["r1", "r1"], ["b", "a"], ["a", "b"], ["rovers"] * 65, [1] * 9,
    ["record"], ["X25519"], ["X25519", "X25519MLKEM768"], ["X448"], "spiffe://rover.example/participant/r1",
    [{"tensor": "a", "axis": 0, "min": 3}], [{"tensor": "a", "axis": 0, "min": 4}],
    [{"tensor": "b", "axis": 1, "min": 1}],
    [{"tensor": "b", "axis": 0, "min": 1}, {"tensor": "a", "axis": 0, "min": 1}], 2**31 - 1, 2_678_400_000_000,
    2_678_400_000_001, 2**53, 2**53 + 1,
    -1, 0, 1, 2, 40, 41, 64, 65, 500, 501, 36_500, 36_501, 999_999, 10**6, 10**6 + 1, 2**22, 2**22 + 1, 2**31,
    2**31 + 1, 2**40, 2**40 + 1, 10**15, 10**15 + 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63,
    [{"name": "a", "shape": [2**16, 2**15], "dtype": "int32"}],
    [{"name": "a", "shape": [2**16, 2**15 + 1], "dtype": "int32"}],
]  # fmt: skip
"""What is put in the place of each value of each document: other types, and both sides of every bound."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from places(inner, (*path, key))


def altered(raw: bytes) -> Iterator[bytes]:
    """The document with each of its values replaced, removed and doubled."""
    for *folders, last in places(json.loads(raw)):
        for change in [*HOSTILE, "remove", "double"]:
            value = inner = json.loads(raw)
            for folder in folders:
                inner = inner[folder]
            if change == "remove":
                del inner[last]
            elif change == "double" and isinstance(inner, list):
                inner.append(inner[last])
            elif change == "double":
                inner["extra"] = inner[last]
            else:
                inner[last] = change
            yield json.dumps(value).encode()


def one_of_each() -> dict[str, tuple[str, bytes]]:
    """The last document of each type, and of orders the last of each action: by what it is."""
    found = {}
    for payload_type, raw in DOCUMENT_BYTES:
        value = json.loads(raw)
        found[f"{value['type']} {value.get('action', '')}".strip()] = (payload_type, raw)
    return found


DOCUMENT_OF = one_of_each()


@pytest.mark.parametrize("name", DOCUMENT_OF)
def test_both_read_the_same_documents(name: str) -> None:
    payload_type, raw = DOCUMENT_OF[name]
    taken = 0
    for damaged in altered(raw):
        ours = accepts(lambda each: documents.parse_document(payload_type, each), damaged)
        assert ours == accepts(lambda each: parse_governance(payload_type, each), damaged), damaged
        taken += ours
    assert taken, "some changes are within the bounds"


def test_every_kind_of_document_is_read() -> None:
    assert len(DOCUMENT_OF) == 8 + 7


def test_both_read_the_same_roots() -> None:
    for damaged in altered(WHOLE.root):
        ours = accepts(lambda each: documents.parse_document(documents.ROOT_TYPE, each), damaged)
        assert ours == accepts(lambda each: parse_governance(documents.ROOT_TYPE, each), damaged), damaged


CEDAR = [
    '@id("a") permit (principal, action, resource);', "", "// only a comment",
    '// \u00e9\n@id("a") permit (principal, action, resource);',
    '@id("a") permit (principal, action, resource)',
    '@id("a") permit (principal, action, resource) when { ' + "(" * 15 + "true" + ")" * 15 + " };",
    '@id("a") permit (principal, action, resource) when { ' + "(" * 16 + "true" + ")" * 16 + " };",
    '@id("a") permit (principal, action, resource) when { ' + "true && " * 60 + "true };",
    '@id("a") permit (principal, action, resource) when { ' + "true && " * 70 + "true };",
    '@id("a;\\"b") permit (principal, action, resource);', '@id("é") permit (principal, action, resource);',
    "".join(f'@id("a{i}") permit (principal, action, resource);' for i in range(256)),
    "".join(f'@id("a{i}") permit (principal, action, resource);' for i in range(257)),
    '@id("a") permit (principal, action, resource) when { principal.name == "x" };',
    '@id("A") permit (principal, action, resource);',
    '@id permit (principal, action, resource);', '@id("a") permit (principal is Segment, action, resource);',
    '@id("a") permit (principal, action == Action::"fetch", resource);',
    '@id("a\\\n") permit (principal, action, resource);',
]  # fmt: skip


@pytest.mark.parametrize("cedar", CEDAR)
def test_both_take_the_same_rules(cedar: str) -> None:
    writer = Writer()
    writer.genesis()
    version = {"version": 1, "previous": "00" * 32, "expires_us": 2**62, "federation_id": writer.federation_id.hex()}
    raw = writer.json_of({"type": "rules", "cedar": cedar} | version)
    writer.append(writer.signed("rules", raw, ["ann", "bob"]), "governance")
    assert effects_in_fold(writer) == [True, not writer.replay().docket.findings]
