"""`sfrl bundle pack`, `relay` and `unpack`, from a rover by a relay to a gatekeeper in memory, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_statements import G1, STREAM
from simulator import SEGMENT, DirectChannel, Simulator
from typer.testing import CliRunner

from sfrl_secure.cli.bundle import app
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import (
    DeniedError,
    MalformedError,
    NotFoundError,
    RoundStateError,
    UnavailableError,
    VerificationError,
)
from sfrl_secure.governance.orders import OrderAction
from sfrl_secure.ids import sha256
from sfrl_secure.participant.acknowledgement import acknowledgement_file
from sfrl_secure.participant.bundles import open_bundle, write_bundle
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sending import SignedUpdate
from sfrl_secure.participant.sent import parse_complaint, sent_path
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.downloads import FETCH_MODEL
from sfrl_secure.wire.gatekeeper_service import GET_ROUND
from sfrl_secure.wire.receipts import ReceiptKind
from sfrl_secure.wire.statements import encode_update
from sfrl_secure.wire.uploads import SUBMIT_UPDATE

RELAY = "rover-4"


class Links:
    """What each participant's channel ends at; a test breaks one, or cuts it."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self.channels: dict[str, DirectChannel] = {}
        self.cut: set[str] = set()
        self._seconds = 0.0

    def participant(self, profile: Path) -> Participant:
        name = profile.stem
        if name not in self.channels:
            self.channels[name] = DirectChannel(self._sim.gatekeeper(), name)
        if name in self.cut:
            self.channels[name].broken = [UnavailableError("away")] * 10_000
        return Participant(
            name=name, key=self._sim.rovers[name], policy=self._sim.policy, channel=self.channels[name],
            receipts=receipts_of(self._sim, name), clock=self._sim.clock,
            sleep=self._sleep, monotonic=lambda: self._seconds,
        )  # fmt: skip

    def _sleep(self, seconds: float) -> None:
        self._seconds += seconds


@pytest.fixture
def relayed(tmp_path: Path) -> Any:
    """A federation whose fourth participant may relay, in rounds that take it as no participant."""
    made = Simulator(tmp_path / "federation", terms={"relay_groups": ["orbiters"]})
    made.record(RELAY, groups=["orbiters"])
    yield made
    made.close()


@pytest.fixture
def links(relayed: Simulator, monkeypatch: pytest.MonkeyPatch) -> Links:
    made = Links(relayed)
    monkeypatch.setattr(Participant, "from_profile", lambda path: made.participant(path))
    return made


def run(*arguments: str | Path, code: int = 0) -> Any:
    """Run a command and give its one object; a typed error comes as it is raised."""
    ended = CliRunner().invoke(app, [str(each) for each in arguments] + ["--json"])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == code, ended.output
    return json.loads(ended.stdout.splitlines()[-1])


def update_file(folder: Path, **arrays: Any) -> Path:
    path = folder / "update.npz"
    np.savez(path, **(arrays or {"indices": np.array([1, 4]), "values": np.array([0.5, -0.25], np.float32)}))
    return path


def pack(folder: Path, name: str = "rover-1", *more: str | Path, out: str = "a.bundle", wait: str = "0") -> Any:
    update = ("--update", update_file(folder), "--weight", "7")
    return run(
        "pack", "--profile", f"{name}.toml", "--segment", SEGMENT, "--wait", wait, *update, "--out", folder / out, *more
    )


def receipts_of(sim: Simulator, name: str) -> Path:
    return sim.folder / "receipts" / name


def test_an_update_goes_by_a_relay_and_its_receipts_come_back(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    sim = relayed
    sim.open_round()
    size = len(sim.log.raw)
    packed = pack(tmp_path)
    assert len(sim.log.raw) == size
    assert packed["bundle_bytes"] == (tmp_path / "a.bundle").stat().st_size
    # By when it has to be there: a round of a minute.
    assert packed["deadline"] == "2026-05-28T20:27:40Z"
    brought = run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")["bundles"]
    admission = sim.segment.rounds[1].admissions["rover-1"]
    assert (brought[0]["index"], brought[0]["statement_digest"]) == (size, packed["statement_digest"])
    assert (brought[0]["participant"], admission.update.weight) == ("rover-1", 7)
    back = tmp_path / "a.acknowledged.tlog-proof"
    assert brought[0]["acknowledged"] == str(back)
    # Nothing of it lies among the relay's own receipts, and the rover has not heard yet.
    assert not list(receipts_of(sim, RELAY).glob("*acknowledged*"))
    assert sent_path(receipts_of(sim, "rover-1"), SEGMENT, 1).exists()
    kept = run("unpack", back, "--profile", "rover-1.toml")["files"][0]
    assert (kept["kind"], kept["round"], kept["index"]) == ("acknowledged", 1, size)
    assert not sent_path(receipts_of(sim, "rover-1"), SEGMENT, 1).exists()
    rover = sim.participant("rover-1")
    assert rover.submitted(SEGMENT).index == size
    assert rover.withdraw(rover.submitted(SEGMENT)).index == size + 1


def test_the_counted_receipt_comes_back_too(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    sim = relayed
    sim.open_round()
    pack(tmp_path)
    bundle, relay = tmp_path / "a.bundle", ("--profile", f"{RELAY}.toml", "--wait", "0.01")
    late = run("relay", bundle, *relay, code=2)["bundles"][0]
    assert "index" in late
    assert "COUNTED" in late["error"]
    sim.admit("rover-2", {0: 1})
    sim.clock.advance(60_000_000)
    sim.close_round()
    sim.publish_model()
    # Sent again, it gets the first answer, though its round is over.
    again = run("relay", bundle, *relay)["bundles"][0]
    assert (again["index"], again["counted"]) == (late["index"], str(tmp_path / "a.counted.receipt"))
    kept = run("unpack", again["counted"], "--profile", "rover-1.toml")["files"][0]
    assert Path(kept["kept"]).name == "rocks-1-counted.receipt"
    assert open_receipt(Path(kept["kept"]).read_bytes(), sim.policy).kind is ReceiptKind.COUNTED
    # Receipt A is in it: the update counts as submitted here.
    assert sim.participant("rover-1").newest_submitted(SEGMENT) == 1


def test_whoever_is_no_relay_is_refused_and_told_so(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.open_round()
    pack(tmp_path)
    told = run("relay", tmp_path / "a.bundle", "--profile", "rover-2.toml", code=3)["bundles"][0]
    assert (told["reason"], told["entry"]) == ("wrong_peer", len(relayed.log.raw) - 1)
    assert f"rover-2 is no relay of segment {SEGMENT}: it is in none of the `relay_groups`" in told["error"]
    assert "operators add one" in told["error"]
    assert not (tmp_path / "a.acknowledged.tlog-proof").exists()


def test_one_bundle_that_fails_does_not_hold_up_the_others(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        pack(tmp_path, name, out=f"{name}.bundle")
    damaged = bytearray((tmp_path / "rover-1.bundle").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "rover-1.bundle").write_bytes(damaged)
    (tmp_path / "rover-2.bundle").write_bytes(b"SFRLBND1 and no more")
    bundles = sorted(tmp_path.glob("*.bundle"))
    calls = len(links.channels)
    first, second, third = run("relay", *bundles, "--profile", f"{RELAY}.toml", code=1)["bundles"]
    assert "not the one that was signed" in first["error"]
    assert "error" in second
    assert third["index"] == len(relayed.log.raw) - 1
    assert links.channels[RELAY].calls.count(SUBMIT_UPDATE) == 1
    assert len(links.channels) == calls + 1
    ended = CliRunner().invoke(app, ["relay", *map(str, bundles), "--profile", f"{RELAY}.toml"])
    assert ended.exit_code == 1
    assert [line.split(":")[1].strip() for line in ended.stderr.splitlines()] == [str(each) for each in bundles[:2]]
    assert f"bundle: {bundles[2]}" in ended.stdout


def test_where_no_gatekeeper_answers_the_other_bundles_are_not_tried(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    for name in ("rover-1", "rover-2"):
        pack(tmp_path, name, out=f"{name}.bundle")
    links.cut = {RELAY}
    bundles = sorted(tmp_path.glob("*.bundle"))
    told = run("relay", *bundles, "--profile", f"{RELAY}.toml", "--for", "1", code=4)["bundles"]
    assert [each["bundle"] for each in told] == [str(bundles[0])]


def test_a_broken_relay_goes_on_where_it_broke(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.open_round()
    pack(tmp_path)
    links.participant(Path(f"{RELAY}.toml"))
    links.channels[RELAY].broken = [UnavailableError("away"), UnavailableError("away")]
    told = run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")["bundles"][0]
    assert told["index"] == len(relayed.log.raw) - 1
    assert links.channels[RELAY].calls.count(SUBMIT_UPDATE) == 3


# Packing


def test_offline_a_round_and_a_model_that_were_kept_are_enough(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    rover = links.participant(Path("rover-1.toml"))
    opened = rover.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    weights = {
        name: array + np.float32(0.25) for name, array in zip(
            ("a.weight", "a.bias"), (np.zeros((4, 4), np.float32), np.zeros(4, np.float32)), strict=True
        )
    }  # fmt: skip
    rover.model(opened)
    links.cut = {"rover-1"}
    calls = len(links.channels["rover-1"].calls)
    np.savez(tmp_path / "weights.npz", **weights)
    run(
        "pack", "--profile", "rover-1.toml", "--segment", SEGMENT, "--update", tmp_path / "weights.npz",
        "--weight", "7", "--out", tmp_path / "a.bundle", "--offline",
    )  # fmt: skip
    assert len(links.channels["rover-1"].calls) == calls
    told = run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")["bundles"][0]
    assert told["index"] == relayed.segment.rounds[1].admissions["rover-1"].index


def test_ones_own_bundle_is_relayed_as_often_as_it_takes(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.publish_terms(relay_groups=[])
    relayed.open_round()
    pack(tmp_path)
    links.cut = {"rover-1"}
    run("relay", tmp_path / "a.bundle", "--profile", "rover-1.toml", "--for", "5", code=4)
    # As after a reboot: a new participant, over a new connection.
    links.cut, links.channels = set(), {}
    told = [run("relay", tmp_path / "a.bundle", "--profile", "rover-1.toml")["bundles"][0]["index"] for _ in range(2)]
    assert told == [relayed.segment.rounds[1].admissions["rover-1"].index] * 2


@pytest.mark.parametrize("agreed", [False, True])
def test_offline_nobody_is_asked_for_a_model_or_a_mask_that_is_not_kept(
    relayed: Simulator, links: Links, tmp_path: Path, agreed: bool
) -> None:
    if agreed:
        relayed.publish_terms(support_modes=("agreed",), mask=relayed.agree(1, 4, 18))
    relayed.open_round()
    rover = links.participant(Path("rover-1.toml"))
    opened = rover.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    np.savez(tmp_path / "weights.npz", **{
        "a.weight": np.full((4, 4), 0.5, np.float32), "a.bias": np.full(4, 0.5, np.float32),
    })  # fmt: skip
    arguments = (
        "pack", "--profile", "rover-1.toml", "--segment", SEGMENT, "--update", tmp_path / "weights.npz",
        "--weight", "7", "--out", tmp_path / "a.bundle", "--offline",
    )  # fmt: skip
    for what in ("model", "mask") if agreed else ("model",):
        calls = list(links.channels["rover-1"].calls)
        with pytest.raises(NotFoundError, match=rf"^the {what} of round 1 of {SEGMENT} is not kept.* `sfrl fetch`"):
            run(*arguments)
        # The link is there, and nobody was asked over it.
        assert links.channels["rover-1"].calls == calls
        if what == "model":
            rover.model(opened)
        else:
            rover.mask(opened)
    calls = list(links.channels["rover-1"].calls)
    assert run(*arguments)["nonzeros"] > 0
    assert links.channels["rover-1"].calls == calls


def test_offline_an_agreed_update_is_packed_where_the_terms_take_free_ones_too(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    """With the mask that `sfrl fetch` keeps; a free one needs none."""
    relayed.publish_terms(support_modes=("agreed", "free"), mask=relayed.agree(1, 4, 18))
    relayed.open_round()
    rover = links.participant(Path("rover-1.toml"))
    opened = rover.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    rover.model(opened)
    weights = tmp_path / "weights.npz"
    np.savez(weights, **{"a.weight": np.full((4, 4), 0.5, np.float32), "a.bias": np.full(4, 0.5, np.float32)})
    arguments = (
        "pack", "--profile", "rover-1.toml", "--segment", SEGMENT, "--update", weights, "--weight", "7", "--out",
        tmp_path / "a.bundle", "--support", "agreed",
    )  # fmt: skip
    calls = list(links.channels["rover-1"].calls)
    with pytest.raises(NotFoundError, match=rf"^the mask of round 1 of {SEGMENT} is not kept.* `sfrl fetch`"):
        run(*arguments, "--offline")
    free = [tmp_path / "free.bundle" if each == tmp_path / "a.bundle" else each for each in arguments[:-2]]
    assert run(*free, "--offline")["nonzeros"] > 3
    with pytest.raises(DeniedError, match="support mode"):
        run(*arguments[:-1], "dense", "--offline")
    assert links.channels["rover-1"].calls == calls
    rover.mask(opened)
    calls = list(links.channels["rover-1"].calls)
    assert run(*arguments, "--offline")["nonzeros"] == 3
    assert links.channels["rover-1"].calls == calls


def test_what_was_never_fetched_and_what_is_over_is_not_packed_offline(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    with pytest.raises(NotFoundError, match="sfrl fetch"):
        pack(tmp_path, "rover-1", "--offline")
    links.participant(Path("rover-1.toml")).open_round(SEGMENT, wait_seconds=0)
    kept = receipts_of(relayed, "rover-1") / "rounds" / f"{SEGMENT}.round"
    whole = kept.read_bytes()
    for damaged in (b"", whole[:7], whole[:8], whole[:-1], whole[:8] + b"\xff" * 40):
        kept.write_bytes(damaged)
        with pytest.raises(MalformedError):
            pack(tmp_path, "rover-1", "--offline")
    # Moved in time, its witnesses' cosignatures are not fresh.
    kept.write_bytes(bytes(8) + whole[8:])
    with pytest.raises(VerificationError, match="older"):
        pack(tmp_path, "rover-1", "--offline")
    kept.write_bytes(whole)
    relayed.clock.advance(58_000_000 - 1)
    pack(tmp_path, "rover-1", "--offline")
    relayed.clock.advance(1)
    with pytest.raises(RoundStateError, match="is over") as over:
        pack(tmp_path, "rover-1", "--offline", out="b.bundle")
    assert over.value.reason == "deadline"


def test_a_segment_that_was_finished_when_it_was_kept_is_packed_for_by_nobody(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    for _ in range(3):
        relayed.play_round("rover-2", "rover-3")
    with pytest.raises(RoundStateError, match="used up"):
        pack(tmp_path)
    with pytest.raises(NotFoundError, match="used up"):
        pack(tmp_path, "rover-1", "--offline")


def test_without_a_link_pack_says_what_to_do(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.open_round()
    links.cut = {"rover-1"}
    with pytest.raises(UnavailableError, match="--offline"):
        pack(tmp_path)


def test_nothing_is_packed_over_a_file_into_no_folder_or_against_the_terms(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    (tmp_path / "a.bundle").write_bytes(b"not yet carried")
    with pytest.raises(MalformedError, match="there already"):
        pack(tmp_path)
    assert (tmp_path / "a.bundle").read_bytes() == b"not yet carried"
    with pytest.raises(NotFoundError, match="no folder"):
        pack(tmp_path, out="nowhere/a.bundle")
    assert not links.channels
    arguments = ("pack", "--profile", "rover-1.toml", "--segment", SEGMENT, "--wait", "0")
    update = ("--update", update_file(tmp_path), "--out", tmp_path / "b.bundle")
    with pytest.raises(DeniedError, match="never cut"):
        run(*arguments, *update, "--weight", "101")
    relayed.order(OrderAction.HALT)
    with pytest.raises(RoundStateError, match="halted"):
        run(*arguments, *update, "--weight", "1")
    assert not (tmp_path / "b.bundle").exists()


# Unpacking


def test_unpack_says_who_signed_what_for_which_round(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.open_round()
    packed = pack(tmp_path)
    bundle = tmp_path / "a.bundle"
    told = run("unpack", bundle)["files"][0]
    assert (told["participant"], told["segment"], told["round"], told["weight"]) == ("rover-1", SEGMENT, 1, 7)
    assert (told["statement_digest"], told["nonzeros"], told["coordinates"]) == (packed["statement_digest"], 2, 24)
    assert told["base_model"] == relayed.segment.model.hex()
    assert told["signature"].startswith("not verified")
    assert run("unpack", bundle, "--profile", "rover-2.toml")["files"][0]["signature"].startswith("not verified")
    assert run("unpack", bundle, "--profile", "rover-1.toml")["files"][0]["signature"] == "verified"
    relayed.rovers["rover-1"] = SigningKey.generate("ed25519")
    with pytest.raises(VerificationError, match=r"a\.bundle: .*another key"):
        run("unpack", bundle, "--profile", "rover-1.toml")


def test_unpack_names_the_file_that_does_not_hold(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.open_round()
    pack(tmp_path)
    path = tmp_path / "a.bundle"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(VerificationError, match=r"a\.bundle: .*not the one that was signed"):
        run("unpack", path)
    rover = relayed.participant("rover-1")
    opened = rover.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    lied = rover.prepare_changes(opened, np.array([1]), np.array([0.5]), 1)
    update = replace(lied.update, nonzeros=2)
    rover.pack(tmp_path / "b.bundle", replace(lied, update=update, envelope=rover.sign(update)))
    with pytest.raises(VerificationError, match=r"b\.bundle: .*no gatekeeper takes it.*\(declared\)"):
        run("unpack", tmp_path / "b.bundle")
    with pytest.raises(NotFoundError, match="no file"):
        run("unpack", tmp_path / "none.bundle")
    with pytest.raises(MalformedError, match="--profile"):
        run("unpack", update_file(tmp_path))
    with pytest.raises(MalformedError, match="neither"):
        run("unpack", update_file(tmp_path), "--profile", "rover-1.toml")


@pytest.mark.parametrize("change", ["cut", "cut in its envelope", "longer", "envelope", "payload"])
def test_a_bundle_that_was_cut_or_altered_does_not_hold_whoever_reads_it(
    relayed: Simulator, links: Links, tmp_path: Path, change: str
) -> None:
    relayed.open_round()
    pack(tmp_path)
    path = tmp_path / "a.bundle"
    whole = path.read_bytes()
    altered = {
        "cut": whole[:-1], "cut in its envelope": whole[:40], "longer": whole + b"\0",
        "envelope": whole[:12] + bytes([whole[12] ^ 1]) + whole[13:], "payload": whole[:-1] + bytes([whole[-1] ^ 1]),
    }  # fmt: skip
    path.write_bytes(altered[change])
    with pytest.raises(VerificationError, match=r"a\.bundle: .*ask for it again"):
        run("unpack", path)
    told = run("relay", path, "--profile", f"{RELAY}.toml", code=1)["bundles"][0]
    assert "ask for it again" in told["error"]


def test_of_an_altered_statement_the_signature_is_judged_before_its_payload(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    pack(tmp_path)
    path = tmp_path / "a.bundle"
    with open_bundle(path) as bundle:
        update, envelope = bundle.update, bundle.envelope
        payload = bundle.payload.read(0, bundle.payload.size)
    for changes in ({"payload_root": sha256(b"another")}, {"payload_sha256": sha256(b"another")}, {"weight": 8}):
        altered = replace(update, **changes)
        statement = replace(envelope, statement=encode_update(altered))
        path.unlink()
        write_bundle(path, SignedUpdate(altered, statement, payload))
        with pytest.raises(VerificationError, match=r"a\.bundle: .*signature.*altered on its way \(ask for it again\)"):
            run("unpack", path, "--profile", "rover-1.toml")
    # Nobody here knows the key of whose it is, so its gatekeeper finds out.
    told = run("relay", path, "--profile", f"{RELAY}.toml", code=3)["bundles"][0]
    assert told["reason"] == "bad_signature"
    assert "altered on its way (ask for it again)" in told["error"]
    path.unlink()
    altered = replace(update, payload_root=sha256(b"another"))
    write_bundle(path, SignedUpdate(altered, replace(envelope, statement=encode_update(altered)), payload))
    with pytest.raises(VerificationError, match=r"do not fit each other.*altered on its way.*\(digest\)"):
        run("unpack", path)
    told = run("relay", path, "--profile", f"{RELAY}.toml", code=1)["bundles"][0]
    assert told["reason"] == "digest"
    assert "altered on its way" in told["error"]


def test_a_bundle_that_is_not_there_is_named_and_the_others_are_sent(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    pack(tmp_path)
    files = (tmp_path / "none.bundle", tmp_path / "a.bundle")
    missing, sent = run("relay", *files, "--profile", f"{RELAY}.toml", code=2)["bundles"]
    assert missing["error"] == f"the bundle: there is no file {files[0]}"
    assert sent["index"] == len(relayed.log.raw) - 1


def test_a_bundle_whose_round_is_over_can_never_be_sent(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    sim = relayed
    sim.open_round()
    pack(tmp_path)
    for name in ("rover-2", "rover-3"):
        sim.admit(name, {0: 1})
    sim.clock.advance(60_000_000)
    sim.close_round()
    told = run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml", code=3)["bundles"][0]
    assert told["reason"] == "round_not_open"
    assert "can never be sent now; its participant packs again" in told["error"]


def test_only_a_receipt_of_ours_is_kept(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    sim = relayed
    sim.open_round()
    for name in ("rover-1", "rover-2"):
        pack(tmp_path, name, out=f"{name}.bundle")
    run("relay", *sorted(tmp_path.glob("*.bundle")), "--profile", f"{RELAY}.toml")
    other = tmp_path / "rover-2.acknowledged.tlog-proof"
    with pytest.raises(VerificationError, match="another participant's"):
        run("unpack", other, "--profile", "rover-1.toml")
    mine = tmp_path / "rover-1.acknowledged.tlog-proof"
    damaged = tmp_path / "damaged"
    index = len(sim.log.raw) - 2
    damaged.write_bytes(mine.read_bytes().replace(b"index %d\n" % index, b"index %d\n" % (index - 1)))
    with pytest.raises(VerificationError, match="damaged"):
        run("unpack", damaged, "--profile", "rover-1.toml")
    folder = receipts_of(sim, "rover-1")
    assert not list(folder.glob("*acknowledged*"))
    true, sim.rovers["rover-1"] = sim.rovers["rover-1"], SigningKey.generate("ed25519")
    with pytest.raises(VerificationError, match="another key"):
        run("unpack", mine, "--profile", "rover-1.toml")
    sim.rovers["rover-1"] = true
    run("unpack", mine, "--profile", "rover-1.toml")
    kept = (folder / f"{SEGMENT}-1-acknowledged.tlog-proof").read_bytes()
    # Brought twice, by two relays: the first is as good.
    run("unpack", mine, "--profile", "rover-1.toml")
    assert (folder / f"{SEGMENT}-1-acknowledged.tlog-proof").read_bytes() == kept


def test_a_second_admission_of_a_round_takes_no_first_ones_place(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    sim = relayed
    sim.open_round()
    pack(tmp_path)
    run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")
    run("unpack", tmp_path / "a.acknowledged.tlog-proof", "--profile", "rover-1.toml")
    kept = receipts_of(sim, "rover-1") / f"{SEGMENT}-1-acknowledged.tlog-proof"
    before = kept.read_bytes()
    # As a log that lies would: it signs for two admissions of one participant in one round.
    index = sim.log.force(sim.sign(sim.statement(G1, STREAM, sim.admission("rover-1", {2: 3}))))
    size = len(sim.log.raw)
    second = acknowledgement_file(AppendedEntry(sim.log.logged_entry(index, size), sim.log.note(size)))
    (tmp_path / "second").write_bytes(second)
    with pytest.raises(VerificationError, match="show them to an auditor"):
        run("unpack", tmp_path / "second", "--profile", "rover-1.toml")
    assert kept.read_bytes() == before


def test_what_was_kept_for_a_complaint_is_forgotten_for_its_own_admission_alone(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    pack(tmp_path)
    run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")
    relayed.clock.advance(1)
    packed = pack(tmp_path, out="b.bundle")
    run("unpack", tmp_path / "a.acknowledged.tlog-proof", "--profile", "rover-1.toml")
    _, envelope, _ = parse_complaint(links.participant(Path("rover-1.toml")).complaint(SEGMENT))
    assert envelope.digest.hex() == packed["statement_digest"]


def test_a_receipt_from_another_segments_stream_is_not_kept(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    sim = relayed
    sim.open_round()
    index = sim.log.force(sim.sign(sim.statement(G1, "segment/sand", sim.admission("rover-1"))))
    size = len(sim.log.raw)
    forged = acknowledgement_file(AppendedEntry(sim.log.logged_entry(index, size), sim.log.note(size)))
    (tmp_path / "forged").write_bytes(forged)
    with pytest.raises(VerificationError, match="another segment"):
        run("unpack", tmp_path / "forged", "--profile", "rover-1.toml")
    # An entry of the log that admits nothing is no receipt, however well it is proven.
    note = sim.log.note(size)
    (tmp_path / "round").write_bytes(acknowledgement_file(AppendedEntry(sim.log.logged_entry(index - 1, size), note)))
    with pytest.raises(MalformedError, match="admits no update"):
        run("unpack", tmp_path / "round", "--profile", "rover-1.toml")


def test_a_receipt_with_older_roots_than_were_shown_is_not_kept(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    sim = relayed
    sim.open_round()
    pack(tmp_path)
    run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")
    sim.admit("rover-2", {0: 1})
    sim.clock.advance(60_000_000)
    sim.close_round()
    sim.publish_model()
    run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml", "--wait", "0.01")
    (receipts_of(sim, "rover-1") / "known-root").write_text(f"2 {'0' * 64}\n")
    with pytest.raises(VerificationError, match="version 2 of the root"):
        run("unpack", tmp_path / "a.counted.receipt", "--profile", "rover-1.toml")
    assert not list(receipts_of(sim, "rover-1").glob("*.receipt"))


def test_a_receipt_under_retired_keys_alone_is_not_kept(
    relayed: Simulator, links: Links, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relayed.open_round()
    pack(tmp_path)
    run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")
    monkeypatch.setattr("sfrl_secure.participant.returned.rests_on_retired_keys", lambda opened, policy: True)
    with pytest.raises(VerificationError, match="no longer uses"):
        run("unpack", tmp_path / "a.acknowledged.tlog-proof", "--profile", "rover-1.toml")


def test_a_complaint_names_a_bundle_that_was_packed_and_never_admitted(
    relayed: Simulator, links: Links, tmp_path: Path
) -> None:
    relayed.open_round()
    packed = pack(tmp_path)
    _, envelope, _ = parse_complaint(links.participant(Path("rover-1.toml")).complaint(SEGMENT))
    assert envelope.digest.hex() == packed["statement_digest"]


def test_the_relays_own_rounds_and_models_are_not_asked_for(relayed: Simulator, links: Links, tmp_path: Path) -> None:
    relayed.open_round()
    pack(tmp_path)
    run("relay", tmp_path / "a.bundle", "--profile", f"{RELAY}.toml")
    assert not {GET_ROUND, FETCH_MODEL} & set(links.channels[RELAY].calls)
