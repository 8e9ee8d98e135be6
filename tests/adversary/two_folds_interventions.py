"""What may be written into a log about roots, enrolment, orders and what people sign: right, or with one thing wrong.

Each action takes a number and lets it choose.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sfrl_secure.rounds.begins import due_server_state
from sfrl_secure.rounds.reaggregation import counted_in_step, due_base, left_out_by, reveals_of

from ..unit.replay.builder import DAY, NEVER, SECOND, SEGMENT, STREAM, ZEROS, sha
from .two_folds import BASE, NAMES, OPERATORS, SPARE_KEYS, TOKENS, Pair, of
from .two_folds_rounds import UPDATES, beside, document_changes, model_fields, results

HOUR = 3600 * SECOND
WHO = (
    "participant/r1", "participant/r2", "participant/r5", "participant/r6", "operator/ann", "operator/dee",
    "operator/nobody", "auditor/eve", "service/gatekeeper/gatekeeper-1", "service/verifier/nobody",
)  # fmt: skip


def rotate_root(pair: Pair, n: int) -> None:
    """The next root, under the keys of the one before and its own, or under some of them."""
    log = pair.log
    before = {name: log.operators[name] for name in pair.fold.state.root.operators}  # type: ignore[union-attr]
    after: dict[str, Any] = of(
        [before, before, before | {"dee": OPERATORS[0]}, before | {"ann": OPERATORS[1]},
         before | {"dee": SPARE_KEYS[0]}, {name: before[name] for name in list(before)[:2]}],
        n,
    )  # fmt: skip
    keys = {key.public_key.key_id: key for key in (*before.values(), *after.values())}
    everybody = list(keys.values())
    signers = of([everybody, everybody, everybody, everybody, everybody[:2], everybody[1:]], n // 6)
    least = of([{"root": 2}, {"root": len(after)}, {"root": 1}], n // 36)
    body = {
        "operators": {name: log.key_of(key) for name, key in after.items()},
        "thresholds": {"root": 2, "governance": min(2, len(after)), "enrolment": 1, "revocation": 1} | least,
    }  # fmt: skip
    other: dict[str, Any] = of(
        [{}, {}, {}, {}, {"expires_us": log.now + 60 * SECOND}, {"expires_us": log.now + SECOND},
         {"trust_domain": "other.example"}, {"log_host": "lag.example"}, {"version": 1}, {"previous": "11" * 32},
         {"federation_id": "11" * 32}],
        n // 108,
    )  # fmt: skip
    log.rotate_root(signers, body=body, void=True, **other)


def invite(pair: Pair, n: int) -> None:
    log = pair.log
    key = of([*TOKENS, *TOKENS, SPARE_KEYS[0], BASE.participants["r1"]], n // 3)
    other: dict[str, Any] = of(
        [{}, {}, {}, {"expires_us": log.now + SECOND + 31 * DAY}, {"expires_us": log.now + SECOND + 31 * DAY + 1},
         {"expires_us": log.now + 20 * SECOND}, {"signers": ("ann", "bob")}, {"version": 1}],
        n // 24,
    )  # fmt: skip
    log.invite(of(["r5", "r6", "r1"], n), key, void=True, **other)


def record_by(pair: Pair, n: int) -> None:
    """Whoever has a token records a key."""
    log = pair.log
    name = of(["r5", "r6", "r1"], n)
    key = of([SPARE_KEYS[0], SPARE_KEYS[1], log.participants[name], TOKENS[0]], n // 3)
    join = pair.fold.state.join(name)
    token = of(TOKENS, n // 12)
    if join is not None and n // 36 % 4:
        token = next(each for each in (*TOKENS, *SPARE_KEYS) if each.public_key == join.join_key)
    other: dict[str, Any] = of(
        [{}, {}, {}, {"clearance": 8}, {"groups": []}, {"state": "suspended"}, {"expires_us": NEVER + 1},
         {"sign": [token, log.operators["ann"]]}, {"version": 1}, {"possession": "00" * 64}],
        n // 144,
    )  # fmt: skip
    log.record_by(token, name, key, void=True, **other)


def revoke_key(pair: Pair, n: int) -> None:
    """Mostly keys that open the door, under their own name or another; sometimes one that nobody has yet."""
    issued = pair.fold.state.issued
    key = of([*sorted(issued), b"\7" * 32, ZEROS], n)
    anybody = f"spiffe://rover.example/{of(WHO, n // 17)}"
    whose = of([str(issued.get(key, anybody)), str(issued.get(key, anybody)), anybody], n // 3)
    signers = of([("ann", "bob"), ("ann", "bob"), ("bob",), ("cyd",), ("ann", "cyd"), ("dee",)], n // 7)
    signers = tuple(name for name in signers if name in pair.log.operators) or ("ann",)
    other: dict[str, Any] = of([{}, {}, {}, {"version": 1, "previous": ZEROS.hex()}], n // 5)
    pair.log.revoke_key(whose, key, signers=signers, void=True, **other)


def issue(pair: Pair, n: int) -> None:
    log, state = pair.log, pair.fold.state
    spiffe_id = f"spiffe://rover.example/{of(WHO, n)}"
    spki = of([sha(spiffe_id.encode()), b"\7" * 32, sha(b"%d" % n), ZEROS], n // 10)
    last_us = state.last_requests.get(spki, log.now)  # type: ignore[call-overload]
    own = sorted(key for key, each in state.identities.items() if each.spiffe_id == spiffe_id)
    renews = of([b"", *own, *own, *own, b"\7" * 32, ZEROS], n // 40)
    end = of([None, None, None, log.now + SECOND, log.now + SECOND + 1, log.now + SECOND + 366 * DAY,
              log.now + SECOND + 366 * DAY + 1, log.now + 5 * SECOND], n // 7)  # fmt: skip
    request: dict[str, Any] = of(
        [{}, {}, {}, {}, {"created_us": log.now + SECOND - HOUR}, {"created_us": log.now + SECOND - HOUR - 1},
         {"created_us": log.now + SECOND + HOUR}, {"created_us": log.now + SECOND + HOUR + 1}, {"spki": b"\7" * 32},
         {"created_us": last_us}, {"created_us": last_us + 1}, {"created_us": last_us - 1},
         {"key_id": ZEROS}, {"federation_id": ZEROS}, {"spiffe_id": "spiffe://rover.example/auditor/eve"}],
        n // 11,
    )  # fmt: skip
    keys = [SPARE_KEYS[1]] if n % 13 == 12 else None
    log.issue(spiffe_id, spki, not_after_us=end, request=request, renews=renews, keys=keys)


def renew(pair: Pair, n: int) -> None:
    """As a participant would that has an identity, for that key or a new one; or with a request made too early."""
    log, state = pair.log, pair.fold.state
    own = sorted(key for key, each in state.identities.items() if each.spiffe_id.role == "participant")
    if not own:
        return
    renews = of(own, n)
    spki = of([renews, renews, sha(b"%d" % (n % 7)), ZEROS], n // 5)
    last_us = state.last_requests.get(spki, log.now)
    created_us = of([log.now + SECOND, log.now + SECOND, last_us, last_us - 1, last_us + 1], n // 3)
    log.issue(str(state.identities[renews].spiffe_id), spki, renews=renews, request={"created_us": created_us})


def order(pair: Pair, n: int) -> None:
    """Any order, about something that is there or not."""
    segment = pair.fold.state.segments[SEGMENT]
    digests = [*pair.fold.state.admitted_updates, ZEROS]
    rounds = [step.round for step in segment.lineage] or [1]
    first = of([*rounds, rounds[-1] + 1], n // 7)
    models = [step.model for step in segment.lineage]
    at = of([0, len(pair.log.entries) - 1, len(pair.log.entries)], n // 7)
    action, target = of(
        [("halt", {}), ("resume", {}), ("exclude", {"update": of(digests, n // 7)}),
         ("rollback", {"model": of([*models, segment.terms.model.initial, ZEROS], n // 7)}),
         ("reaggregate", {"from_round": first, "reveals": reveals(pair, first, n // 7)}),
         ("accept", {"index": at, "code": "writer"}),
         ("override", {"decision": of([*pair.fold.state.decisions, ZEROS], n // 7), "class": n % 5})],
        n,
    )  # fmt: skip
    changes = document_changes(pair, n // 70) if n // 3500 else {}
    ends = of([{}, {}, {}, {"expires_us": pair.log.now + SECOND + 72 * HOUR},
               {"expires_us": pair.log.now + SECOND + 72 * HOUR + 1}, {"signers": ("ann",)}], n // 11)  # fmt: skip
    pair.log.order(action, target, void=True, **(ends | changes))


def reveals(pair: Pair, first: int, n: int) -> list[str]:
    """Who is given away, as the services have it; or too many or too few of them."""
    state = pair.fold.state
    names: list[str] = []
    with suppress(LookupError, AssertionError):
        segment = state.segments[SEGMENT]
        names = list(reveals_of(segment, left_out_by(state, segment, first)))
    return of([names, names, names, names[1:], sorted({*names, "r1"})], n)  # type: ignore[no-any-return]


def give_order(pair: Pair, n: int) -> None:
    """An order that fits what there is: leave something out, then derive again; or stop, and go on."""
    state = pair.fold.state
    segment = state.segments[SEGMENT]
    if segment.is_halted:
        pair.log.order("resume", void=True)
        return
    counted = [each for step in segment.lineage for each in counted_in_step(segment.rounds[step.round])]
    newly = left_out_by(state, segment, segment.lineage[0].round) if segment.lineage else {}
    if any(newly.values()):
        first = next(number for number, names in sorted(newly.items()) if names)
        first = min([first, *segment.due[:1]])
        names = list(reveals_of(segment, left_out_by(state, segment, first)))
        pair.log.order("reaggregate", {"from_round": first, "reveals": names}, void=True)
    elif counted:
        pair.log.order("exclude", {"update": of(counted, n).statement_digest}, void=True)
    else:
        pair.log.order("halt", void=True)


def publish_again(pair: Pair, n: int) -> None:
    """The model of the first step due, or something near it."""
    segment = pair.fold.state.segments[SEGMENT]
    if not segment.lineage:
        return
    step = next((each for each in segment.lineage if segment.due and each.round == segment.due[0]), segment.lineage[-1])
    current = segment.rounds[step.round]
    base = due_base(segment) if segment.due else step.base
    state = due_server_state(segment) if segment.due else current.server_state
    made = results(pair, current, counted_in_step(current), base, state)
    wrong: dict[str, Any] = of(
        [{}, {}, {}, {"rule": "sum/v1"}, {"closed": b"\1" * 32}, {"base": step.base}, {"round": step.round + 1},
         {"supersedes": b"\1" * 32}, {"supersedes": b""}, *2 * [beside(current, n // 90, is_again=True)]],
        n,
    )  # fmt: skip
    named = made | {
        "round": step.round, "closed": current.closed_hash, "base": base, "rule": current.terms.rule.name,
        "supersedes": step.published,
    } | wrong  # fmt: skip
    body = model_fields(named, 1 + n // 11 % 8 // 7, named["supersedes"])
    pair.log.statement(12, body, STREAM, pair.log.aggregator)


def withdraw(pair: Pair, n: int) -> None:
    segment = pair.fold.state.segments[SEGMENT]
    current = segment.current
    admissions = {} if current is None else current.admissions
    name = of([*sorted(admissions), *sorted(admissions), "r4"], n)
    own = admissions[name].statement_digest if name in admissions else ZEROS
    fields: dict[str, Any] = of(
        [{}, {}, {}, {"update": ZEROS}, {"round": 9}, {"opened": ZEROS}, {"segment": "sand"}, {"federation_id": ZEROS},
         {"key_id": ZEROS}, {"created_us": 2}],
        n // 7,
    )  # fmt: skip
    keys = [SPARE_KEYS[1]] if n % 17 == 16 else None
    pair.log.withdraw(name, fields={"update": own} | fields, keys=keys)


def complain(pair: Pair, n: int) -> None:
    fields: dict[str, Any] = of(
        [{}, {}, {}, {"round": 9}, {"round_opened": ZEROS}, {"segment": "sand"}, {"federation_id": ZEROS}], n // 6
    )
    writer = of([pair.log.auditor, pair.log.verifier, pair.log.gatekeeper], n // 42)
    pair.log.complain(of(NAMES, n), of(UPDATES[:4], n // 126), fields=fields, writer=writer)


def decide(pair: Pair, n: int) -> None:
    models = sorted(pair.fold.state.segments[SEGMENT].models)
    fields: dict[str, Any] = of(
        [{}, {}, {}, {"model": ZEROS}, {"segment": "sand"}, {"federation_id": ZEROS}, {"key_id": ZEROS}], n // 6
    )
    keys = [SPARE_KEYS[1]] if n % 17 == 16 else None
    pair.log.decide(of(NAMES, n), 1 + n // 42 % 4, fields={"model": of(models, n // 3)} | fields, keys=keys)
