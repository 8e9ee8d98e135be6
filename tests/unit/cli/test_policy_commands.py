"""`sfrl policy`: from a draft to the log, step by step and each step's refusals."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from sfrl_secure.governance.aggregation_terms import NextMaskTerms
from sfrl_secure.ids import sha256
from sfrl_secure.operating.signing import parse_request, parse_signature
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.translog.tlog_proof import parse_tlog_proof

from .governed import Governed


def draft(run, governed: Governed, *changes: tuple[str, str], name: str = "rocks") -> Path:
    ended = run("policy", "draft", "segment-terms", name, "--log", governed.log)
    assert ended.code == 0
    text = ended.out
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path("draft.toml").write_text(text)
    return Path("draft.toml")


def request(run, governed: Governed, *changes: tuple[str, str]) -> Path:
    path = draft(run, governed, *(changes or (("sensitivity = 3", "sensitivity = 4"),)))
    ended = run("policy", "build", path, "--log", governed.log, "--out", "terms.json")
    assert ended.code == 0, ended
    return Path("terms.json")


def test_a_change_goes_from_a_draft_through_two_operators_into_the_log(run, governed: Governed) -> None:
    path = draft(run, governed, ("sensitivity = 3", "sensitivity = 4"))
    assert run("policy", "check", path, "--log", governed.log).out == f"{path}: ok: segment-terms rocks, version 2\n"
    built = run("policy", "build", path, "--profile", governed.profile)
    assert built.code == 0
    assert "request      segment-terms-rocks-v2.request.json" in built.out
    assert "needs        2 of the operators of root v1: signed by nobody; 2 more of ann, bob, eve" in built.out
    compared = run("policy", "diff", "segment-terms-rocks-v2.request.json", "--log", governed.log)
    assert "sensitivity: 3 -> 4 (TIGHTER)" in compared.out
    files = []
    for name in ("ann", "eve"):
        signed = run(
            "policy", "sign", "segment-terms-rocks-v2.request.json", "--key", governed.key(name), "--yes", "--json"
        )
        assert signed.code == 0
        assert "sensitivity 4" in signed.err
        files.append(json.loads(signed.out)["signature"])
    published = run(
        "policy", "publish", "segment-terms-rocks-v2.request.json", *files, "--profile", governed.profile, "--proof",
        "kept.tlog-proof", "--json",
    )  # fmt: skip
    assert published.code == 0
    said = json.loads(published.out)
    assert said["index"] == len(governed.sim.log.raw) - 1
    assert said["signed_by"] == ["ann", "eve"]
    assert parse_tlog_proof(Path("kept.tlog-proof").read_bytes()).leaf_index == said["index"]
    assert governed.sim.segment.terms.sensitivity == 4


def test_how_rounds_are_added_up_goes_from_a_draft_to_what_is_shown(run, governed: Governed, publish_to) -> None:
    server = '[server]\nname = "momentum/v1"\ndecay = 0.9\nrate = 0.1'
    path = draft(run, governed, ('name = "weighted_mean/v1"', f'name = "union_mean/v1"\n{server}'))
    assert run("policy", "check", path, "--log", governed.log).out == (
        f"{path}: ok: segment-terms rocks, version 2\n"
        f"{path}: warning: who alone sends a coordinate decides it, under union_mean/v1 without [cap]\n"
    )
    changed = run("policy", "diff", path, "--log", governed.log).out
    assert "server: none: the step is what the rule gives -> momentum/v1: decay 0.9, rate 0.1" in changed
    built = run("policy", "build", path, "--log", governed.log, "--out", "terms.json")
    assert "who alone sends a coordinate decides it" in built.err
    signed = run("policy", "sign", "terms.json", *governed.keys("ann"), "--yes")
    assert "CAUTION      who alone sends a coordinate decides it" in signed.err
    request = parse_request(Path("terms.json").read_bytes())
    governed.sim.publish(request.payload_type, request.payload)
    governed.sim.play_round("rover-1", "rover-2", "rover-3")
    publish_to(governed.sim, governed.log)
    (step,) = governed.sim.segment.lineage
    assert step.server_state is not None
    shown = run("segment", "show", "rocks", "--log", governed.log).out
    assert "rule         union_mean/v1: weighted mean of those who sent the coordinate" in shown
    assert f"server state {step.server_state.hex()}: the next round's step goes on from it" in shown
    said = json.loads(run("segment", "show", "rocks", "--log", governed.log, "--json").out)
    assert (said["server_state"], said["mask"]) == (step.server_state.hex(), None)
    assert [each["server_state"] for each in said["lineage"]] == [step.server_state.hex()]


def test_a_mask_that_changed_is_what_the_next_round_begins_with(run, governed: Governed, publish_to) -> None:
    mask = governed.sim.agree(0, 3, 9, 17, next=NextMaskTerms("votes", 2))
    governed.sim.publish_terms(support_modes=["agreed", "free"], mask=mask)
    publish_to(governed.sim, governed.log)
    first = json.loads(run("segment", "show", "rocks", "--log", governed.log, "--json").out)
    assert first["mask"] == mask.digest.hex()
    governed.sim.play_round("rover-1", "rover-2", "rover-3")
    publish_to(governed.sim, governed.log)
    (step,) = governed.sim.segment.lineage
    assert step.next_mask not in (None, mask.digest)
    said = json.loads(run("segment", "show", "rocks", "--log", governed.log, "--json").out)
    assert said["mask"] == said["lineage"][0]["next_mask"] == step.next_mask.hex()
    shown = run("segment", "show", "rocks", "--log", governed.log).out
    assert f"next mask    {step.next_mask.hex()}: what agreed updates of the next round have" in shown
    governed.sim.open_round()
    publish_to(governed.sim, governed.log)
    shown = run("segment", "show", "rocks", "--log", governed.log).out
    assert f"mask now     {step.next_mask.hex()}: what agreed updates of the open round 2 have" in shown
    # Terms that come meanwhile are the next round's: the open one goes on with the mask that it began with.
    governed.sim.publish_terms(support_modes=["agreed", "free"], mask=governed.sim.agree(1, 2))
    publish_to(governed.sim, governed.log)
    assert f"mask now     {step.next_mask.hex()}: " in run("segment", "show", "rocks", "--log", governed.log).out


def test_check_names_file_line_and_reason_of_each_bad_thing(run, governed: Governed) -> None:
    Path("a.toml").write_text('kind = "rules"\nexpires = "soon"\nfile = "b.cedar"\n')
    Path("b.cedar").write_text('@id("a")\npermit (principal, action, resource)\nwhen { context.wait > 1 };\n')
    Path("c.cedar").write_text('@id("a")\npermit (principal, action, resource);\n')
    ended = run("policy", "check", "a.toml", "b.cedar", "c.cedar")
    assert ended.code == 2
    lines = ended.out.splitlines()
    assert lines[0].startswith("a.toml:2: `expires`: a duration is")
    assert lines[1].startswith("b.cedar:3: rule a: attribute `wait`")
    assert "policy0" not in lines[1]
    assert lines[2] == "c.cedar: ok: rules"
    listed = json.loads(run("policy", "check", "a.toml", "b.cedar", "c.cedar", "--json").out)
    assert [each["line"] for each in listed["problems"]] == [2, 3]
    assert not listed["ok"]


def test_check_against_the_log_finds_what_the_file_alone_does_not_show(run, governed: Governed) -> None:
    path = draft(run, governed, ('tensors = ["a.weight"', 'tensors = ["b.weight"'))
    assert run("policy", "check", path).code == 0
    ended = run("policy", "check", path, "--log", governed.log)
    assert ended.code == 2
    assert "names of the manifest" in ended.out


def test_a_draft_that_does_not_fit_builds_nothing(run, governed: Governed) -> None:
    path = draft(run, governed, ("cohort_min = 2", "cohort_min = 9"))
    ended = run("policy", "build", path, "--log", governed.log)
    assert ended.code == 2
    assert ended.out.startswith("draft.toml:")
    assert [each.name for each in Path().iterdir()] == ["draft.toml"]


def test_rules_are_built_from_a_cedar_file_alone(run, governed: Governed) -> None:
    Path("rules.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    ended = run("policy", "build", "rules.cedar", "--log", governed.log, "--out", "rules.json", "--expires", "30d")
    assert ended.code == 0
    built = parse_request(Path("rules.json").read_bytes()).document
    assert built.series == ("rules", "")
    assert built.expires_us == governed.sim.clock.now_us() + 30 * 86_400_000_000


def test_a_new_segments_zeros_are_stored(run, governed: Governed) -> None:
    tensor = '[[model.tensors]]\nname = "a.weight"\nshape = [16]\ndtype = "int32"\n'
    model = f'[model]\ngrid_exponent = 16\ninitial = "zeros"\n{tensor}[limits]'
    path = draft(
        run, governed, ('segment = "rocks"', 'segment = "sand"'), ("[limits]", model),
        ('tensors = ["a.weight", "a.bias"]', 'tensors = ["a.weight"]'),
    )  # fmt: skip
    ended = run("policy", "build", path, "--log", governed.log, "--objects", "objects", "--json", "--out", "sand.json")
    assert ended.code == 0
    said = json.loads(ended.out)
    assert list(Path("objects").rglob(said["stored"])) or list(Path("objects").rglob(f"{said['stored']}*"))
    document = json.loads(parse_request(Path("sand.json").read_bytes()).payload)
    assert document["model"]["initial"] == said["stored"]


def test_a_mask_is_looked_for_among_the_objects(run, governed: Governed) -> None:
    coordinates = governed.sim.segment.terms.model.manifest.coordinates
    mask = encode_mask(coordinates, np.array([0, 2, 5], dtype=np.int64))
    name = sha256(mask).hex()
    table = f'[mask]\ndigest = "{name}"\nnonzeros = 3\n[limits]'
    path = draft(run, governed, ('support_modes = ["free"]', 'support_modes = ["agreed"]'), ("[limits]", table))
    words = ("policy", "build", path, "--log", governed.log, "--objects", "objects", "--out", "rocks.json")
    ended = run(*words)
    assert ended.code != 0
    assert f"no object {name} lies there" in ended.err
    assert not Path("rocks.json").exists()
    kept = Path("objects") / name[:2] / name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(mask)
    assert run(*words).code == 0
    document = json.loads(parse_request(Path("rocks.json").read_bytes()).payload)
    assert document["mask"] == {"digest": name, "nonzeros": 3, "next": None}


def test_objects_are_for_a_model_of_zeros_or_a_mask(run, governed: Governed) -> None:
    ended = run("policy", "build", draft(run, governed), "--log", governed.log, "--objects", "objects")
    assert ended.code == 2
    assert 'initial = "zeros"' in ended.err


def test_a_file_is_never_written_over(run, governed: Governed) -> None:
    path = request(run, governed)
    before = path.read_bytes()
    ended = run("policy", "build", "draft.toml", "--log", governed.log, "--out", path)
    assert ended.code == 2
    assert "is there already" in ended.err
    assert path.read_bytes() == before


def test_without_a_place_to_read_from_it_is_said_what_to_name(run, governed: Governed) -> None:
    path = draft(run, governed)
    ended = run("policy", "build", path)
    assert ended.code == 2
    assert "--profile FILE" in ended.err
    assert "--log DIR" in ended.err


def test_a_mirrors_folder_is_taken_for_the_log_inside(run, governed: Governed) -> None:
    governed.log.rename(governed.folder / "inside")
    governed.log.mkdir()
    (governed.folder / "inside").rename(governed.log / "log")
    assert run("policy", "draft", "rules", "--log", governed.log).code == 0


def test_what_is_not_in_force_is_said_with_what_is(run, governed: Governed) -> None:
    ended = run("policy", "draft", "segment-terms", "sand", "--log", governed.log)
    assert ended.code == 2
    assert "segment-terms rocks" in ended.err


# Signing


def test_what_is_shown_is_read_from_the_document_and_not_from_the_summary(run, governed: Governed) -> None:
    path = request(run, governed)
    fields = json.loads(path.read_text())
    assert "sensitivity 4" in fields["summary"]
    fields["summary"], fields["threshold"], fields["signers"] = "Nothing of importance.", 1, ["nobody"]
    path.write_text(json.dumps(fields))
    ended = run("policy", "sign", path, "--key", governed.key("ann"), "--yes")
    assert ended.code == 0
    assert "sensitivity 4" in ended.err
    assert "Nothing of importance" not in ended.err + ended.out


def test_signing_reads_nothing_but_request_and_key(run, governed: Governed, monkeypatch: pytest.MonkeyPatch) -> None:
    path = request(run, governed)

    def refuse(*_arguments: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket", refuse)
    monkeypatch.setattr("sfrl_secure.operating.following.connect", refuse)
    monkeypatch.setattr("sfrl_secure.cli.reading.read_folded", refuse)
    assert run("policy", "sign", path, "--key", governed.key("ann"), "--yes").code == 0


def test_nothing_is_signed_without_a_yes(run, governed: Governed, monkeypatch: pytest.MonkeyPatch) -> None:
    path = request(run, governed)
    before = set(Path().iterdir())
    nobody = run("policy", "sign", path, "--key", governed.key("ann"))
    assert (nobody.code, "--yes" in nobody.err) == (2, True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda question, err: False)
    declined = run("policy", "sign", path, "--key", governed.key("ann"))
    assert declined.code == 3
    assert "nothing was signed" in declined.err
    assert set(Path().iterdir()) == before
    monkeypatch.setattr("typer.confirm", lambda question, err: True)
    assert run("policy", "sign", path, "--key", governed.key("ann")).code == 0


def test_a_key_that_others_can_read_does_not_sign(run, governed: Governed) -> None:
    governed.key("ann").chmod(0o640)
    ended = run("policy", "sign", request(run, governed), "--key", governed.key("ann"), "--yes")
    assert ended.code == 3
    assert "chmod 600" in ended.err


def test_no_command_prints_a_private_key(run, governed: Governed) -> None:
    path = request(run, governed)
    secret = [line for line in governed.key("ann").read_text().split("\n") if line and "-----" not in line]
    for command in (
        ("policy", "sign", path, "--key", governed.key("ann"), "--yes"),
        ("policy", "key", governed.key("ann")),
        ("policy", "sign", governed.key("ann"), "--key", path, "--yes"),
        ("policy", "publish", path, governed.key("ann"), "--profile", governed.profile),
    ):
        ended = run(*command)
        assert not any(line in ended.out + ended.err for line in secret)


def test_a_signature_file_names_document_and_key(run, governed: Governed) -> None:
    path = request(run, governed)
    ended = run("policy", "sign", path, "--key", governed.key("bob"), "--yes", "--out", "bob.json")
    assert ended.code == 0
    signed = parse_signature(Path("bob.json").read_bytes())
    assert signed.digest == parse_request(path.read_bytes()).digest
    assert signed.signature.key_id == governed.sim.operators["bob"].public_key.key_id


# Publishing


def signatures(run, governed: Governed, path: Path, *names: str) -> list[str]:
    for name in names:
        assert run("policy", "sign", path, "--key", governed.key(name), "--yes", "--out", f"{name}.json").code == 0
    return [f"{name}.json" for name in names]


@pytest.mark.parametrize("names", [(), ("ann",), ("ann", "ann")])
def test_too_few_signatures_publish_nothing_and_the_others_are_named(run, governed: Governed, names) -> None:
    path, size = request(run, governed), len(governed.sim.log.raw)
    given = signatures(run, governed, path, *dict.fromkeys(names))
    ended = run("policy", "publish", path, *(given * 2), "--profile", governed.profile)
    assert ended.code == 3
    assert f"{2 - len(given)} more of " in ended.err
    assert "eve" in ended.err
    assert ended.err.endswith("(threshold)\n")
    assert len(governed.sim.log.raw) == size


def test_a_version_race_is_explained(run, governed: Governed) -> None:
    path = request(run, governed)
    given = signatures(run, governed, path, "ann", "bob")
    governed.sim.publish_terms(sensitivity=5)
    for places in (("--profile", governed.profile), ("--profile", governed.profile, "--log", governed.log)):
        ended = run("policy", "publish", path, *given, *places)
        assert ended.code == 3
        assert "another version was published meanwhile: build it again" in ended.err


@pytest.mark.parametrize("file", ["draft.toml", "terms.json", "nowhere.json"])
def test_what_is_no_signature_is_named(run, governed: Governed, file: str) -> None:
    path = request(run, governed)
    ended = run("policy", "publish", path, file, "--profile", governed.profile)
    assert ended.code == 2
    assert file in ended.err


def test_an_auditors_profile_publishes_nothing(run, governed: Governed) -> None:
    path = request(run, governed)
    governed.profile.write_text(governed.profile.read_text().replace("[operator]", "[auditor]"))
    ended = run("policy", "publish", path, "--profile", governed.profile)
    assert ended.code == 2
    assert "an operator's is needed" in ended.err


def test_publishing_again_names_who_signed_the_entry_and_not_who_signed_now(run, governed: Governed) -> None:
    path = request(run, governed)
    given = signatures(run, governed, path, "ann", "bob", "eve")
    first = run("policy", "publish", path, *given[:2], "--profile", governed.profile, "--json")
    assert json.loads(first.out)["signed_by"] == ["ann", "bob"]
    for places in ((), ("--log", governed.log)):
        again = run("policy", "publish", path, *given, "--profile", governed.profile, "--json", *places)
        said = json.loads(again.out)
        assert "published" not in said
        assert said["already_published"].startswith("terms of segment rocks")
        assert (said["index"], said["signed_by"]) == (json.loads(first.out)["index"], ["ann", "bob"])


def test_a_strangers_signature_or_key_is_named_by_its_file(run, governed: Governed) -> None:
    path = request(run, governed)
    run("policy", "key", "dora.key", "--new")
    assert run("policy", "sign", path, "--key", "dora.key", "--yes", "--out", "dora.json").code == 0
    ended = run("policy", "publish", path, "dora.json", "--profile", governed.profile)
    assert (ended.code, "dora.json is of nobody who may sign" in ended.err) == (3, True)
    at_once = run("order", "halt", "rocks", "--profile", governed.profile, "--key", "dora.key", "--yes")
    assert (at_once.code, "key file dora.key is of nobody who may sign" in at_once.err) == (3, True)
    assert "would sign" not in at_once.err


def test_a_file_that_cannot_be_made_has_one_reason_and_its_own_option(run, governed: Governed) -> None:
    path = request(run, governed)
    sign = ("policy", "sign", path, "--key", governed.key("ann"), "--yes", "--out")
    there, nowhere = run(*sign, path), run(*sign, "nowhere/x.json")
    assert there.err.endswith("terms.json is there already: name another with --out\n")
    assert nowhere.err.endswith("x.json has no folder to lie in: make nowhere, or name another with --out\n")
    key = run("policy", "key", governed.key("ann"), "--new")
    assert key.err.endswith("ann.key is there already: name another\n")


def test_a_group_that_nobody_has_is_a_warning_of_check_and_build(run, governed: Governed) -> None:
    path = draft(run, governed, ('groups = ["rovers"]', 'groups = ["rvers"]'))
    checked = run("policy", "check", path, "--log", governed.log)
    assert checked.code == 0
    assert "warning: no participant has the group rvers: did you mean rovers?" in checked.out
    assert "rvers" in run("policy", "build", path, "--log", governed.log).err


def test_whoever_signs_is_told_where_to_see_what_changes(run, governed: Governed) -> None:
    ended = run("policy", "sign", request(run, governed), "--key", governed.key("ann"), "--yes")
    assert "sfrl policy diff terms.json --log DIR" in ended.err


# Comparing


def test_two_files_are_compared_without_any_log(run, governed: Governed) -> None:
    request(run, governed)
    again = draft(run, governed, ("sensitivity = 3", "sensitivity = 9"))
    assert run("policy", "build", again, "--log", governed.log, "--out", "other.json").code == 0
    ended = run("policy", "diff", "terms.json", "other.json", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["changes"] == ["sensitivity: 4 -> 9 (TIGHTER)"]


def test_a_draft_is_compared_with_what_is_in_force(run, governed: Governed) -> None:
    path = draft(run, governed, ('groups = ["rovers"]', 'groups = ["drones"]'))
    ended = run("policy", "diff", path, "--log", governed.log)
    assert "lose the segment: rover-1, rover-2, rover-3, rover-4" in ended.out
    alone = run("policy", "diff", path)
    assert (alone.code, "--log" in alone.err) == (2, True)


def test_two_different_documents_are_not_compared(run, governed: Governed) -> None:
    request(run, governed)
    Path("rules.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    ended = run("policy", "diff", "terms.json", "rules.cedar", "--log", governed.log)
    assert ended.code == 2
    assert "no two versions of one document" in ended.err


def test_what_is_no_document_is_named(run, governed: Governed) -> None:
    Path("x.json").write_text("{}")
    ended = run("policy", "diff", "x.json", "--log", governed.log)
    assert ended.code == 2
    assert "x.json is neither" in ended.err


# Keys and root


@pytest.mark.parametrize("suite", ["ed25519", "ed25519+ml-dsa-44"])
def test_a_new_key_is_its_owners_alone_and_prints_its_public_part(run, governed: Governed, suite: str) -> None:
    ended = run("policy", "key", "dora.key", "--new", "--suite", suite)
    assert ended.code == 0
    assert f'suite = "{suite}"' in ended.out
    assert stat.S_IMODE(Path("dora.key").stat().st_mode) == 0o600
    assert run("policy", "key", "dora.key").out == ended.out
    assert run("policy", "key", "dora.key", "--new").code == 2


def test_root_is_rotated_by_the_operators_before_and_after(run, governed: Governed) -> None:
    Path("dora.pub").write_text(run("policy", "key", "dora.key", "--new").out)
    command = ("policy", "root", "--add", "dora=dora.pub", "--remove", "eve", "--profile", governed.profile, "--yes")
    short = run(*command, *governed.keys("ann", "bob"), "--threshold", "root=3", "--json", "--out", "root.json")
    assert short.code == 0
    said = json.loads(short.out)
    assert said["needs"][1].endswith("signed by ann, bob; 1 more of dora")
    assert len(said["signatures"]) == 2
    signed = run("policy", "sign", "root.json", "--key", "dora.key", "--yes", "--json")
    files = [*said["signatures"], json.loads(signed.out)["signature"]]
    published = run("policy", "publish", "root.json", *files, "--profile", governed.profile)
    assert published.code == 0, published
    root = governed.sim.state.root
    assert root is not None
    assert (root.version, sorted(root.operators), root.thresholds.root) == (2, ["ann", "bob", "dora"], 3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "nothing would change"),
        (("--add", "dora"), "NAME=FILE"),
        (("--add", "dora=draft.toml"), "draft.toml"),
        (("--threshold", "root"), "ROLE=N"),
        (("--threshold", "laws=2"), "ROLE=N"),
        (("--threshold", "root=9"), "3 operators would be left and root takes 9"),
        (("--add", "erin=ann.pub"), "erin's key is ann's"),
        (("--remove", "dora"), "ann, bob, eve"),
    ],
)
def test_a_root_that_cannot_be_is_refused_with_what_can(run, governed: Governed, options, reason: str) -> None:
    Path("draft.toml").write_text("kind = 1\n")
    Path("ann.pub").write_text(run("policy", "key", governed.key("ann")).out)
    ended = run("policy", "root", *options, "--log", governed.log)
    assert ended.code == 2
    assert reason in ended.err


def test_a_hybrid_operators_key_signs_whole(run, governed: Governed) -> None:
    Path("dora.pub").write_text(run("policy", "key", "dora.key", "--new").out)
    ended = run(
        "policy", "root", "--add", "ann=dora.pub", "--profile", governed.profile, "--yes", "--key", "dora.key",
        *governed.keys("ann", "bob"),
    )  # fmt: skip
    assert ended.code == 0, ended
    assert governed.sim.state.root is not None
    assert governed.sim.state.root.operators["ann"].suite == "ed25519+ml-dsa-44"
