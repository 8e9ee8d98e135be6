"""Two gatekeepers over one log: rovers go to either, and one that races both is admitted once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import Evidence, Statement, UpdateRefused
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from .conftest import ROVERS, SEGMENT, Site, Start, changes_of, open_number, small_plan, submit

ROUNDS = 4
GATEKEEPERS = ("g1", "g2")


@dataclass(frozen=True)
class Race:
    """How one race over both gatekeepers ended."""

    admitted: list[Submitted]
    refused: list[DeniedError]


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    return start(small_plan(gatekeepers=GATEKEEPERS))


@pytest.fixture(scope="module")
def races(site: Site) -> list[Race]:
    first, second, racer = ROVERS
    rovers = [site.participant(first, ["g1"]), site.participant(second, ["g2"])]
    doubles = [site.participant(racer, [gatekeeper]) for gatekeeper in GATEKEEPERS]
    races = []
    for number in range(1, ROUNDS + 1):
        races.append(_race(doubles, number))
        for rover in rovers:
            submit(rover, number)
    site.wait_published(lambda log: log.state.segments[SEGMENT].last_round > ROUNDS)
    return races


def _race(doubles: list[Participant], number: int) -> Race:
    rounds = [open_number(each, number) for each in doubles]
    together = threading.Barrier(len(doubles))

    def run(position: int) -> Submitted | DeniedError:
        # Two different updates, both honest in form: only one of them can be this round's.
        indices, values = changes_of(ROVERS[2], number + 100 * position)
        together.wait()
        try:
            return doubles[position].submit(
                rounds[position], indices, values, 5, rng=np.random.default_rng(number)
            )  # fmt: skip
        except DeniedError as refused:
            return refused

    with ThreadPoolExecutor(len(doubles)) as threads:
        ended = list(threads.map(run, range(len(doubles))))
    admitted = [each for each in ended if isinstance(each, Submitted)]
    return Race(admitted, [each for each in ended if isinstance(each, DeniedError)])


def test_of_two_different_updates_one_is_admitted_and_the_other_is_a_duplicate(races: list[Race]) -> None:
    assert len(races) == ROUNDS
    for race in races:
        assert len(race.admitted) == 1
        assert [each.reason for each in race.refused] == ["duplicate"]


def test_the_refusal_is_an_entry_with_the_refused_update_in_it(site: Site, races: list[Race]) -> None:
    from sfrl_secure.audit.published import read_unverified_entry

    size = site.reading().state.size
    for race in races:
        (refused,) = race.refused
        assert refused.entry_index is not None
        raw = read_unverified_entry(site.folder.log_dir, size, refused.entry_index).raw
        content = parse_content(parse_entry(raw).envelope)
        assert isinstance(content, Statement)
        assert isinstance(content.body, UpdateRefused)
        assert (content.body.reason, content.body.evidence) == ("duplicate", Evidence.LOG)
        assert content.body.update is not None
        assert content.body.update.payload_sha256 != race.admitted[0].update.payload_sha256


def test_each_round_counts_every_rover_once_whichever_gatekeeper_it_went_to(site: Site, races: list[Race]) -> None:
    log = site.reading()
    assert log.voids == {}
    for number, race in enumerate(races, 1):
        found = log.state.segments[SEGMENT].rounds[number]
        assert sorted(found.admissions) == sorted(ROVERS)
        assert found.admissions[ROVERS[2]].statement_digest == race.admitted[0].statement_digest


def test_both_gatekeepers_wrote_and_the_verifier_finds_nothing(site: Site, races: list[Race]) -> None:
    from sfrl_secure.audit.published import read_unverified_entries

    assert races
    size = site.reading().state.size
    writers = {
        each.content.writer.name
        for each in read_unverified_entries(site.folder.log_dir, size)
        if isinstance(each.content, Statement) and each.content.kind.name == "UPDATE_ADMITTED"
    }
    assert writers == set(GATEKEEPERS)
    assert set(site.stop().values()) == {0}
    report = site.verify()
    assert report.exit_code == 0, report.to_text()
    assert dict(report.refused) == {"duplicate": ROUNDS}
    assert report.refusals_on_word == 0
