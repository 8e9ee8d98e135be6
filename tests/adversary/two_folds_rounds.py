"""What may be written into a log about rounds, documents and refusals: right, or with one thing wrong.

Each action takes a number and lets it choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.segments import Verdict
from sfrl_secure.rounds.begins import round_begins_with
from sfrl_secure.rounds.closing import counted_of
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.aggregator.results import Wanted
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from ..unit.replay.builder import DAY, RULES, SECOND, SEGMENT, STREAM, ZEROS, Writer, pb
from ..unit.replay.payloads import assemble
from .two_folds import BASE, MASK, MOMENTUM, NAMES, NEXT, SPARE_KEYS, TOKENS, Pair, of, open_terms

REASONS = (
    "weight_limit", "duplicate", "round_full", "round_not_open", "wrong_peer", "replayed", "policy_denied",
    "participant_inactive", "unknown_segment", "not_canonical", "malformed", "deadline", "halted", "quota_updates",
    "quota_bytes", "noise_too_small", "leak_noise", "not_received", "bad_signature", "digest_mismatch",
    "payload_length", "norm_limit", "leak_labels", "policy_error", "too_dense", "leak_coordinates", "made_up",
)  # fmt: skip
UPDATES = ({1: 5}, {0: -3, 13: 9}, {i: i + 1 for i in range(10)}, {2: 127 * 64}, {})
EVENLY = ("bf16", "exact", "fp32", "int8", "packed")
FORMS: tuple[tuple[str, str, dict[int, int]], ...] = (
    *(("free", "int8", update) for update in UPDATES),
    *(("free", values, update) for values in EVENLY for update in UPDATES[1:3]),
    *(("agreed", values, update) for values in EVENLY for update in (UPDATES[1], {})),
    *(("dense", values, update) for values in EVENLY for update in (UPDATES[0], {i: i - 8 for i in range(17)})),
    ("free", "sign", {3: 5, 9: -5}),
    ("agreed", "sign", {i: 4 if i % 2 else -4 for i in MASK}),
    ("dense", "sign", {i: -6 if i % 3 else 6 for i in range(17)}),
    ("dense", "sign", {}),
)
"""Support mode, value type and values of payloads that every decoder takes."""


def let_time_pass(pair: Pair, n: int) -> None:
    pair.log.now = max(pair.log.now, of(pair.limits(), n) + (n // 8) % 3 - 1 - SECOND)


def open_round(pair: Pair, n: int) -> None:
    segment = pair.fold.state.segments[SEGMENT]
    begins = round_begins_with(segment)
    named: dict[str, Any] = {"state": begins.server_state or b"", "mask": begins.mask or b""}
    masks = [segment.terms.mask.digest] if segment.terms.mask is not None else []
    wrong: dict[str, Any] = of(
        [{}, {}, {}, {}, {"round": 1}, {"base": b"\1" * 32}, {"terms": b"\1" * 32}, {"state": b""},
         {"state": b"\1" * 32}, {"mask": b""}, {"mask": of([b"\1" * 32, *masks, *masks], n // 11)}],
        n,
    )  # fmt: skip
    pair.log.open_round(body=named | wrong)


def form(log: Writer, n: int) -> tuple[str, str, dict[int, int]]:
    """One of the forms; the values of an agreed update stand at the coordinates of the round's mask."""
    support, values, update = of(FORMS, n)
    if support == "agreed":
        update = {c: update.get(i, 0) for c, i in zip(log.mask_indices, MASK, strict=False)}
    return support, values, update


def admit(pair: Pair, n: int) -> None:
    log = pair.log
    name, (support, values, update) = of(NAMES, n), form(log, n // len(NAMES))
    other: dict[str, Any] = of(
        [
            {}, {}, {}, {"weight": 100}, {"weight": 101}, {"weight": 0}, {"weight": 60}, {"keys": [SPARE_KEYS[1]]},
            {"fields": {"round": 7}}, {"fields": {"segment": "sand"}}, {"fields": {"base_model": b"\2" * 32}},
            {"fields": {"federation_id": b"\2" * 32}}, {"fields": {"values": 2}}, {"fields": {"support": 3}},
            {"fields": {"codec": 1}}, {"fields": {"nonzeros": 3}}, {"fields": {"nonzeros": 17, "support": 3}},
            {"fields": {"nonzeros": len(MASK), "support": 2}}, {"fields": {"payload_root": b"\2" * 32}},
            {"fields": {"noise_std": 3}}, {"fields": {"noise_std": 9000}}, {"fields": {"payload_bytes": 4097}},
            {"retain_until_us": log.now + 30 * 86_400 * SECOND},
            {"retain_until_us": log.now + SECOND + 30 * 86_400 * SECOND}, {"rule_ids": ["known"]},
            {"rule_ids": ["cleared", "known"]},
            {"facts": {"norm": 1}}, {"payload": b"SFRU" + bytes(60)}, {"payload": None},
            {"writer": log.aggregator}, {"valid_until_us": log.now + SECOND}, {"valid_until_us": log.now + SECOND + 1},
        ],
        n // (len(NAMES) * len(FORMS)),
    )  # fmt: skip
    if "payload" in other and other["payload"] is None:
        other = {"payload": broken(log, support, values, update)}
    log.admit(name, update, void=True, **{"weight": 10, "value_type": values, "support": support, **other})


def broken(log: Writer, support: str, values: str, update: dict[int, int]) -> bytes:
    """The payload with a bit of its last byte turned, and the hashes over it as they must be."""
    payload = log.payload_of(update, values, support)
    begin = 60 if support == "agreed" else 28
    if len(payload) == begin:
        return payload
    leaf = payload[begin + 36 : -1] + bytes([payload[-1] ^ 16])
    return assemble(payload[:begin], [leaf])


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
            {"rule_ids": ["heavy"], "weight": 60},
            {"rule_ids": ["large"], "evidence": 2, "update": {2: 127 * 64}}, {"rule_ids": ["cleared"]},
            {"peer": "spiffe://rover.example/participant/r3"}, {"fields": None}, {"fields": None},
            {"fields": None, "evidence": 2, "payload": b"SFRU" + bytes(60)},
            {"fields": {"payload_root": b"\2" * 32}, "evidence": 2}, {"fields": {"nonzeros": 9, "support": 3}},
        ],
        n // 97,
    )  # fmt: skip
    if "fields" in other and other["fields"] is None:
        other = formed(log, n // 11) | {key: value for key, value in other.items() if key != "fields"}
    log.refuse(of(NAMES, n), of(REASONS, n // 5), **{"evidence": of((1, 1, 2, 3), n // 3)} | other)


def formed(log: Writer, n: int) -> dict[str, Any]:
    """An update of any form, as `refuse` is given it."""
    support, values, update = form(log, n)
    payload = log.payload_of(update, values, support)
    return {"update": update or {1: 5}, "payload": payload, "fields": log.form_of(update, values, support)}


def close(pair: Pair, n: int) -> None:
    """Close as the segment's state asks, or with one thing wrong."""
    current = pair.fold.state.segments[SEGMENT].current
    if current is None:
        return
    other: dict[str, Any] = of(
        [{}, {}, {}, {"cause": 1}, {"cause": 2}, {"outcome": 1}, {"outcome": 2}, {"count": 9}, {"round": 5},
         {"cause": 3}],
        n,
    )  # fmt: skip
    defective = {
        name for name, seen in pair.replay.state.segments[SEGMENT].round.admissions.items()  # type: ignore[union-attr]
        if seen.verdict is not Verdict.SOUND
    }  # fmt: skip
    dropped = {}
    for name in sorted(current.admissions):
        if name in current.withdrawn:
            dropped[name] = "withdrawn"
        elif name in current.excluded:
            dropped[name] = "excluded"
        elif not pair.fold.state.is_active(name, pair.log.now + SECOND):
            dropped[name] = "participant_inactive"
        elif name in defective and not current.ended_by_order:
            dropped[name] = "defective"
    if n // 10 % 5 == 4 and not defective:
        dropped = {}
    counted = [admission for name, admission in sorted(current.admissions.items()) if name not in dropped]
    leaves = [
        leaf_hash(
            each.update.participant.encode() + b"\0" + each.statement_digest + each.update.weight.to_bytes(4, "big")
        )
        for each in counted
    ]
    named = {
        "round": current.number, "cause": 3 if current.ended_by_order else 1 if current.is_full else 2,
        "outcome": 1 if len(counted) >= current.terms.round.cohort_min and not current.ended_by_order else 2,
        "count": len(counted),
    } | other  # fmt: skip
    body = pb(
        (1, named["round"]), (2, named["cause"]), (3, named["outcome"]), (4, named["count"]), (5, root_of(leaves)),
        (6, [pb((1, name), (2, current.admissions[name].statement_digest), (3, dropped[name])) for name in dropped]),
    )  # fmt: skip
    pair.log.statement(11, body, STREAM, pair.log.aggregator)


def results(
    pair: Pair, current: RoundState, counted: Sequence[Admission], base: Digest, state: Digest | None
) -> dict[str, Any]:
    """What a model_published names of these updates on that base and state, as the services work it out."""
    made = pair.results.of(Wanted(current, tuple(counted), base, state, is_again=current.model is not None))
    return {
        "aggregate": made.aggregate, "model": made.model, "state": made.server_state or b"",
        "next_mask": made.next_mask or b"", "clusters": [cluster(each.members, each.model) for each in made.clusters],
    }  # fmt: skip


def cluster(members: Sequence[int], model: bytes = b"\6" * 32) -> bytes:
    return pb((1, list(members)), (2, model))


NOTHING: dict[str, Any] = {"aggregate": ZEROS, "model": ZEROS, "state": b"", "next_mask": b"", "clusters": []}
BESIDE: list[dict[str, Any]] = [
    {}, {}, {}, {}, {"state": b"\7" * 32}, {"next_mask": b"\7" * 32}, {"clusters": [cluster([0, 1])]},
    {"clusters": [cluster([0])]}, {"clusters": [cluster([1, 2])]}, {"clusters": [cluster([0, 3])]},
    {"clusters": [cluster([0, 2]), cluster([2])]}, {"clusters": [cluster([1, 0])]}, {"clusters": [cluster([0, 500])]},
    {"clusters": [cluster([i]) for i in range(9)]},
]  # fmt: skip
"""What a model_published may name beside its model where terms have no such thing, or wrong in itself."""


def beside(current: RoundState, n: int, *, is_again: bool = False) -> dict[str, Any]:
    """One of them, if it is wrong under these terms; what only objects can show to be wrong is left out."""
    chosen: dict[str, Any] = of(BESIDE, n)
    terms = current.terms
    is_void = {
        "state": terms.server is None,
        "next_mask": terms.mask is None or terms.mask.next is None,
        "clusters": is_again or terms.rule.name != "clustered_mean/v1" or BESIDE.index(chosen) not in (6, 7, 8),
    }
    return chosen if all(is_void[name] for name in chosen) else {}


def model_fields(named: dict[str, Any], arithmetic: int, supersedes: bytes = b"") -> bytes:
    return pb(
        (1, named["round"]), (2, named["closed"]), (3, named["base"]), (4, named["aggregate"]), (5, named["model"]),
        (6, named["rule"]), (7, arithmetic), (8, supersedes), (9, named["state"]), (10, named["next_mask"]),
        (11, named["clusters"]),
    )  # fmt: skip


def publish_model(pair: Pair, n: int) -> None:
    """Publish what the round gives, or name something else."""
    segment = pair.fold.state.segments[SEGMENT]
    current = segment.current
    if current is None:
        return
    made = NOTHING
    if segment.awaits_model:
        assert current.closed is not None
        counted = counted_of(current, current.closed)
        made = results(pair, current, counted, current.base_model, current.server_state)
    wrong: list[dict[str, Any]] = [
        {},
        {},
        {"rule": "sum/v1"},
        {"closed": b"\1" * 32},
        {"base": b"\1" * 32},
        {"round": 7},
        beside(current, n // 24),
        beside(current, n // 24),
    ]
    named = made | {
        "round": current.number, "closed": current.closed_hash, "base": current.base_model,
        "rule": current.terms.rule.name,
    } | of(wrong, n)  # fmt: skip
    pair.log.statement(12, model_fields(named, 1 + n // 8 % 4 // 3), STREAM, pair.log.aggregator)


def publish_terms(pair: Pair, n: int) -> None:
    log = pair.log
    terms = open_terms(log)
    match n % 40:
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
        case 7:
            terms["quota"] = {"window_us": 700 * SECOND, "updates_max": 1, "bytes_max": 2**20}
        case 8:
            terms["quota"] = {"window_us": 31 * DAY, "updates_max": 100, "bytes_max": 150}
        case 9:
            terms["leakage"] = {**terms["leakage"], "nonzeros_min": 2, "weight_min": 20}
        case 10:
            terms["leakage"] = {**terms["leakage"], "noise_std_min": 3}
        case 11:
            terms["leakage"] = {**terms["leakage"], "rows": [{"tensor": "a", "axis": 0, "min": 2}]}
        case 12:
            terms["leakage"] = {**terms["leakage"], "labels": [{"tensor": "a", "axis": 1, "min": 2}]}
        case 14:
            terms |= {"support_modes": ["dense", "free"], "mask": None}
        case 15:
            terms["mask"] = log.put_mask(MASK[1:], NEXT)
        case 16:
            # What operators name as the mask is none.
            terms["mask"] |= {"digest": log.objects.put(b"SFRU and no mask").hex()}
        case 17:
            terms["mask"] = {**terms["mask"], "nonzeros": len(MASK) - 1}
        case 18:
            terms["relay_groups"] = []
        case 19:
            terms["value_types"] = ["exact", "sign"]
        case 20:
            terms["limits"] = {**terms["limits"], "nonzeros_max": 10}
        case 21:
            terms |= {"support_modes": ["free"]}
        case 22 | 23:
            terms["rule"] = {"name": "nnm_trimmed_mean/v1", "liars_ppm": 400_000}
        case 24:
            terms["rule"] = {"name": "multi_krum/v1", "liars_ppm": 0, "selected_ppm": 700_000}
        case 25:
            terms |= {"rule": {"name": "median/v1"}, "clip": {"median_ppm": 900_000}}
        case 26:
            terms |= {"rule": {"name": "union_mean/v1"}, "cap": {"contributors_below": 2, "magnitude": 3}}
        case 27 | 28 | 29:
            terms["rule"] = {"name": "clustered_mean/v1", "alike_ppm": 500_000}
            terms["round"] = {**terms["round"], "cohort_min": 1 + n % 2}
        case 30:
            terms["server"] = None
        case 31:
            terms["server"] = MOMENTUM | {"decay": 1}
        case 32 | 33:
            terms["server"] = {"name": "adaptive/v1", "decay": 9, "decay_max": 2**15, "rate": 99, "floor": 1}
        case 34:
            terms["mask"] = log.put_mask(MASK)
        case 35:
            terms["mask"] = log.put_mask(MASK, {"score": "votes", "regrow": 1, "protected": ["b"]})
        case 36:
            terms["mask"] = log.put_mask(MASK, {"score": "saliency", "regrow": 1, "protected": []})
        case 37:
            terms |= {"clip": {"norm": 3}, "cap": {"contributors_below": 4, "magnitude": 1}}
        case 38:
            terms["rule"] = {"name": "median/v1", "alike_ppm": 1}
    log.publish_terms(terms, **document_changes(pair, n // 40))


def change_rule(pair: Pair, n: int) -> None:
    """Terms that change how rounds are added up, in order."""
    publish_terms(pair, 22 + n % 16)


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
        TOKENS[0],
    ]
    body: dict[str, Any] = of([{}, {"groups": ["relays"]}, {"groups": []}, {"clearance": 1}], n // 20)
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
