"""The fold: each reason for which an entry is void, and that a void entry changes nothing.

Documents, identities, orders and participants' words have files of their own beside this one.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from simulator import DAY_US, NOW_US, Simulator, service_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import (
    CloseCause,
    CloseOutcome,
    DroppedUpdate,
    Evidence,
    PayloadFormat,
    RoundClosed,
    Statement,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, sha256
from sfrl_secure.rounds.verdicts import DECODING_REASONS
from sfrl_secure.translog.merkle import EMPTY_ROOT
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from .scenes import (
    A1,
    DURATION_US,
    G1,
    IRIS,
    L1,
    STREAM,
    V1,
    Case,
    Prepare,
    admitted,
    check_sound,
    check_void,
    closed,
    closed_then_halted,
    closing,
    complaint,
    counted,
    decision,
    dropping,
    ended,
    fetch_only,
    fetched,
    forbidden,
    full,
    full_then_halted,
    guarded,
    halted,
    hybrid_only,
    identity,
    ids,
    in_the_margin,
    late,
    model,
    nearly_over,
    nothing,
    of_other_groups,
    one_admitted,
    one_excluded,
    one_withdrawn,
    open_,
    open_then_halted,
    open_then_revoked,
    opened,
    others,
    refused,
    says,
    services_expired,
    suspended,
    terms_expired,
    three_refused,
    twice_signed,
    two_refused,
    two_segments,
    used_up,
    with_signature,
    withdrawal,
)  # fmt: skip

A2 = service_id("aggregator", "a2")
EARLY = RoundClosed(1, CloseCause.DEADLINE, CloseOutcome.ABORTED, 0, EMPTY_ROOT, ())
STRANGER = SigningKey.generate("ed25519")

VOID: list[Case] = [
    # Every statement.
    ("known", nothing, lambda sim: sim.log.envelope_at(5)),  # the first identity_issued
    ("wrong_federation", nothing, says(opened, A1, federation_id=sha256(b"another"))),
    ("writer", services_expired, says(opened, A1)),
    ("writer", nothing, says(opened, A1, key_id=STRANGER.public_key.key_id)),
    ("writer", nothing, lambda sim: sim.sign(replace(sim.statement(A1, STREAM, opened(sim)), writer=A2), sim.keys[A1])),
    ("bad_signature", nothing, lambda sim: sim.sign(sim.statement(A1, STREAM, opened(sim)), STRANGER)),
    ("bad_signature", nothing, with_signature(says(opened, A1), lambda each: replace(each, value=bytes(64)))),
    ("bad_signature", nothing, twice_signed),
    ("role", nothing, says(opened, G1)),
    ("role", open_, says(admitted(), A1)),
    ("role", nothing, says(identity(), A1, "identity")),
    ("role", full, says(closing(), G1)),
    ("role", closed, says(model(), G1)),
    ("role", nothing, says(fetched(), A1)),
    ("role", open_, says(refused(), A1)),
    ("role", nothing, says(counted, A1, "log")),
    ("role", one_admitted, says(withdrawal(), A1)),
    ("role", open_, says(complaint(), G1)),
    ("role", nothing, says(decision(), V1)),
    ("writer", open_, says(refused(), IRIS)),
    ("writer", nothing, says(opened, IRIS)),
    ("expired", nothing, says(opened, A1, valid_until_us=NOW_US)),
    ("stream", nothing, says(identity(), G1, STREAM)),
    ("stream", nothing, says(opened, A1, "identity")),
    ("stream", nothing, says(opened, A1, "log")),
    ("stream", open_, says(refused(), G1, "identity")),
    ("stream", open_, says(refused(), G1, "log")),
    ("stream", open_, says(refused("unknown_segment", segment="sand"), G1)),
    ("unknown_segment", open_, says(refused("malformed", Evidence.NONE, quoted=False), G1, "segment/sand")),
    ("unknown_segment", nothing, says(opened, A1, "segment/sand")),
    ("stale", nothing, says(opened, A1, reads_governance=sha256(b"older"))),
    ("stale", nothing, says(opened, A1, reads_segment=sha256(b"older"))),
    ("stale", open_, says(admitted(), reads_segment=ZERO_DIGEST)),
    ("stale", nothing, says(identity(), G1, "identity", reads_segment=sha256(b"any"))),
    # round_opened.
    ("round_open", open_, says(opened, A1)),
    ("round_open", closed, says(opened, A1)),
    ("expired", terms_expired, says(opened, A1)),
    ("terms", nothing, says(lambda sim: replace(opened(sim), terms_digest=sha256(b"other")), A1)),
    ("round", nothing, says(lambda sim: replace(opened(sim), round=2), A1)),
    ("halted", halted, says(opened, A1)),
    ("round", used_up, says(opened, A1)),
    ("base", nothing, says(lambda sim: replace(opened(sim), base_model=sha256(b"other")), A1)),
    # update_admitted.
    ("stream", two_segments, says(admitted(), G1, "segment/sand")),
    ("bad_signature", open_, says(admitted(key=STRANGER, key_id=STRANGER.public_key.key_id))),
    ("bad_signature", open_, says(admitted(participant="rover-2"))),
    ("wrong_federation", open_, says(admitted(federation_id=sha256(b"another")))),
    ("round_not_open", open_, says(admitted(round=2))),
    ("wrong_prefix", open_, says(admitted(round_opened=sha256(b"another")))),
    ("wrong_base", open_, says(admitted(base_model=sha256(b"another")))),
    ("deadline", late, says(admitted())),
    ("duplicate", one_admitted, says(admitted(values={1: 1}))),
    ("round_full", others, says(admitted())),
    ("bad_signature", open_, says(admitted(key_id=STRANGER.public_key.key_id))),
    ("bad_signature", open_, says(admitted(participant="rover-9", key=STRANGER, key_id=STRANGER.public_key.key_id))),
    ("not_granted", fetch_only, says(admitted())),
    ("not_granted", of_other_groups, says(admitted())),
    ("suite_not_allowed", hybrid_only, says(admitted())),
    ("format_not_allowed", open_, says(admitted(format=PayloadFormat(1, "free", "fp32")))),
    ("too_dense", open_, says(admitted(nonzeros=9))),
    ("too_few_coordinates", open_, says(admitted(nonzeros=0))),
    ("too_few_coordinates", guarded, says(admitted(values={1: 1, 2: 2, 3: 3}, noise_std=50, weight=5, nonzeros=2))),
    ("weight_limit", guarded, says(admitted(values={1: 1, 2: 2, 3: 3}, noise_std=50, weight=4))),
    ("noise_too_small", guarded, says(admitted(values={1: 1, 2: 2, 3: 3}, noise_std=49, weight=5))),
    ("payload_too_large", open_, says(admitted(payload_bytes=4_097))),
    ("weight_limit", open_, says(admitted(weight=101))),
    ("weight_limit", open_, says(admitted(weight=0))),
    ("halted", open_then_halted, says(admitted())),
    ("round_not_open", ended, says(admitted())),
    ("retention", open_, says(lambda sim: replace(sim.admission("rover-1"), retain_until_us=NOW_US + 90 * DAY_US - 1))),
    # update_refused.
    ("unknown_peer", open_, says(refused(peer="rover-9"))),
    ("bad_signature", open_, says(refused(key=STRANGER, key_id=STRANGER.public_key.key_id))),
    ("bad_signature", open_, says(refused(key=STRANGER))),
    ("evidence", open_, says(refused(quoted=False))),
    ("evidence", open_, says(refused("bad_signature", evidence=Evidence.OBJECT, quoted=False))),
    ("evidence", open_, says(refused("bad_signature", evidence=Evidence.LOG, quoted=False))),
    ("evidence", open_, says(refused("not_received", evidence=Evidence.NONE, quoted=False))),
    ("evidence", open_, says(refused("replayed", evidence=Evidence.NONE, quoted=False))),
    # Evidence that shows another kind of reason, and words for what the log shows.
    ("evidence", open_, says(refused("digest_mismatch", Evidence.OBJECT, weight=10))),
    ("evidence", open_, says(refused("not_received", Evidence.OBJECT, weight=10))),
    ("evidence", open_, says(refused("too_dense", Evidence.OBJECT, weight=10))),
    ("evidence", open_, says(refused("nonsense", Evidence.OBJECT, weight=10))),
    *(("evidence", open_, says(refused(reason, Evidence.NONE, weight=10))) for reason in (
        "replayed", "bad_signature", "malformed", "participant_inactive", "wrong_peer", "halted", "round_not_open",
        "deadline", "duplicate", "round_full", "too_dense", "weight_limit", "quota_updates", "nonsense")),
    ("refusal", open_, says(refused("not_received", Evidence.LOG, weight=10))),
    # A word about the payload of an update that the log does not let pass so far.
    ("refusal", open_, says(refused("digest_mismatch", Evidence.NONE))),
    ("refusal", open_, says(refused("norm_limit", Evidence.NONE))),
    ("refusal", forbidden, says(refused("policy_denied", Evidence.NONE, weight=10))),
    ("refusal", open_, says(refused("too_dense"))),
    ("refusal", open_, says(refused(weight=10))),
    ("refusal", open_, says(refused("norm_limit", Evidence.OBJECT))),
    ("refusal", open_, says(refused(rule_ids=("some-rule",)))),
    ("refusal", forbidden, says(refused("policy_denied", weight=10, rule_ids=("other", "weight-of-ten")))),
    ("refusal", forbidden, says(refused("policy_denied", weight=10))),
    ("refusal", forbidden, says(refused("norm_limit", Evidence.OBJECT, weight=10))),
    ("refusal", nearly_over, says(refused("deadline", weight=10))),
    ("refusal", in_the_margin, says(refused("round_full", weight=10))),
    ("counted", three_refused, says(refused(weight=110))),
    # round_closed.
    ("round_not_open", nothing, says(lambda sim: EARLY, A1)),
    ("round_not_open", full, says(closing(round=2), A1)),
    ("round_not_over", one_admitted, says(closing(), A1)),
    ("close", full, says(closing(cause=CloseCause.DEADLINE), A1)),
    ("close", full, says(closing(cause=CloseCause.ORDER), A1)),
    ("close", ended, says(closing(cause=CloseCause.FULL), A1)),
    ("close", ended, says(closing(outcome=CloseOutcome.CLOSED), A1)),
    ("close", one_withdrawn, says(closing(dropped=()), A1)),
    ("close", one_withdrawn, says(dropping("rover-1", "excluded"), A1)),
    ("close", one_excluded, says(dropping("rover-1", "defective"), A1)),
    ("close", full, says(closing(outcome=CloseOutcome.ABORTED), A1)),
    ("close", full, says(closing(counted_count=2), A1)),
    ("close", full, says(closing(counted_root=sha256(b"other")), A1)),
    ("close", full, says(closing(dropped=(DroppedUpdate("rover-1", sha256(b"x"), "participant_inactive"),)), A1)),
    ("close", full, says(closing(dropped=(DroppedUpdate("rover-9", sha256(b"x"), "defective"),)), A1)),
    ("close", full, says(closing(dropped=(DroppedUpdate("rover-1", sha256(b"x"), "defective"),)), A1)),
    # model_published.
    ("no_model_due", full, says(model(round_closed=sha256(b"none yet")), A1)),
    ("no_model_due", closed, says(model(round=2), A1)),
    ("no_model_due", closed, says(model(supersedes=sha256(b"nothing")), A1)),
    ("halted", closed_then_halted, says(model(), A1)),
    ("model", closed, says(model(round_closed=sha256(b"other")), A1)),
    ("model", closed, says(model(base_model=sha256(b"other")), A1)),
    ("model", closed, says(model(rule="median/v1"), A1)),
    ("model", closed, says(model(arithmetic=2), A1)),
    # models_fetched.
    ("unknown_name", nothing, says(fetched("rover-9"))),
    ("unknown_model", nothing, says(fetched(digest=b"other"))),
]  # fmt: skip


@pytest.mark.parametrize("case", VOID, ids=ids(VOID))
def test_a_void_entry_changes_nothing_but_the_position(prepare: Prepare, case: Case) -> None:
    reason, scene, send = case
    check_void(prepare(scene), reason, send)


LOUD = dict.fromkeys(range(5), 2**20)
SOUND: list[Case] = [
    ("opened", nothing, says(opened, A1)),
    ("admitted", one_admitted, lambda sim: sim.sign(sim.statement(G1, STREAM, sim.admission("rover-2")))),
    ("admitted-with-all-that-is-asked", guarded, lambda sim: says(
        lambda _: sim.admission("rover-1", {1: 60, 2: 60, 3: 60}, noise_std=50, weight=5))(sim)),
    ("refused-log", open_, says(refused())),
    ("refused-inactive", suspended, says(refused("participant_inactive", weight=10))),
    ("refused-halted", open_then_halted, says(refused("halted", weight=10))),
    ("refused-by-rule", forbidden, says(refused("policy_denied", weight=10, rule_ids=("weight-of-ten",)))),
    ("refused-in-the-margin", in_the_margin, says(refused("deadline", weight=10))),
    ("refused-for-weight-in-the-margin", in_the_margin, says(refused())),
    ("refused-after-the-deadline", late, says(refused("deadline", weight=10))),
    ("refused-not-received", open_, says(refused("not_received", Evidence.NONE, weight=10))),
    ("refused-object", open_, says(refused("norm_limit", Evidence.OBJECT, weight=10, values=LOUD))),
    *((f"refused-on-word-{reason}", open_, says(refused(reason, Evidence.NONE, weight=10))) for reason in (
        "digest_mismatch", *sorted(DECODING_REASONS), "norm_limit", "magnitude_limit", "tensor_not_allowed",
        "leak_coordinates", "leak_rows", "leak_labels", "leak_noise", "policy_denied", "policy_error")),
    ("refused-not-received-in-the-log's-way", open_, says(refused("not_received", Evidence.NONE))),
    ("refused-malformed", open_, says(refused("malformed", Evidence.NONE, quoted=False))),
    ("refused-bare", open_, says(refused("bad_signature", Evidence.NONE, quoted=False))),
    ("refused-unknown", open_, says(refused("unknown_segment", segment="sand"), G1, "log")),
    ("refused-wrong-peer", open_, says(refused("wrong_peer", peer="rover-2"))),
    ("refused-replayed", one_admitted, lambda sim: says(refused("replayed", peer="rover-2", weight=10))(sim)),
    ("refused-of-a-revoked-peer", open_then_revoked, says(refused("wrong_peer", peer="rover-2"))),
    ("third-of-its-kind", two_refused, says(refused(weight=110))),
    ("counted", nothing, says(counted, L1, "log")),
    ("closed", full, says(closing(), A1)),
    ("closed-by-order", ended, says(closing(), A1)),
    ("closed-while-halted", full_then_halted, says(closing(), A1)),
    ("closed-without-what-was-withdrawn", one_withdrawn, says(closing(), A1)),
    ("closed-without-what-was-excluded", one_excluded, says(closing(), A1)),
    ("fetched", nothing, says(fetched())),
]  # fmt: skip


@pytest.mark.parametrize("case", SOUND, ids=[case[0] for case in SOUND])
def test_what_is_sound_has_effect_here_and_in_the_verifier(tmp_path: Path, case: Case) -> None:
    _, scene, send = case
    check_sound(tmp_path, scene, send)


# What effective entries change


def test_what_does_not_parse_is_void_and_moves_no_stream(sim: Simulator) -> None:
    streams = copy.deepcopy(sim.state.streams)
    statement = sim.sign(sim.statement(A1, STREAM, opened(sim)))
    broken = replace(statement, statement=statement.statement + b"\0")
    index = sim.log.force(broken)
    assert sim.log.voids == {index: "malformed"}
    assert sim.state.streams == streams
    assert sim.state.size == index + 1


def test_only_the_checked_envelope_needs_no_second_check(sim: Simulator) -> None:
    """The digest of an envelope does not cover its signatures."""
    sound = sim.sign(sim.statement(A1, STREAM, opened(sim)))
    sim.log.fold.check(sim.clock.now_us(), sound, parse_content(sound))
    forged = replace(sound, signatures=sim.sign(sim.statement(A1, STREAM, opened(sim)), STRANGER).signatures)
    assert forged.digest == sound.digest
    assert sim.log.voids.get(sim.log.force(forged)) == "bad_signature"


def test_a_signature_that_the_caller_has_verified_is_not_verified_again(sim: Simulator) -> None:
    statement = sim.statement(G1, "identity", identity()(sim))
    forged = sim.sign(statement, sim.keys[A1])
    forged = replace(forged, signatures=(replace(forged.signatures[0], key_id=statement.key_id),))
    fold, now_us = sim.log.fold, sim.clock.now_us()
    fold.check(now_us, forged, statement, verified_by=sim.keys[G1].public_key)
    for other in (None, sim.keys[A1].public_key):
        with pytest.raises(DeniedError) as denied:
            fold.check(now_us, forged, statement, verified_by=other)
        assert denied.value.reason == "bad_signature"


def test_documents_move_the_governance_head_and_rounds_the_control_head(sim: Simulator) -> None:
    state, segment = sim.state, sim.segment
    assert segment.control_head == ZERO_DIGEST
    head = state.governance_head
    sim.open_round()
    assert segment.control_head == sim.log.leaf(len(sim.log.raw) - 1)
    control = segment.control_head
    sim.write(G1, STREAM, refused()(sim))
    sim.admit("rover-1")
    sim.write(G1, STREAM, fetched()(sim))
    sim.issue("rover-1", spki=sha256(b"renewed"))
    assert (state.governance_head, segment.control_head) == (head, control)
    index = sim.record("rover-2")
    assert (state.governance_head, segment.control_head) == (sim.log.leaf(index), control)
    for name in ("rover-2", "rover-3"):
        sim.admit(name)
    sim.close_round()
    assert segment.control_head == sim.log.leaf(len(sim.log.raw) - 1) != control


def test_a_round_keeps_the_terms_it_was_opened_under(sim: Simulator) -> None:
    current = sim.open_round()
    frozen = sim.segment.terms
    sim.publish_terms(limits=replace(frozen.limits, weight_max=1), groups=["orbiters"])
    assert sim.segment.terms != frozen == current.terms
    sim.admit("rover-1", weight=100)
    sim.clock.advance(DURATION_US)
    sim.close_round()
    assert sim.open_round().terms == sim.segment.terms


def test_streams_count_their_own_entries(sim: Simulator) -> None:
    closed(sim)
    seen: dict[str, tuple[int, Digest]] = {}
    for index, raw in enumerate(sim.log.raw):
        entry = parse_entry(raw)
        content = parse_content(entry.envelope)
        stream = content.stream if isinstance(content, Statement) else "governance"
        seq, last = seen.get(stream, (0, ZERO_DIGEST))
        assert (entry.stream_seq, entry.stream_prev) == (seq, last)
        seen[stream] = (seq + 1, sim.log.leaf(index))
    assert set(seen) == {"governance", "identity", STREAM}
