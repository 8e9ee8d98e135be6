"""TLS identities: whose keys who may revoke, what a request is good for, how many a name may have."""

from __future__ import annotations

import pytest

from sfrl_secure.replay.fold import Replay

from .builder import DAY, SECOND, Writer, codes, sha
from .intervention_rows import HOUR, R1


def clean(writer: Writer) -> Replay:
    replay = writer.replay()
    assert replay.docket.findings == []
    return replay


@pytest.mark.parametrize(("role", "signers"), [
    ("participant/r1", ["ann"]), ("auditor/eve", ["bob"]), ("operator/ann", ["ann", "cyd"]),
    ("service/verifier/verifier-1", ["bob", "cyd"]),
])  # fmt: skip
def test_one_operator_revokes_keys_of_participants_and_auditors_and_two_all_others(
    role: str, signers: list[str]
) -> None:
    writer = Writer().begin()
    writer.issue(f"spiffe://rover.example/{role}")
    key = sha(f"spiffe://rover.example/{role}".encode())
    writer.revoke_key(f"spiffe://rover.example/{role}", key, signers=signers)
    assert clean(writer).state.revoked_keys == {key}


def test_a_request_has_effect_where_it_is_newer_than_the_last_for_its_key_whatever_the_log_says_the_time_is() -> None:
    writer = Writer().begin()
    key = sha(R1.encode())
    last = writer.now + HOUR
    writer.issue(R1, request={"created_us": last})
    writer.now += 2 * HOUR - 9 * SECOND
    writer.issue(R1, request={"created_us": last + 1})
    # What another key was asked for does not matter.
    writer.issue(R1, sha(b"2"), renews=key, request={"created_us": last + 1})
    writer.issue(R1, sha(b"2"), renews=sha(b"2"), request={"created_us": last + 2})
    clean(writer)


def test_a_request_that_had_no_effect_may_come_again() -> None:
    writer = Writer().begin()
    asked = {"created_us": writer.now + SECOND}
    writer.issue(R1, request=asked, not_after_us=writer.now)
    writer.issue(R1, request=asked)
    assert codes(writer.replay().docket.findings) == ["expired"]


def test_identities_of_a_name_are_counted_over_24_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.replay.enrolment.IDENTITIES_A_DAY_MAX", 3)
    writer = Writer().begin()
    writer.now += DAY
    first = writer.now + SECOND
    for number in range(3):
        writer.issue(R1, sha(b"%d" % number), renews=sha(R1.encode()))
    writer.issue(R1, sha(b"3"), renews=sha(R1.encode()))
    writer.issue(R1, renews=sha(R1.encode()))
    # Others are not counted with it, and what was void is not counted.
    writer.issue(R1.replace("r1", "r2"))
    writer.now = first + DAY - SECOND - 1
    writer.issue(R1, renews=sha(R1.encode()))
    assert codes(writer.replay().docket.findings) == ["identity_rate"] * 3


def test_the_first_of_three_identities_makes_room_after_24_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.replay.enrolment.IDENTITIES_A_DAY_MAX", 3)
    writer = Writer().begin()
    writer.now += DAY
    first = writer.now + SECOND
    for number in range(3):
        writer.issue(R1, sha(b"%d" % number), renews=sha(R1.encode()))
    writer.now = first + DAY - SECOND
    writer.issue(R1, renews=sha(R1.encode()))
    clean(writer)
    writer.now -= 1
    writer.issue(R1, renews=sha(R1.encode()))
    assert codes(writer.replay().docket.findings) == ["identity_rate"]


def test_after_a_new_record_one_key_needs_no_renewal_and_may_be_issued_again() -> None:
    writer = Writer().begin()
    writer.record("r1")
    writer.issue(R1, sha(b"new"))
    writer.issue(R1, sha(b"new"))
    clean(writer)
    writer.issue(R1)
    assert codes(writer.replay().docket.findings) == ["renews"]
