"""What the benchmarks count on: entries that the log takes, and bars that say what the issue says."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.__main__ import RATES, main
from benchmarks.entries import PresignedEntries
from benchmarks.figures import Bar, percentile, spread, unary_bar
from benchmarks.load import FULL, Run
from benchmarks.machine import cpu_seconds, fsync_seconds, memory_mb
from benchmarks.site_watch import PublishedSizes
from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.ids import ZERO_DIGEST, parse_spiffe_id, sha256
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.wire.append_entries import encode_entries_request
from sfrl_secure.wire.audit_service import parse_append_request
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_entry
from sfrl_secure.wire.statements import Statement

NOW_US = 1_800_000_000_000_000
WRITER = parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/writer-1")


def entries_of(key: SigningKey, entry_bytes: int) -> PresignedEntries:
    return PresignedEntries(
        key,
        WRITER,
        federation_id=sha256(b"federation"),
        governance_head=sha256(b"governance"),
        now_us=NOW_US,
        entry_bytes=entry_bytes,
    )


@pytest.mark.parametrize(("suite", "entry_bytes"), [("ed25519", 900), ("ed25519+ml-dsa-44", 5_700)])
def test_presigned_entries_are_signed_statements_of_the_length_that_was_asked_for(suite: str, entry_bytes: int) -> None:
    key = SigningKey.generate(suite)
    entries = entries_of(key, entry_bytes)
    envelopes = [parse_append_request(request) for request in entries.make(3)]
    for envelope in envelopes:
        verify_single(envelope, key.public_key)
        content = parse_content(envelope)
        assert isinstance(content, Statement)
        assert (content.writer, content.key_id) == (WRITER, key.public_key.key_id)
        entry = encode_entry(LogEntry(ZERO_DIGEST, NOW_US, 100_000, ZERO_DIGEST, envelope))
        assert entry_bytes - 20 <= len(entry) == entries.entry_bytes <= entry_bytes
    assert len({envelope.digest for envelope in envelopes}) == 3


def test_requests_put_together_are_the_request_of_many_entries() -> None:
    requests = list(entries_of(SigningKey.generate("ed25519"), 900).make(64))
    assert b"".join(requests) == encode_entries_request([parse_append_request(each) for each in requests])


def test_a_name_that_is_not_there_is_told_what_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sealing-wax", "--json"]) == 2
    assert "audit_log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "unary,bar"], "unary, batch, stream"),
        (["--only", ""], "unary, batch, stream"),
        (["--cpus", "x"], "--cpus: this process may use these CPUs: "),
        (["--cpus", "99999"], "--cpus: this process may use these CPUs: "),
        (["--dir", "/nonexist"], "--dir: there is no folder /nonexist"),
        (["--profile", "/nonexist/file"], "--profile: there is no folder /nonexist"),
    ],
)
def test_an_argument_that_names_nothing_is_told_so_in_a_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["audit_log", "--quick", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_rates_that_can_be_named_are_those_that_are_taken() -> None:
    taken: list[str] = []
    run = SimpleNamespace(writers=[], hybrid_writers=[], scale=FULL, rate=lambda name, *_, **__: taken.append(name))
    Run.take_rates(cast(Run, run))
    assert set(taken) == set(RATES)


@pytest.mark.parametrize(
    ("fsync_seconds", "bare", "bar"),
    [
        (0.0002, 7_000.0, 0.4),
        (0.002, 70_000.0, 0.4),  # two milliseconds are not over two
        (0.004, 7_000.0, 0.4),  # 0.8 is no relief
        (0.010, 7_000.0, 0.32),
        (0.050, 3_500.0, 0.128),
    ],
)
def test_the_unary_bar_is_lower_on_a_slow_disk_only(fsync_seconds: float, bare: float, bar: float) -> None:
    assert unary_bar(fsync_seconds, bare).bar == pytest.approx(bar)


def test_a_bar_holds_from_its_own_value_on_and_never_without_a_figure() -> None:
    assert Bar(0.4, 0.4, "").holds
    assert not Bar(0.399, 0.4, "").holds
    assert Bar(1.2, 1.2, "", at_most=True).holds
    assert not Bar(1.201, 1.2, "", at_most=True).holds
    assert not Bar(None, 0.0, "").holds
    assert not Bar(None, 9.0, "", at_most=True).holds


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([3.0], 0.99) == 3.0


def test_repeated_rates_are_given_with_their_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_an_entry_is_witnessed_when_a_larger_size_is_first_seen() -> None:
    sizes = iter([5, 5, 7])
    with PublishedSizes(lambda: next(sizes, 9)) as published:
        published.wait_for(9, 5.0)
    first, second, third = (published.seen(index) for index in (4, 5, 8))
    assert first < second < third < time.monotonic()
    assert published.seen(6) == second


def test_entries_that_are_never_witnessed_do_not_wait_for_ever() -> None:
    with PublishedSizes(lambda: 1) as published, pytest.raises(TimeoutError):
        published.wait_for(2, 0.05)


def test_a_process_and_a_disk_are_measured(tmp_path: Path) -> None:
    own = os.getpid()
    before, until = cpu_seconds(own), time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert cpu_seconds(own) > before
    assert memory_mb(own) > 1
    assert 0 < fsync_seconds(tmp_path, 3) < 60
    assert not list(tmp_path.iterdir())
