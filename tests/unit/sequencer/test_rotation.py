"""A log whose keys are replaced between two runs, and a witness that signs with two keys."""

from __future__ import annotations

import threading

import pytest

from sfrl_secure.errors import ConsistencyError, SignatureError, UnavailableError, UncertainStateError
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.signing import CheckpointSigner
from sfrl_secure.sequencer.start_check import check_not_behind
from sfrl_secure.sequencer.witness_client import WitnessReply
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.translog.equivocation import check_one_history
from sfrl_secure.translog.note import ML_DSA_44_COSIGNATURE, Note, add_signatures, format_note, parse_note
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup
from sfrl_secure.translog.witness import WitnessState, decide_add_checkpoint
from sfrl_secure.translog.witness_keys import WitnessKey

NOTE_MAX = 128 * 1024
ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"
TIME = 1_760_000_000


def public_of(keys: LogKeys):
    return keys.note_signer(ORIGIN).key, keys.cosigner(ORIGIN).key


def rotate(world) -> TrustPolicy:
    """Give a world's log a second generation; give the policy that everybody had before."""
    before, new = world.policy, LogKeys.generate()
    old = world.keys
    log = TrustedLog(ORIGIN, (*public_of(old), *public_of(new)))
    world.policy = TrustPolicy((log,), before.witnesses, before.groups, before.quorum)
    for witness in world.witnesses:
        witness._log_keys = log.keys
    world.signer = lambda: CheckpointSigner(ORIGIN, [old, new], world.clock)
    world.keys = new
    return before


def run(world, *texts: str) -> bytes:
    """Run a log, append, and give the published checkpoint."""
    log = world.open().start()
    for text in texts:
        log.append(text)
    log.wait_witnessed(log.history.size)
    log.close()
    assert not log.uncertain
    return read_bounded(world.log_dir / "checkpoint", NOTE_MAX)


def test_a_log_goes_on_over_the_replacement_of_its_keys_and_nothing_signed_before_is_lost(world) -> None:
    first = run(world, "alpha one")
    old_policy = rotate(world)
    both = run(world, "alpha two")
    world.signer = lambda: CheckpointSigner(ORIGIN, [world.keys], world.clock)
    last = run(world, "alpha three")

    for note, size in ((first, 2), (both, 3), (last, 4)):
        opened = open_checkpoint(note, world.policy, quorum=True, archived=True)
        assert (opened.checkpoint.size, opened.is_current) == (size, note is not first)
    # Who has not got the new policy yet reads what is under both.
    assert open_checkpoint(both, old_policy, quorum=True).is_current
    with pytest.raises(SignatureError):
        open_checkpoint(first, world.policy, quorum=True)
    with pytest.raises(SignatureError):
        open_checkpoint(last, old_policy, quorum=True)


# A witness with two keys


class TwoKeyWitness:
    """A witness that signs with two keys, in memory; `silent` is the position of a key that does not."""

    names = ("w-ed25519", "w-ml-dsa")

    def __init__(self, world) -> None:
        self.keys = [WitnessKey.generate(0x04), WitnessKey.generate(ML_DSA_44_COSIGNATURE)]
        self.trusted = tuple(
            TrustedWitness(name, key.verifier_key("w.example/witness"))
            for name, key in zip(self.names, self.keys, strict=True)
        )
        group = WitnessGroup("both", 2, self.names)
        world.policy = TrustPolicy(world.policy.logs, self.trusted, (group,), "both")
        self.cosigners = [key.cosigner(world.policy) for key in self.keys]
        self.world = world
        self.silent: int | None = None
        self.recorded: dict[str, WitnessState] = {}
        self.requests = 0

    def add_checkpoint(self, request: bytes) -> WitnessReply:
        self.requests += 1
        asked = [each for number, each in enumerate(self.cosigners) if number != self.silent]
        answer = decide_add_checkpoint(
            request, logs={ORIGIN: self.world.policy.logs[0]}, recorded=self.recorded,
            cosign=lambda text: [each.cosign(text, TIME) for each in asked],
        )
        if answer.new_state is not None:
            self.recorded[ORIGIN] = answer.new_state
        return WitnessReply(answer.status, answer.body)

    def latest(self, origin: str) -> WitnessReply:
        state = self.recorded.get(origin)
        return WitnessReply(404, b"") if state is None else WitnessReply(200, state.note)


def test_one_answer_is_booked_under_both_names_of_a_witness(world) -> None:
    witness = TwoKeyWitness(world)
    log = world.open([witness]).start()
    log.append("alpha one")
    log.wait_witnessed(2)
    opened = open_checkpoint(log.sequencer.head.witnessed_note, world.policy, quorum=True)
    assert dict(opened.witness_times) == {"w-ed25519": TIME, "w-ml-dsa": TIME}
    # What is witnessed so stays far below what a note may be.
    assert len(opened.note) < NOTE_MAX / 8


@pytest.mark.parametrize("silent", [0, 1])
def test_one_of_two_keys_does_not_make_the_quorum_of_both(world, silent: int) -> None:
    witness = TwoKeyWitness(world)
    witness.silent = silent
    log = world.open([witness]).start()
    log.append("alpha one")
    threading.Event().wait(0.2)
    assert log.sequencer.head.witnessed_size == 0
    # It is asked once for each checkpoint, not again and again for the line that it does not give.
    assert witness.requests <= 4
    witness.silent = None
    log.append("alpha two")
    log.wait_witnessed(3)


def test_a_witness_that_got_its_second_key_later_is_level_all_the_same(world) -> None:
    witness = TwoKeyWitness(world)
    both = world.policy
    world.policy = TrustPolicy(both.logs, both.witnesses[:1], (), "w-ed25519")
    witness.names, witness.silent = ("w-ed25519",), 1
    log = world.open([witness]).start()
    log.wait_witnessed(1)
    log.close()
    world.policy, witness.names, witness.silent = both, TwoKeyWitness.names, None
    again = world.open([witness]).start()
    again.append("alpha one")
    again.wait_witnessed(2)


# A log that signs one history for one witness and another for the other


def test_two_histories_for_two_witnesses_are_evidence_and_neither_log_starts_again(make_world) -> None:
    ours, theirs = make_world(name="ours"), make_world(name="theirs")
    ours.create("governance genesis", "alpha one")
    theirs.create("governance genesis", "alpha other")
    theirs.keys = ours.keys
    logs = (TrustedLog(ORIGIN, public_of(ours.keys)),)
    theirs.witnesses[0]._log_keys = ours.witnesses[0]._log_keys
    theirs.witnesses[0].names = ("theirs",)
    seen = tuple(
        TrustedWitness(name, world.witnesses[0].cosigner.key) for name, world in (("w0", ours), ("theirs", theirs))
    )
    ours.policy = theirs.policy = TrustPolicy(logs, seen, (WitnessGroup("any", 1, ("w0", "theirs")),), "any")
    for world in (ours, theirs):
        log = world.open().start()
        log.wait_witnessed(2)
        log.close()
        assert not log.uncertain  # Each witness was shown one history only, and saw nothing wrong.

    notes = [world.witnesses[0].latest(ORIGIN).body for world in (ours, theirs)]
    with pytest.raises(ConsistencyError) as caught:
        check_one_history(notes[0], notes[1], ours.policy, quorum=True)
    assert (caught.value.older, caught.value.newer) == tuple(notes)
    # A log that asks both at its start has the other history before it.
    for world in (ours, theirs):
        with pytest.raises(UncertainStateError, match="another root"):
            world.open([ours.witnesses[0], theirs.witnesses[0]])


@pytest.mark.parametrize("is_theirs", [False, True])
def test_what_a_witness_shows_under_a_retired_generation_stops_the_log_only_if_it_is_the_logs(
    world, is_theirs: bool
) -> None:
    first = run(world, "alpha one")
    rotate(world)
    if is_theirs:
        # The right witness, under the signature of keys that were never the log's.
        foreign = CheckpointSigner(ORIGIN, [LogKeys.generate()], world.clock)
        opened = open_checkpoint(first, world.policy, quorum=False, archived=True)
        log_note = parse_note(foreign.sign(9, opened.checkpoint.root))
        line = world.witnesses[0].cosigner.cosign(log_note.text, TIME)
        shown = format_note(add_signatures(Note(log_note.text, log_note.signatures), [line]))
    else:
        shown = first
    log = world.open()
    witness = world.witnesses[0]
    witness.latest = lambda _: WitnessReply(200, shown)
    stopping = threading.Event()
    stopping.set()
    if is_theirs:
        with pytest.raises(UnavailableError):
            check_not_behind([witness], ORIGIN, world.policy, log.history.tree, stopping)
    else:
        check_not_behind([witness], ORIGIN, world.policy, log.history.tree, stopping)
