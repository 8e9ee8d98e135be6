"""`sfrl audit verify` and `show`: exit codes, one JSON object, and a reading that says it is none of a proof."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BUNDLE = "tile/entries/000.p"


def the_bundle(log: Path) -> Path:
    (found,) = (log / BUNDLE).iterdir()
    return found


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(bytes(raw))


def test_a_true_log_is_verified_with_exit_code_0(run, made) -> None:
    ended = run(*made.verify)
    assert ended.code == 0
    assert ended.out.startswith("VERIFIED")


def test_json_is_one_object_on_one_line_and_nothing_else(run, made) -> None:
    ended = run(*made.verify, "--json")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    assert ended.out.endswith("\n")
    found = json.loads(ended.out)
    assert (found["verdict"], found["models"], found["rounds"]) == ("verified", 1, 2)


def test_a_changed_entry_gives_exit_code_1_and_json_all_the_same(run, published) -> None:
    flip(the_bundle(published.log), 700)
    ended = run(*published.verify, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["verdict"] == "false"


def test_a_missing_tile_gives_exit_code_2(run, published) -> None:
    for tile in (published.log / "tile/0/000.p").iterdir():
        tile.unlink()
    ended = run(*published.verify)
    assert ended.code == 2
    assert ended.out.startswith("MISSING")


@pytest.mark.parametrize("option", ["--log", "--objects", "--trust-policy"])
def test_what_is_not_there_is_named_with_exit_code_2_and_no_traceback(run, made, tmp_path: Path, option: str) -> None:
    arguments = [*made.verify]
    arguments[arguments.index(option) + 1] = str(tmp_path / "nowhere")
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert str(tmp_path / "nowhere") in ended.err


def test_a_trust_policy_that_is_none_is_wrong_use(run, published) -> None:
    published.trust_policy.write_text("not a policy\n")
    ended = run(*published.verify)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("error: ")


def test_an_older_checkpoint_of_the_log_may_be_held_against_it(run, made) -> None:
    ended = run(*made.verify, "--older", made.log / "checkpoint", "--same-operator", "w1")
    assert ended.code == 0
    assert "w1 (same operator as the log)" in ended.out


def test_an_older_checkpoint_that_is_none_is_wrong_use(run, made) -> None:
    ended = run(*made.verify, "--older", made.trust_policy)
    assert ended.code == 2


def test_the_list_has_a_line_for_each_entry_and_says_that_it_proves_nothing(run, made) -> None:
    ended = run("audit", "show", "--log", made.log)
    assert ended.code == 0
    assert "not a proof" in ended.err
    lines = ended.out.splitlines()
    size = int((made.log / "checkpoint").read_text().splitlines()[1])
    assert len(lines) == size + 1
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(size))
    text = ended.out
    for kind in ("genesis", "services", "rules", "segment-terms", "participant", "identity_issued", "round_opened",
                 "update_admitted", "round_closed", "model_published"):  # fmt: skip
        assert kind in text
    assert "rocks: round 1, rover-1: 2 nonzeros, weight 10" in text
    assert "gatekeeper/g1" in text


def test_an_entry_that_does_not_parse_is_listed_as_such(run, published) -> None:
    flip(the_bundle(published.log), 4)  # in `prev`, so its length stays
    raw = bytearray(the_bundle(published.log).read_bytes())
    raw[2] = 0xFF  # the first field's tag
    the_bundle(published.log).write_bytes(bytes(raw))
    ended = run("audit", "show", "--log", published.log)
    assert ended.code == 0
    assert "that are no entry" in ended.out.splitlines()[1]


def test_a_document_is_shown_exactly_as_it_was_signed(run, made) -> None:
    ended = run("audit", "show", "3", "--log", made.log)
    assert ended.code == 0
    shown = ended.out.split("document, exactly as signed:\n")[1]
    assert json.loads(shown)["type"] == "segment-terms"
    assert "entry_hash" in ended.out


def test_a_statement_is_shown_with_every_field(run, made) -> None:
    listed = run("audit", "show", "--log", made.log).out
    index = next(line.split()[0] for line in listed.splitlines() if "update_admitted" in line)
    ended = run("audit", "show", index, "--log", made.log)
    assert ended.code == 0
    for field in ("reads_governance", "payload_sha256", "density_ppm", "rule_ids", "retain_until_us", "participant"):
        assert f"{field}: " in ended.out


def test_an_index_beyond_the_log_is_wrong_use(run, made) -> None:
    ended = run("audit", "show", "99999", "--log", made.log)
    assert ended.code == 2
    assert ended.err.startswith("error: the log has ")


def test_a_log_without_its_entries_is_missing_evidence(run, published) -> None:
    the_bundle(published.log).unlink()
    ended = run("audit", "show", "--log", published.log)
    assert ended.code == 2
    assert "tile/entries/000.p/" in ended.err


def test_a_folder_that_is_no_log_says_so(run, tmp_path: Path) -> None:
    ended = run("audit", "show", "--log", tmp_path)
    assert ended.code == 2
    assert f"{tmp_path} holds neither `checkpoint` nor `tile`" in ended.err


def test_a_bundle_that_cannot_be_cut_is_named(run, published) -> None:
    path = the_bundle(published.log)
    path.write_bytes(path.read_bytes()[:-1])
    ended = run("audit", "show", "--log", published.log)
    assert ended.code == 2
    assert "tile/entries/000.p/" in ended.err


def test_a_log_that_has_grown_on_is_read_from_its_full_bundle(tmp_path: Path) -> None:
    from sfrl_secure.audit.published import read_unverified_entry
    from sfrl_secure.translog.tiles import encode_bundle

    path = tmp_path / "tile/entries/000"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_bundle([b"%d" % number for number in range(256)]))
    assert read_unverified_entry(tmp_path, 7, 5).raw == b"5"
