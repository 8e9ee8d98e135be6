"""A plan's masks: files beside it, decoded before anything is made, and kept among the objects under their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sfrl_secure.cli.main import app
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import parse_envelope_json
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.governance.aggregation_terms import MaskTerms, NextMaskTerms
from sfrl_secure.governance.terms import SegmentTerms, parse_terms
from sfrl_secure.ids import sha256
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.services.federation.masks import open_masks, read_masks
from sfrl_secure.services.federation.plan import FederationPlan, parse_plan
from sfrl_secure.services.federation.plan_checks import check_plan
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.storage.objects import ObjectStore

COORDINATES = 20
PLAN = """
[[participants]]
name = "rover-1"
groups = ["rovers"]

[[segments]]
name = "rocks"
groups = ["rovers"]
relay_groups = ["lorries", "orbiters"]
tensors = [{ name = "weight", shape = [4, 4] }, { name = "bias", shape = [4] }]
value_types = ["int8"]
support_modes = ["agreed", "dense"]
mask = "rocks.mask"
nonzeros_max = 20
norm_max = 100.0
magnitude_max = 10.0
weight_max = 1000
cohort_max = 3
rounds_max = 10
"""
MASK = encode_mask(COORDINATES, np.array([0, 3, 4, 19], dtype=np.int64))


def plan(*changes: tuple[str, str]) -> FederationPlan:
    text = PLAN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_plan(text.encode())


def terms_of(folder: FederationFolder) -> SegmentTerms:
    (path,) = (folder.root / "documents").glob("*-segment-terms.json")
    return parse_terms(parse_envelope_json(path.read_bytes()).statement)


def test_init_takes_the_mask_beside_the_plan_into_terms_and_objects(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "rocks.mask").write_bytes(MASK)
    done = CliRunner().invoke(app, ["init", str(tmp_path / "fed"), "--plan", str(tmp_path / "plan.toml")])
    assert done.exit_code == 0, done.output
    folder = FederationFolder(tmp_path / "fed")
    terms = terms_of(folder)
    assert terms.mask == MaskTerms(sha256(MASK), 4)
    assert (terms.support_modes, terms.relay_groups) == ({"agreed", "dense"}, {"lorries", "orbiters"})
    assert terms.value_types == {"int8"}
    assert ObjectStore(folder.objects_dir).get(terms.mask.digest, len(MASK)) == MASK


def test_init_names_the_plan_whose_mask_cannot_change_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace("nonzeros_max", 'mask_next = { score = "votes", regrow = 5 }\nnonzeros_max'))
    (tmp_path / "rocks.mask").write_bytes(MASK)
    ended = CliRunner().invoke(app, ["init", str(tmp_path / "fed"), "--plan", str(path)])
    assert isinstance(ended.exception, MalformedError)
    assert str(ended.exception).startswith(f"{path}: the plan's segment rocks: mask_next.regrow is")
    assert not (tmp_path / "fed").exists()


def test_a_mask_changes_as_the_plan_says_or_is_refused_with_its_key() -> None:
    written = 'mask_next = { score = "votes", regrow = 2, protected = ["bias"] }\nnonzeros_max'
    smaller = (("shape = [4] ", "shape = [2] "), ("nonzeros_max = 20", "nonzeros_max = 18"))
    changing = plan(("nonzeros_max", written), *smaller)
    mask = encode_mask(18, np.array([0, 3, 4, 17], dtype=np.int64))
    terms = open_masks(changing, {"rocks": mask})["rocks"].terms
    assert terms == MaskTerms(sha256(mask), 4, NextMaskTerms("votes", 2, frozenset({"bias"})))
    for old, new, said in (
        ("regrow = 2", "regrow = 3", r"mask_next\.protected are tensors that fit into the mask"),
        ("regrow = 2", "regrow = 5", r"mask_next\.regrow is an integer from 1 to 4"),
        ('"votes"', '"voices"', r"mask_next\.score is one of contribution, saliency, votes"),
        ('["bias"]', '["no"]', r"mask_next\.protected are tensors that updates may touch"),
        ('["bias"]', '["bias", "bias"]', r"mask_next\.protected: nothing stands there twice"),
    ):
        other = plan(("nonzeros_max", written.replace(old, new)), *smaller)
        with pytest.raises(MalformedError, match=rf"the plan's segment rocks: {said}"):
            open_masks(other, {"rocks": mask})


def test_a_mask_that_is_not_there_is_named_with_its_segment(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=rf"mask of segment rocks: there is no file {tmp_path}/rocks.mask"):
        read_masks(plan(), tmp_path)
    with pytest.raises(MalformedError, match=r"mask of segment rocks, rocks\.mask: it is not given"):
        create_federation(tmp_path / "fed", plan(), SystemClock())
    assert not (tmp_path / "fed").exists()


def test_a_file_that_is_longer_than_any_mask_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "rocks.mask").write_bytes(bytes(8 * COORDINATES + 4_097))
    with pytest.raises(MalformedError, match="mask of segment rocks, "):
        read_masks(plan(), tmp_path)
    (tmp_path / "rocks.mask").write_bytes(MASK)
    assert read_masks(plan(), tmp_path) == {"rocks": MASK}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "encode_mask"),
        (b"\x93NUMPY" + bytes(122), "encode_mask"),
        (MASK[:-1], "encode_mask"),
        (MASK + b"\0", "encode_mask"),
        (encode_mask(COORDINATES + 1, [1]), "of 21 coordinates; the plan's has 20; .*encode_mask"),
        (encode_mask(COORDINATES, []), "names no coordinate"),
        (encode_mask(COORDINATES, range(6)), "names 6 coordinates, and nonzeros_max is 5"),
    ],
    ids=["nothing", "an array", "cut short", "too much", "of another model", "empty", "more than an update may have"],
)
def test_what_is_no_mask_of_the_segment_is_refused_before_anything_is_made(
    raw: bytes, said: str, tmp_path: Path
) -> None:
    bounded = plan(("nonzeros_max = 20", "nonzeros_max = 5"), ('"agreed", "dense"', '"agreed"'))
    assert open_masks(bounded, {"rocks": MASK})["rocks"].terms.nonzeros == 4
    with pytest.raises(MalformedError, match=rf"the mask of segment rocks, rocks\.mask: .*{said}"):
        create_federation(tmp_path / "fed", bounded, SystemClock(), masks={"rocks": raw})
    assert not (tmp_path / "fed").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([('mask = "rocks.mask"\n', "")], "a mask is named exactly where agreed"),
        ([('"agreed", "dense"', '"dense", "free"')], "a mask is named exactly where agreed"),
        ([("nonzeros_max = 20", "nonzeros_max = 19")], "a dense update has 20 values"),
    ],
)
def test_a_plan_whose_supports_do_not_fit_is_refused(changes: list[tuple[str, str]], said: str) -> None:
    check_plan(plan())
    with pytest.raises(MalformedError, match=f"segment rocks: {said}"):
        check_plan(plan(*changes))


def test_payloads_that_are_too_short_for_dense_or_agreed_updates_are_refused() -> None:
    longest = ("nonzeros_max", "payload_bytes_max = 20\nnonzeros_max")
    check_plan(plan(longest))
    with pytest.raises(MalformedError, match=r"payload_bytes_max is 19, and dense updates have 20 values.*20 bytes"):
        check_plan(plan(("nonzeros_max", "payload_bytes_max = 19\nnonzeros_max")))
    # One that fits in one value type and not in another that is taken, too.
    with pytest.raises(MalformedError, match=r"dense updates have 20 values.*80 bytes or more as fp32"):
        check_plan(plan(longest, ('"int8"', '"int8", "fp32"')))
    agreed = plan(("nonzeros_max", "payload_bytes_max = 3\nnonzeros_max"), ('"agreed", "dense"', '"agreed"'))
    check_plan(agreed)
    with pytest.raises(MalformedError, match="agreed updates have 4 values, which take 4 bytes or more as int8"):
        open_masks(agreed, {"rocks": MASK})
