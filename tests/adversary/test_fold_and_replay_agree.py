"""Random histories, honest and not: the services' fold and the verifier's replay see one federation, entry by entry.

Whoever finds an entry that one of them takes and the other voids can frame every honest writer after it: from then on
the two have different heads, and each statement of an honest service is stale to the verifier. So the driver compares
everything that both derive, after every entry, and lets time stop just before, at and just after each limit.

Left out is what needs an object before it has effect: a closing that drops a sound update as defective, and a model
that is not the rule's. The fold has no objects; see test_forged_history.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.models import encode_aggregate, parse_model
from sfrl_secure.aggregation.weighted_mean import WeightedMean
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.replay.fold import Replay
from sfrl_secure.replay.state import Verdict
from sfrl_secure.rounds.closing import counted_of
from sfrl_secure.rounds.fold import Content, FederationFold
from sfrl_secure.rounds.payloads import check_admission
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from ..unit.replay.builder import NEVER, RULES, SECOND, SEGMENT, STREAM, ZEROS, RoundNow, Writer, pb

BASE = Writer().begin()
SPARE_KEYS = [SigningKey.generate("ed25519") for _ in range(2)]
NAMES = ("r1", "r2", "r3", "r4", "r5")
REASONS = (
    "weight_limit", "duplicate", "round_full", "round_not_open", "wrong_peer", "replayed", "policy_denied",
    "participant_inactive", "unknown_segment", "not_canonical", "malformed", "deadline",
)  # fmt: skip
UPDATES = ({1: 5}, {0: -3, 13: 9}, {i: i + 1 for i in range(10)}, {2: 127 * 64}, {})


class WatchedReplay(Replay):
    """Says whether its last entry had effect."""

    has_effect = False

    def step(self, raw: bytes) -> Any:
        self.has_effect = False
        return super().step(raw)

    def _apply(self, content: Any, envelope: Any, at: Any) -> None:
        super()._apply(content, envelope, at)
        self.has_effect = True


class Pair:
    """One log, read by both."""

    def __init__(self) -> None:
        self.log = copy.copy(BASE)
        for name in (
            "entries",
            "objects",
            "streams",
            "control_heads",
            "versions",
            "operators",
            "services",
            "participants",
        ):
            setattr(self.log, name, copy.copy(getattr(BASE, name)))
        self.log.participants["r5"] = SPARE_KEYS[0]
        self.fold = FederationFold(BASE.origin, (BASE.signer.key.vkey, BASE.cosigner.key.vkey))
        self.replay = WatchedReplay(BASE.trust, self.log.objects)
        self.read = 0
        self.catch_up()

    def catch_up(self) -> None:
        """Give both what was written, and compare."""
        for raw in self.log.entries[self.read :]:
            entry = parse_entry(raw)
            content: Content | None = None
            with suppress(MalformedError):
                content = parse_content(entry.envelope)
            void = self.fold.apply(self.read, leaf_hash(raw), entry, content)
            findings = self.replay.step(raw)
            assert (void is None) == self.replay.has_effect, (void, findings)
            self.read += 1
            self.compare()
        self.follow()

    def compare(self) -> None:
        fold, replay = self.fold.state, self.replay.state
        assert fold.federation_id == replay.federation_id
        assert fold.governance_head == replay.governance_head
        assert {name: (s.next_seq, s.last) for name, s in fold.streams.items()} == replay.streams
        assert {series: placed.document.digest for series, placed in fold.placed.items()} == {
            series: document.digest for series, document in replay.in_force.items()
        }
        assert fold.owners._owners == replay.owners
        assert fold.issued == replay.identities
        assert fold.recorded_peers == replay.peers
        assert {key: name.update.participant for key, name in fold.admitted_updates.items()} == replay.admitted
        assert {(p, s, r, n): c for (p, s, n, r), c in fold.single_refusals.items()} == replay.refusals
        assert fold.last_anchor_size == replay.anchored_size
        assert fold.segments.keys() == replay.segments.keys()
        for name, segment in fold.segments.items():
            other = replay.segments[name]
            assert (segment.control_head, segment.model, segment.models) == (
                other.control_head,
                other.model,
                other.models,
            )
            assert segment.last_round == other.last_round
            current = segment.current
            if current is None or other.round is None:
                assert current is None
                assert other.round is None
                continue
            assert (current.opened, current.deadline_us, current.base_model) == (
                other.round.opened, other.round.deadline_us, other.round.base_model,
            )  # fmt: skip
            assert (current.closed_hash, current.is_open) == (other.round.closed_hash, other.round.closed is None)
            assert current.admissions.keys() == other.round.admissions.keys()
            for who, admission in current.admissions.items():
                try:
                    check_admission(admission, current.terms, self.log.objects[admission.update.payload_sha256])
                    verdict = Verdict.SOUND
                except DeniedError:
                    verdict = Verdict.DEFECTIVE
                assert other.round.admissions[who].verdict is verdict

    def follow(self) -> None:
        """Let the writer know what had effect, as an honest one would by reading on."""
        state, log = self.fold.state, self.log
        log.governance_head = state.governance_head
        log.versions = {
            series: (placed.document.version, placed.document.digest) for series, placed in state.placed.items()
        }
        log.control_heads = {f"segment/{name}": segment.control_head for name, segment in state.segments.items()}
        segment = state.segments[SEGMENT]
        log.terms_raw, log.last_round, log.model_digest = segment.terms.raw, segment.last_round, segment.model
        current = segment.current
        log.round = None if current is None else RoundNow(current.number, current.opened, current.base_model)
        for name in log.participants:
            record = state.participant(name)
            keys = [*BASE.participants.values(), *SPARE_KEYS]
            if record is not None:
                log.participants[name] = next(k for k in keys if k.public_key.key_id == record.key.key_id)

    def limits(self) -> list[int]:
        """Times at which something ends."""
        state = self.fold.state
        ends = [placed.document.expires_us for placed in state.placed.values() if placed.document.expires_us < NEVER]
        ends += [r.deadline_us for s in state.segments.values() for r in s.rounds.values() if r.is_open]
        ends += [end + 120 * SECOND for end in ends]
        return sorted(end for end in ends if end > self.log.now) or [self.log.now + 60 * SECOND]


def of(choices: Any, n: int) -> Any:
    return choices[n % len(choices)]


def let_time_pass(pair: Pair, n: int) -> None:
    pair.log.now = max(pair.log.now, of(pair.limits(), n) + (n // 8) % 3 - 1 - SECOND)


def open_round(pair: Pair, n: int) -> None:
    wrong: dict[str, Any] = of([{}, {}, {}, {"round": 1}, {"base": b"\1" * 32}, {"terms": b"\1" * 32}], n)
    pair.log.open_round(body=wrong)


def admit(pair: Pair, n: int) -> None:
    log = pair.log
    name, update = of(NAMES, n), of(UPDATES, n // 5)
    other: dict[str, Any] = of(
        [
            {}, {}, {}, {"weight": 100}, {"weight": 101}, {"weight": 0}, {"weight": 60}, {"keys": [SPARE_KEYS[1]]},
            {"fields": {"round": 7}}, {"fields": {"segment": "sand"}}, {"fields": {"base_model": b"\2" * 32}},
            {"fields": {"federation_id": b"\2" * 32}}, {"fields": {"values": 2}}, {"fields": {"codec": 2}},
            {"fields": {"nonzeros": 3}}, {"fields": {"payload_bytes": 4097}},
            {"retain_until_us": log.now + 30 * 86_400 * SECOND},
            {"retain_until_us": log.now + SECOND + 30 * 86_400 * SECOND}, {"rule_ids": ["known"]},
            {"rule_ids": ["cleared", "known"]},
            {"facts": {"norm": 1}}, {"payload": b"SFRU" + bytes(60)}, {"writer": log.aggregator},
            {"valid_until_us": log.now + SECOND}, {"valid_until_us": log.now + SECOND + 1},
        ],
        n // 25,
    )  # fmt: skip
    log.admit(name, update, void=True, **{"weight": 10, **other})


def refuse(pair: Pair, n: int) -> None:
    log = pair.log
    other: dict[str, Any] = of(
        [
            {}, {"weight": 0}, {"evidence": 2, "update": {2: 127 * 64}}, {"evidence": 3}, {"quoted": False,
            "evidence": 3},
            {"quoted": False}, {"peer": "spiffe://rover.example/participant/r4"}, {"stream": "log"},
            {"fields": {"segment": "sand"}, "stream": "log"}, {"fields": {"segment": "sand"}},
            {"stream": "segment/sand"},
            {"peer": "spiffe://rover.example/operator/ann"}, {"stream": "identity"}, {"fields": {"round": 9}},
            {"quoted": False, "evidence": 3, "stream": "log"}, {"keys": [SPARE_KEYS[1]]},
        ],
        n // 60,
    )  # fmt: skip
    log.refuse(of(NAMES, n), of(REASONS, n // 5), **other)


def close(pair: Pair, n: int) -> None:
    """Close as the segment's state asks, or with one thing wrong."""
    current = pair.fold.state.segments[SEGMENT].current
    if current is None:
        return
    other: dict[str, Any] = of(
        [{}, {}, {}, {"cause": 1}, {"cause": 2}, {"outcome": 1}, {"outcome": 2}, {"count": 9}, {"round": 5}], n
    )
    defective = {
        name for name, seen in pair.replay.state.segments[SEGMENT].round.admissions.items()  # type: ignore[union-attr]
        if seen.verdict is not Verdict.SOUND
    }  # fmt: skip
    dropped = {}
    for name in sorted(current.admissions):
        if name in defective:
            dropped[name] = "defective"
        elif not pair.fold.state.is_active(name, pair.log.now + SECOND):
            dropped[name] = "participant_inactive"
    if n // 9 % 5 == 4 and not defective:
        dropped = {}
    counted = [admission for name, admission in sorted(current.admissions.items()) if name not in dropped]
    leaves = [
        leaf_hash(
            each.update.participant.encode() + b"\0" + each.statement_digest + each.update.weight.to_bytes(4, "big")
        )
        for each in counted
    ]
    named = {
        "round": current.number, "cause": 1 if current.is_full else 2,
        "outcome": 1 if len(counted) >= current.terms.round.cohort_min else 2, "count": len(counted),
    } | other  # fmt: skip
    body = pb(
        (1, named["round"]), (2, named["cause"]), (3, named["outcome"]), (4, named["count"]), (5, root_of(leaves)),
        (6, [pb((1, name), (2, current.admissions[name].statement_digest), (3, dropped[name])) for name in dropped]),
    )  # fmt: skip
    pair.log.statement(11, body, STREAM, pair.log.aggregator)


def publish_model(pair: Pair, n: int) -> None:
    """Publish what the round gives, or name something else."""
    segment = pair.fold.state.segments[SEGMENT]
    current = segment.current
    if current is None:
        return
    aggregate, model = ZEROS, ZEROS
    if segment.awaits_model:
        terms = current.terms.model
        mean = WeightedMean(terms.manifest.coordinates)
        assert current.closed is not None
        for admission in counted_of(current, current.closed):
            update = admission.update
            decoded = decode_update(
                pair.log.objects[update.payload_sha256], coordinates=17, nonzeros=update.nonzeros,
                value_type=update.format.values, grid_exponent=terms.grid_exponent,
            )  # fmt: skip
            mean.add(decoded.indices, decoded.values, update.weight)
        base = parse_model(pair.log.objects[current.base_model], terms.manifest, terms.grid_exponent)
        aggregate = pair.log.objects.put(encode_aggregate(terms.manifest, terms.grid_exponent, mean.result()))
        model = pair.log.objects.put(base.add(mean.result()).to_bytes())
    wrong: list[dict[str, Any]] = [
        {},
        {},
        {"rule": "sum/v1"},
        {"closed": b"\1" * 32},
        {"base": b"\1" * 32},
        {"round": 7},
    ]
    named = {
        "round": current.number, "closed": current.closed_hash, "base": current.base_model, "rule": "weighted_mean/v1"
    } | of(wrong, n)  # fmt: skip
    body = pb(
        (1, named["round"]), (2, named["closed"]), (3, named["base"]), (4, aggregate), (5, model), (6, named["rule"]),
        (7, 1 + n // 6 % 4 // 3),
    )  # fmt: skip
    pair.log.statement(12, body, STREAM, pair.log.aggregator)


def publish_terms(pair: Pair, n: int) -> None:
    log = pair.log
    terms = log.terms()
    match n % 8:
        case 0:
            terms["round"] = {**terms["round"], "cohort_max": 2}
        case 1:
            terms["round"] = {**terms["round"], "rounds_max": max(1, log.last_round)}
        case 2:
            terms["limits"] = {**terms["limits"], "weight_max": 5}
        case 3:
            terms["groups"] = ["others"]
        case 4:
            terms["model"] = {**terms["model"], "grid_exponent": 9}
        case 5:
            terms["operations"] = ["fetch"]
        case 6:
            terms["segment"] = "sand"
    log.publish_terms(terms, **document_changes(pair, n // 8))


def publish_rules(pair: Pair, n: int) -> None:
    cedar = of(
        [
            RULES, RULES.replace('"known"', '"others"'), "",
            '@id("never") forbid (principal, action, resource);' + RULES,
            RULES + '@id("error") forbid (principal, action, resource) when '
            "{ context.weight * 9223372036854775807 > 0 };",
            RULES.replace('"known"', '"heavy"'), RULES + "x",
        ],
        n,
    )  # fmt: skip
    pair.log.publish_rules(cedar, **document_changes(pair, n // 7))


def publish_services(pair: Pair, n: int) -> None:
    log = pair.log
    log.services = dict(BASE.services)
    match n % 6:
        case 0:
            del log.services[log.aggregator]
        case 1:
            log.services[log.gatekeeper] = BASE.services[log.aggregator]
        case 2:
            log.services[log.gatekeeper] = BASE.operators["ann"]
        case 3:
            log.services["spiffe://rover.example/service/gatekeeper/second"] = SPARE_KEYS[1]
    log.publish_services(**document_changes(pair, n // 6))
    log.services = dict(BASE.services)


def record(pair: Pair, n: int) -> None:
    name = of(NAMES, n)
    state = of(["active", "active", "suspended", "revoked"], n // 5)
    keys = [
        None,
        None,
        SPARE_KEYS[0],
        SPARE_KEYS[1],
        BASE.participants["r1"],
        BASE.operators["ann"],
        BASE.services[BASE.gatekeeper],
    ]
    body: dict[str, Any] = of([{}, {}, {"groups": []}, {"clearance": 1}], n // 20)
    changes = document_changes(pair, n // 80)
    changes["signers"] = changes.get("signers", ("ann",))
    pair.log.record(name, state=state, key=of(keys, n // 40), body=body, **changes)


def document_changes(pair: Pair, n: int) -> dict[str, Any]:
    """Something that a document can have wrong, or a near end."""
    return of(
        [
            {}, {}, {}, {"expires_us": pair.log.now + 30 * SECOND}, {"expires_us": pair.log.now + SECOND},
            {"expires_us": pair.log.now + SECOND + 1}, {"signers": ()}, {"signers": ("ann", "bob", "cyd")},
            {"version": 1}, {"previous": "11" * 32}, {"federation_id": "11" * 32},
        ],
        n,
    ) if n % 11 != 6 else {"signers": ("cyd",)}  # fmt: skip


def issue(pair: Pair, n: int) -> None:
    who = of(
        [
            "participant/r1", "participant/r5", "operator/ann", "operator/nobody", "auditor/eve",
            "service/gatekeeper/gatekeeper-1", "service/verifier/nobody",
        ],
        n,
    )  # fmt: skip
    spki = of([None, b"\7" * 32], n // 7)
    end = of([NEVER, pair.log.now + SECOND, pair.log.now + SECOND + 1], n // 14)
    pair.log.issue(f"spiffe://rover.example/{who}", spki, not_after_us=end)


def say_again(pair: Pair, n: int) -> None:
    """An envelope of the log once more, as it was or with other signatures."""
    envelope = parse_entry(of(pair.log.entries, n)).envelope
    operators = list(BASE.operators.values())
    if n % 3 == 1:
        envelope = sign_envelope(envelope.payload_type, envelope.statement, operators[: 1 + n // 3 % 3])
    elif n % 3 == 2:
        last = parse_entry(pair.log.entries[-1]).envelope
        envelope = sign_envelope(last.payload_type, last.statement, operators[: 1 + n // 3 % 3])
    append(pair, envelope)


def append(pair: Pair, envelope: Envelope) -> None:
    stream = None
    try:
        content = parse_content(envelope)
        stream = getattr(content, "stream", "governance")
    except MalformedError:
        pass
    pair.log.append(envelope, stream)


def say_nonsense(pair: Pair, n: int) -> None:
    kind = of(["statement.v1", "update.v1", "rules.v1+json", "other.v1"], n)
    append(pair, sign_envelope(f"application/vnd.sfrl.{kind}", b"\x08" + bytes([n % 256]), [SPARE_KEYS[1]]))


def drop_too_many(pair: Pair, n: int) -> None:
    names = sorted(f"x{number:03}" for number in range(500 + n % 3))
    dropped = [pb((1, name), (2, b"\5" * 32), (3, "defective")) for name in names]
    raw = pb((1, 1), (2, 2), (3, 2), (5, b"\5" * 32), (6, dropped))
    pair.log.statement(11, raw, STREAM, pair.log.aggregator, void=True)


def say_little(pair: Pair, n: int) -> None:
    if n % 2:
        pair.log.count(writer=of([pair.log.gatekeeper, pair.log.audit_log, pair.log.aggregator], n // 2))
    else:
        pair.log.fetch([(of(NAMES, n // 2), of([pair.log.model_digest, b"\3" * 32], n // 10))])


def anchor(pair: Pair, n: int) -> None:
    """An anchor of any size and log, by anybody, with or without lines that mean something."""
    log = pair.log
    sizes = [len(log.entries), len(log.entries) - 1, 0, 1, pair.fold.state.last_anchor_size + n % 2]
    note = log.anchor_note(max(0, of(sizes, n)), times=of([None, {"w1": 1}, {}], n // 5))
    note = of([note, note, note, note.replace(b"log.example", b"lag.example"), note[:-2], b""], n // 15)
    # An entry in a note's place is no note; one more than there is, is a note of the future.
    if n % 97 == 0:
        note = note.replace(b"\n%d\n" % len(log.entries), b"\n%d\n" % (len(log.entries) + 1), 1)
    stream = of(["log", "log", "log", "identity", STREAM], n // 90)
    log.anchor(note, stream=stream, writer=of([log.audit_log, log.audit_log, log.gatekeeper], n // 450))


def be_stale(pair: Pair, n: int) -> None:
    wrong: dict[str, Any] = of(
        [
            {"reads_governance": b"\4" * 32},
            {"reads_segment": b"\4" * 32},
            {"named_stream": "segment/none"},
            {"key_id": b"\4" * 32},
        ],
        n,
    )
    if "named_stream" in wrong:
        wrong["entry_stream"] = "segment/none"
    pair.log.statement(
        15, pb((1, 1), (2, 1), (3, [pb((1, "r1"), (2, pair.log.model_digest))])), STREAM, pair.log.gatekeeper, **wrong
    )


def go_on(pair: Pair, n: int) -> None:
    """What honest services would do next, so that histories get further than their first fault."""
    pair.log.now += 1 + n % 3
    segment = pair.fold.state.segments[SEGMENT]
    current = segment.open_round
    if segment.awaits_model:
        publish_model(pair, 0)
    elif current is None:
        open_round(pair, 0)
    elif current.is_full or pair.log.now + SECOND >= current.deadline_us:
        close(pair, 0)
    elif len(current.admissions) == 2 and n % 2:
        pair.log.now = current.deadline_us - SECOND
    else:
        absent = [name for name in ("r1", "r2", "r3", "r4") if name not in current.admissions]
        admit(pair, NAMES.index(of(absent, n)) + 5 * (n % 3))


ACTIONS: tuple[Callable[[Pair, int], None], ...] = (
    let_time_pass, open_round, admit, refuse, close, publish_model, publish_terms, publish_rules,
    publish_services, record,
    issue, say_again, say_nonsense, drop_too_many, say_little, anchor, be_stale,
)  # fmt: skip
OFTEN = (go_on,) * 16
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS + OFTEN), st.integers(0, 4095)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=200)
@given(steps=STEPS)
def test_random_histories_mean_the_same_to_both(steps: list[tuple[Callable[[Pair, int], None], int]]) -> None:
    pair = Pair()
    for act, n in steps:
        act(pair, n)
        pair.catch_up()
