"""Honest rounds from opening to receipt, and everything that must hold afterwards.

Two segments of one federation begin with the same model and get the same updates, in another order each round: their
models are the same bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.errors import VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.translog.policy import parse_trust_policy
from sfrl_secure.wire.receipts import ReceiptKind

from .conftest import COORDINATES, ROVERS, Site, Start, open_number, small_plan, submit

ROUNDS = 3
LEFT, RIGHT = "left", "right"
KINDS = (ReceiptKind.WITNESSED, ReceiptKind.COUNTED)


@dataclass(frozen=True)
class Ran:
    """What was done and what came of it.

    Attributes:
        sent: by segment and round.
        models: each round's base as the rovers fetched it, by segment; index 0 is the first model.
        names: the same models' digests.
        exit_codes: of the services, after SIGTERM.
    """

    site: Site
    sent: dict[tuple[str, int], list[Submitted]]
    models: dict[str, list[ModelSnapshot]]
    names: dict[str, list[Digest]]
    receipts: dict[ReceiptKind, bytes]
    exit_codes: dict[str, int]


@pytest.fixture(scope="module")
def ran(start: Start) -> Iterator[Ran]:
    site = start(small_plan(segments=(LEFT, RIGHT)))
    rovers = {name: site.participant(name) for name in ROVERS}
    orders = list(permutations(ROVERS))
    sent: dict[tuple[str, int], list[Submitted]] = {}
    models: dict[str, list[ModelSnapshot]] = {LEFT: [], RIGHT: []}
    names: dict[str, list[Digest]] = {LEFT: [], RIGHT: []}
    for number in range(1, ROUNDS + 1):
        for segment, order in ((LEFT, orders[0]), (RIGHT, orders[2 * number - 1])):
            _see(rovers[order[0]], segment, number, models, names)
            sent[segment, number] = [submit(rovers[name], number, segment) for name in order]
    first = sent[LEFT, 1][0]
    receipts = {kind: rovers[ROVERS[0]].receipt(first, kind) for kind in KINDS}
    for segment in (LEFT, RIGHT):
        _see(rovers[ROVERS[0]], segment, ROUNDS + 1, models, names)
    site.wait_published(lambda log: all(log.state.segments[each].last_round > ROUNDS for each in (LEFT, RIGHT)))
    return Ran(site, sent, models, names, receipts, site.stop())


def _see(
    rover: Participant, segment: str, number: int,
    models: dict[str, list[ModelSnapshot]], names: dict[str, list[Digest]],
) -> None:  # fmt: skip
    opened = open_number(rover, number, segment)
    models[segment].append(rover.model(opened))
    names[segment].append(opened.base_model)


def test_every_service_ends_with_0_when_it_is_asked_to(ran: Ran) -> None:
    assert set(ran.exit_codes.values()) == {0}
    assert len(ran.exit_codes) == 4


def test_the_same_updates_in_another_order_give_the_same_models(ran: Ran) -> None:
    assert len(set(ran.names[LEFT])) == ROUNDS + 1
    assert ran.names[LEFT] == ran.names[RIGHT]
    for number in range(1, ROUNDS + 1):
        left, right = ([each.update.participant for each in ran.sent[segment, number]] for segment in (LEFT, RIGHT))
        assert left != right
        assert sorted(left) == sorted(right)


def test_each_model_is_the_weighted_mean_in_exact_fractions(ran: Ran) -> None:
    for number in range(1, ROUNDS + 1):
        sums = [Fraction(0)] * COORDINATES
        weights = 0
        for each in ran.sent[LEFT, number]:
            assert each.encoded is not None
            weights += each.update.weight
            for index, value in zip(each.encoded.update.indices, each.encoded.update.values, strict=True):
                sums[int(index)] += each.update.weight * int(value)
        steps = [round(each / weights) for each in sums]  # Python rounds a Fraction half to even
        before, after = ran.models[LEFT][number - 1], ran.models[LEFT][number]
        assert [int(value) for value in after.values - before.values] == steps
        assert any(steps)


def test_the_verifier_says_verified_and_has_derived_every_model(ran: Ran) -> None:
    report = ran.site.verify()
    assert report.exit_code == 0, report.to_text()
    assert report.results_sound
    assert report.conduct_clean
    assert (report.models, report.admitted) == (2 * ROUNDS, 2 * ROUNDS * len(ROVERS))
    published = ran.site.reading().state.segments[LEFT].model
    assert published == ran.names[LEFT][-1]


@pytest.mark.parametrize("kind", KINDS)
def test_receipts_verify_offline_and_only_under_their_own_trust_policy(ran: Ran, kind: ReceiptKind) -> None:
    policy = parse_trust_policy(ran.site.folder.trust_policy.read_bytes())
    proven = open_receipt(ran.receipts[kind], policy)
    assert proven.kind is kind
    assert proven.statement_digest == ran.sent[LEFT, 1][0].statement_digest
    assert proven.model == (ran.names[LEFT][1] if kind is ReceiptKind.COUNTED else None)
    without_the_log = parse_trust_policy(b"quorum none\n")
    with pytest.raises(VerificationError):
        open_receipt(ran.receipts[kind], without_the_log)


def test_receipts_are_kept_by_segment_round_and_kind_for_their_owner_alone(ran: Ran) -> None:
    kept = sorted((ran.site.folder.participant(ROVERS[0]) / "receipts").iterdir())
    asked_for = ["left-1-counted.receipt", "left-1-witnessed.receipt"]
    assert [path.name for path in kept if path.suffix == ".receipt"] == asked_for
    # Receipt A is kept of each update, unasked.
    assert "left-1-acknowledged.tlog-proof" in {path.name for path in kept}
    files = [path for path in kept[0].parent.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def sfrl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sfrl_secure.cli.main", *map(str, arguments)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def test_the_command_verifies_the_folder_and_a_receipt_file(ran: Ran) -> None:
    folder = ran.site.folder
    trust = ("--trust-policy", folder.trust_policy)
    ended = sfrl("audit", "verify", "--log", folder.log_dir, "--objects", folder.objects_dir, *trust, "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["verdict"] == "verified"
    receipt = folder.participant(ROVERS[0]) / "receipts" / "left-1-counted.receipt"
    ended = sfrl("receipt", "verify", receipt, *trust, "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["model"] == ran.names[LEFT][1].hex()


def test_a_rover_that_trains_on_what_it_fetched_has_the_published_float32_model(ran: Ran) -> None:
    model = ran.models[LEFT][-1]
    assert np.array_equal(model.to_float32(), (model.values / 2.0**16).astype(np.float32))
