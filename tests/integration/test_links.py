"""An upload over a link that is slow, loses packets and breaks again and again.

Where this process may make network namespaces, the link is a real TCP path shaped packet by packet; elsewhere it is a
proxy of the tests' own. `python -m benchmarks links` sends an update of full size over 32 kbit/s; here the link is four
times as fast, and nearer, since most of the time goes into eleven handshakes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.links.broken_upload import BrokenUpload, link_of, sparse_update, upload_over
from benchmarks.links.run import SHARE_MAX
from benchmarks.links.shape import Shape
from benchmarks.uploads.site import running_site

COORDINATES = 300_000
PAYLOAD_BYTES = 32_000
CUTS = 10
LINK = Shape(bits_per_second=128_000.0, delay_seconds=0.02)


@pytest.fixture(scope="module")
def went(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokenUpload]:
    folder = tmp_path_factory.mktemp("links")
    encoded = sparse_update(PAYLOAD_BYTES, COORDINATES, np.random.default_rng(7))
    with ExitStack() as running:
        link = running.enter_context(link_of(LINK))
        site = running.enter_context(running_site(folder / "federation", 1, COORDINATES, link.host))
        found = upload_over(link, site, encoded, folder, cuts=CUTS)
        deadline = time.monotonic() + 20.0
        while site.admitted() != 1:
            assert time.monotonic() < deadline, "the published log does not come to have the update"
            time.sleep(0.1)
        yield found


def test_an_upload_over_a_slow_link_that_is_cut_ten_times_is_admitted_once(went: BrokenUpload) -> None:
    assert went.cuts == CUTS
    assert went.calls > CUTS, "each cut broke a call"
    assert went.traffic.lost > 0


def test_it_sends_little_more_than_its_message_and_one_chunk_a_cut(went: BrokenUpload) -> None:
    # So short an update is not much longer than the ten envelopes that begin its calls anew: they count for themselves.
    again = (went.calls - 1) * went.envelope_bytes
    assert went.request_bytes <= SHARE_MAX * went.message_bytes + again + sum(went.cut_chunks)
    seconds = went.longest_request_bytes * 8 / LINK.bits_per_second
    assert seconds <= 1.5, "a chunk is a second or so of the link"
