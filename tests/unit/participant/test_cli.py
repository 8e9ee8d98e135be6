"""`sfrl fetch`, `submit`, `withdraw`, `complain` and `record` by hand, over a gatekeeper in memory."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from simulator import GRID, MANIFEST, SEGMENT, Simulator
from typer.testing import CliRunner

from sfrl_secure.cli import record
from sfrl_secure.cli.participant import register
from sfrl_secure.cli.update_files import UPDATE_FILE_BYTES_MAX, SparseChange, read_update, write_model
from sfrl_secure.errors import (
    DeniedError,
    MalformedError,
    NotFoundError,
    RoundStateError,
    SfrlError,
    UnavailableError,
)
from sfrl_secure.governance.orders import OrderAction
from sfrl_secure.governance.statements import DecisionRecorded
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms
from sfrl_secure.ids import sha256
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sent import parse_complaint
from sfrl_secure.rpc.status import exit_code_of
from sfrl_secure.wire.receipts import ReceiptKind


@pytest.fixture
def run(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command as rover-1; give its one JSON object."""
    app = typer.Typer()
    register(app)
    app.add_typer(record.app, name="record")
    monkeypatch.setattr(Participant, "from_profile", lambda path: sim.participant("rover-1"))

    def run_command(*arguments: str, wait: bool = True) -> Any:
        waiting = ["--wait", "0"] if wait else []
        result = CliRunner().invoke(
            app, [*arguments, "--profile", "p.toml", "--segment", SEGMENT, *waiting, "--json"]
        )
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout.splitlines()[-1])

    return run_command


def update_file(folder: Path, **arrays: Any) -> Path:
    path = folder / "update.npz"
    np.savez(path, **({"indices": np.array([1, 4]), "values": np.array([0.5, -0.25], np.float32)} | arrays))
    return path


def test_fetch_writes_the_model_and_submit_keeps_a_receipt(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.open_round()
    out = tmp_path / "model.npz"
    said = run("fetch", "--out", str(out))
    assert said == {
        "segment": SEGMENT, "round": 1, "model": sim.segment.model.hex(),
        "coordinates": MANIFEST.coordinates, "out": str(out),
    }  # fmt: skip
    with np.load(out, allow_pickle=False) as arrays:
        assert {name: arrays[name].shape for name in arrays} == {"a.weight": (4, 4), "a.bias": (4,), "frozen": (4,)}
        assert arrays["a.weight"].dtype == np.float32
        assert arrays["a.bias"].tolist() == [n * 2.0**-GRID for n in range(16, 20)]
    said = run("submit", "--update", str(update_file(tmp_path)), "--weight", "7")
    assert (said["nonzeros"], said["support"], said["value_type"]) == (2, "free", "int8")
    assert said["update_bytes"] > 100
    proven = open_receipt(Path(said["receipt"]).read_bytes(), sim.policy)
    assert (proven.update.weight, proven.index) == (7, said["index"])


@pytest.mark.parametrize(
    ("out", "kind"), [("nowhere/model.npz", NotFoundError), ("model.npy", MalformedError), ("model", MalformedError)]
)
def test_where_no_model_can_be_written_none_is_fetched(
    sim: Simulator, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, kind: type[SfrlError]
) -> None:
    def connect(path: Path) -> Participant:
        raise AssertionError("nobody is asked")

    monkeypatch.setattr(Participant, "from_profile", connect)
    with pytest.raises(kind, match="folder" if kind is NotFoundError else ".npz") as refused:
        run("fetch", "--out", str(tmp_path / out))
    assert exit_code_of(refused.value) == 2
    assert (str(tmp_path / "nowhere") in str(refused.value)) == (kind is NotFoundError)
    with pytest.raises(NotFoundError, match="nowhere"):
        run("complain", "--out", str(tmp_path / "nowhere" / "complaint.json"), wait=False)


@pytest.mark.parametrize("modes", [("agreed",), ("agreed", "free"), ("agreed", "dense", "free")])
def test_fetch_keeps_the_mask_that_an_update_without_a_link_takes(
    sim: Simulator, run: Any, tmp_path: Path, modes: tuple[str, ...]
) -> None:
    sim.publish_terms(support_modes=modes, mask=sim.agree(1, 4, 18))
    sim.open_round()
    run("fetch", "--out", str(tmp_path / "model.npz"))
    agreed = sim.segment.terms.mask
    assert agreed is not None
    assert (sim.folder / "receipts" / "rover-1" / "masks" / SEGMENT / agreed.digest.hex()).is_file()


@pytest.mark.parametrize("is_needed", [False, True])
def test_a_mask_that_is_not_to_be_had_ends_a_fetch_only_where_every_update_takes_it(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_needed: bool
) -> None:
    modes = ("agreed",) if is_needed else ("agreed", "free")
    mask = sim.agree(1, 4, 18)
    sim.publish_terms(support_modes=modes, mask=mask)
    sim.open_round()
    sim.objects.path(mask.digest).unlink()
    app, out = typer.Typer(), tmp_path / "model.npz"
    register(app)
    monkeypatch.setattr(Participant, "from_profile", lambda path: sim.participant("rover-1"))
    ended = CliRunner().invoke(
        app, ["fetch", "--out", str(out), "--profile", "p.toml", "--segment", SEGMENT, "--wait", "0"]
    )
    assert isinstance(ended.exception, SfrlError) == is_needed
    assert out.exists() is not is_needed
    assert ("note: no mask is kept for updates of agreed support: " in ended.stderr) is not is_needed


def test_submit_sends_the_support_that_is_asked_for(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.publish_terms(support_modes=("agreed", "free"), mask=sim.agree(1, 4, 18))
    sim.open_round()
    weights = tmp_path / "weights.npz"
    np.savez(weights, **{"a.weight": np.full((4, 4), 0.5, np.float32), "a.bias": np.full(4, 0.5, np.float32)})
    arguments = ("submit", "--weight", "1", "--receipt", "none", "--update")
    with pytest.raises(MalformedError, match="free, agreed, dense"):
        run(*arguments, str(weights), "--support", "mask")
    with pytest.raises(MalformedError, match="for free support: --support agreed is for new weights"):
        run(*arguments, str(update_file(tmp_path)), "--support", "agreed")
    with pytest.raises(DeniedError, match="support mode"):
        run(*arguments, str(weights), "--support", "dense")
    said = run(*arguments, str(weights), "--support", "agreed")
    assert (said["support"], said["nonzeros"]) == ("agreed", 3)


def test_submit_refuses_a_round_on_another_model_than_the_one_that_was_fetched(
    sim: Simulator, run: Any, tmp_path: Path
) -> None:
    sim.open_round()
    arguments = ("submit", "--update", str(update_file(tmp_path)), "--weight", "1")
    size = len(sim.log.raw)
    with pytest.raises(RoundStateError, match="another model"):
        run(*arguments, "--model", sha256(b"an older one").hex())
    assert len(sim.log.raw) == size
    assert run(*arguments, "--model", sim.segment.model.hex())["index"] == size


def test_submit_keeps_the_witnessed_receipt_where_none_is_counted(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.open_round()
    with pytest.raises(NotFoundError, match="admits the update") as missing:
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--receipt", "counted")
    kept = Path(str(missing.value).rpartition(" ")[2])
    assert open_receipt(kept.read_bytes(), sim.policy).kind is ReceiptKind.WITNESSED
    assert "round 1 is still open:" in str(missing.value)


def test_submit_without_a_receipt_waits_for_none(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.log.witnessing = True
    sim.open_round()
    said = run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--receipt", "none")
    assert "receipt" not in said
    with pytest.raises(MalformedError, match="one of"):
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--receipt", "some")
    with pytest.raises(MalformedError, match="packed, int8"):
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--value-type", "int7")
    with pytest.raises(DeniedError, match="take the value type int8"):
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--value-type", "bf16")
    with pytest.raises(MalformedError, match="--density is for"):
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--density", "0.5")


def test_new_weights_are_submitted_as_what_they_changed(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.open_round()
    out = tmp_path / "model.npz"
    run("fetch", "--out", str(out))
    with np.load(out, allow_pickle=False) as arrays:
        weights = {name: arrays[name] for name in arrays}
    weights["a.bias"][2] += 0.5
    weights["frozen"] += 1.0
    trained = tmp_path / "trained.npz"
    np.savez(trained, **weights)
    size = len(sim.log.raw)
    arguments = ("submit", "--update", str(trained), "--samples", "7", "--receipt", "none")
    with pytest.raises(MalformedError, match="above 0 and at most 1"):
        run(*arguments, "--density", "2")
    assert len(sim.log.raw) == size
    assert run(*arguments, "--density", "0.1")["nonzeros"] == 1
    np.savez(trained, **{"a.bias": weights["a.bias"]})
    with pytest.raises(MalformedError, match=r"add a\.weight"):
        run(*arguments)


def test_a_refusal_and_a_finished_segment_are_typed_errors(sim: Simulator, run: Any, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        sim.open_round()
        if number == 3:
            with pytest.raises(DeniedError) as denied:
                run("submit", "--update", str(update_file(tmp_path)), "--weight", "101")
            assert denied.value.reason == "weight_limit"
        sim.clock.advance(60_000_000)
        sim.close_round()
    with pytest.raises(RoundStateError, match="used up"):
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1")
    assert run("fetch", "--out", str(tmp_path / "last.npz"))["finished"] is True


@pytest.mark.parametrize(
    "arrays",
    [
        {"values": np.array([0.5])},
        {"values": np.array([1, 2])},
        {"values": np.array([b"a", b"b"])},
        {"indices": np.array([0.0, 1.0])},
        {"indices": np.array([[1, 4]]), "values": np.array([[0.5, 1.0]])},
        {"indices": np.array([1, 2**63], np.uint64)},
        {"indices": np.array([1, object()], dtype=object)},
        {"values": np.array([1 + 2j, 0])},
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        read_update(update_file(tmp_path, **arrays))


def test_a_file_that_is_no_update_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "update.npz"
    with pytest.raises(NotFoundError):
        read_update(path)
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(MalformedError):
        read_update(path)
    np.savez(path, indices=np.array([1]))
    with pytest.raises(MalformedError, match="no other"):
        read_update(path)
    with path.open("wb") as file:
        file.truncate(UPDATE_FILE_BYTES_MAX + 1)
    with pytest.raises(MalformedError, match="at most"):
        read_update(path)


def test_a_file_that_unpacks_to_more_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "update.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("values.npy", "w") as member:
        for _ in range(UPDATE_FILE_BYTES_MAX // 2**24 + 1):
            member.write(bytes(2**24))
    assert path.stat().st_size < 2**22
    with pytest.raises(MalformedError, match="arrays have at most"):
        read_update(path)


def test_integers_of_every_width_become_int64(tmp_path: Path) -> None:
    for dtype in (np.int8, np.uint16, np.int32, np.uint64, ">i4"):
        change = read_update(update_file(tmp_path, indices=np.array([1, 4], dtype)))
        assert isinstance(change, SparseChange)
        assert (change.indices.dtype, change.indices.tolist()) == (np.int64, [1, 4])
        assert change.values.dtype == np.float64


def test_a_model_goes_into_an_npz(sim: Simulator, tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=r"\.npz"):
        write_model(tmp_path / "model.bin", sim.initial)


# Withdrawals, complaints, decisions


def test_withdraw_takes_the_newest_back_and_says_the_same_again(sim: Simulator, run: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no receipt"):
        run("withdraw", wait=False)
    sim.open_round()
    sent = run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--receipt", "none")
    said = run("withdraw", wait=False)
    assert (said["round"], said["update"], said["index"]) == (1, sent["statement_digest"], sent["index"] + 1)
    assert run("withdraw", "--round", "1", wait=False) == said
    with pytest.raises(NotFoundError):
        run("withdraw", "--round", "2", wait=False)


def test_complain_writes_the_signed_update_and_only_where_none_was_acknowledged(
    sim: Simulator, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.open_round()
    out = tmp_path / "complaint.json"
    with pytest.raises(NotFoundError, match="nothing to complain of"):
        run("complain", "--out", str(out), wait=False)
    with monkeypatch.context() as away:
        away.setattr("sfrl_secure.rpc.clients.GatekeeperClient.submit", _unavailable)
        with pytest.raises(UnavailableError):
            run("submit", "--update", str(update_file(tmp_path)), "--weight", "1")
    said = run("complain", "--out", str(out), wait=False)
    _, envelope, update = parse_complaint(out.read_bytes())
    assert (said["round"], said["update"], said["out"]) == (update.round, envelope.digest.hex(), str(out))
    run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--receipt", "none")
    with pytest.raises(NotFoundError, match="nothing to complain of"):
        run("complain", "--out", str(out), wait=False)


def test_submit_and_fetch_say_at_once_that_a_segment_is_halted(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.open_round()
    sim.order(OrderAction.HALT)
    waiting = ("--wait", "600")
    with pytest.raises(RoundStateError, match="halted") as halted:
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", *waiting, wait=False)
    assert halted.value.reason == "halted"
    with pytest.raises(RoundStateError, match="halted"):
        run("fetch", "--out", str(tmp_path / "m.npz"), *waiting, wait=False)
    with pytest.raises(MalformedError, match="64 hexadecimal digits"):
        run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--model", "abc")


def test_what_comes_too_late_is_said_with_the_round_that_is_open(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.open_round()
    run("submit", "--update", str(update_file(tmp_path)), "--weight", "1", "--receipt", "none")
    sim.clock.advance(60_000_000)
    sim.close_round()
    with pytest.raises(RoundStateError, match="yours in round 1 is closed"):
        run("withdraw", wait=False)
    sim.open_round()
    with pytest.raises(RoundStateError, match="no update in round 2 of rocks, which is open; yours in round 1"):
        run("withdraw", wait=False)


def test_a_complaint_of_a_round_that_is_over_is_written_with_a_warning(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    register(app)
    monkeypatch.setattr(Participant, "from_profile", lambda path: sim.participant("rover-1"))
    sim.open_round()
    rover = sim.participant("rover-1")
    opened = rover.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    with monkeypatch.context() as away:
        away.setattr("sfrl_secure.rpc.clients.GatekeeperClient.submit", _unavailable)
        with pytest.raises(UnavailableError):
            rover.submit(opened, np.array([1]), np.array([0.5]), 1)
    arguments = ["complain", "--profile", "p", "--segment", SEGMENT, "--out", str(tmp_path / "complaint.json")]
    assert "warning" not in CliRunner().invoke(app, arguments).stderr
    sim.clock.advance(60_000_000)
    sim.close_round()
    sim.open_round()
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0
    assert "round 1 is over and round 2 is open" in said.stderr
    assert (tmp_path / "complaint.json").is_file()


def test_a_limit_is_said_in_parameter_units_too(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.open_round()
    limits = sim.segment.terms.limits
    much = update_file(tmp_path, values=np.array([1.5, -0.25]) * limits.magnitude_max * 2.0**-GRID)
    says = f"which is {limits.magnitude_max * 2.0**-GRID:g} in parameter units"
    with pytest.raises(DeniedError, match=re.escape(says)) as denied:
        run("submit", "--update", str(much), "--weight", "1")
    assert denied.value.entry_index is None, "it was not sent"


def _unavailable(*_arguments: object, **_options: object) -> None:
    raise UnavailableError("away")


def test_submit_refuses_here_what_would_betray_examples(sim: Simulator, run: Any, tmp_path: Path) -> None:
    gate = LeakageTerms(1, 1, 0, (), (LeakageBound("a.weight", 0, 1),))
    sim.publish_terms(leakage=gate)
    sim.open_round()
    size = len(sim.log.raw)
    with pytest.raises(DeniedError) as denied:
        run("submit", "--update", str(update_file(tmp_path, values=np.array([0.5, 0.25]))), "--weight", "1")
    assert (denied.value.reason, len(sim.log.raw)) == ("leak_labels", size)
    both = update_file(tmp_path, values=np.array([0.5, -0.25]))
    with pytest.raises(DeniedError) as denied:
        run("submit", "--update", str(both), "--weight", "1", "--noise-std", "1.5")
    assert (denied.value.reason, len(sim.log.raw)) == ("leak_noise", size)
    run("submit", "--update", str(both), "--weight", "1", "--noise-std", "0.25", "--receipt", "none")
    assert sim.segment.rounds[1].admissions["rover-1"].update.noise_std == 2**14


def decide(run: Any, folder: Path, *arguments: str, model: str, **options: Any) -> Any:
    (folder / "input.bin").write_bytes(b"a rock")
    given = ("--input", str(folder / "input.bin"), "--model", model, "--class", "4", "--confidence", "0.5")
    return run("record", "decision", *given, *arguments, **options)


def test_record_decision_and_its_opening(sim: Simulator, run: Any, tmp_path: Path) -> None:
    sim.open_round()
    more = ("--latents", "9,2", "--attribution", "7=0.25", "--attribution", "3=-0.5")
    said = decide(run, tmp_path, *more, model=sim.segment.model.hex())
    body = sim.log.statement_at(said["index"]).body
    assert isinstance(body, DecisionRecorded)
    assert (body.decision.active_latents, body.decision.predicted_class) == ((2, 9), 4)
    assert [(each.feature, each.share_ppm) for each in body.decision.attributions] == [(3, -500_000), (7, 250_000)]
    assert said["statement_digest"] == body.envelope.digest.hex()
    app = typer.Typer()
    app.add_typer(record.app, name="record")
    (tmp_path / "other.bin").write_bytes(b"a stone")
    for name, is_it in (("input.bin", True), ("other.bin", False)):
        arguments = ["record", "opening", said["opening"], "--input", str(tmp_path / name), "--json"]
        ended = CliRunner().invoke(app, arguments)
        told = json.loads(ended.stdout)
        assert (ended.exit_code, told["is_this_input"]) == (0 if is_it else 1, is_it)
        assert told["input_commitment"] == body.decision.input_commitment.hex()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--latents", "1,x"),
        ("--latents", "1,1"),
        ("--attribution", "7"),
        ("--attribution", "x=1"),
        ("--attribution", "7=nan"),
        ("--attribution", "7=1.01"),
        ("--attribution", "7=much"),
        ("--attribution", "7=0.1", "--attribution", "7=0.2"),
    ],
)
def test_a_decision_in_another_form_is_refused(
    sim: Simulator, run: Any, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    sim.open_round()
    size = len(sim.log.raw)
    with pytest.raises(MalformedError):
        decide(run, tmp_path, *arguments, model=sim.segment.model.hex())
    assert len(sim.log.raw) == size
