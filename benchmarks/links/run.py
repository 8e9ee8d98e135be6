"""`python -m benchmarks links`: one sparse update over 32 kbit/s with 5 % loss, cut ten times.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Bar
from benchmarks.links.broken_upload import link_of, sparse_update, upload_over
from benchmarks.links.shape import Shape
from benchmarks.links.shaped_link import can_shape
from benchmarks.peers.job import RESNET18
from benchmarks.uploads.site import running_site

CUTS = 10
SHARE_MAX = 1.05
PAYLOAD_BYTES = 226_000
"""About 1 % of a ResNet-18 in int8."""

QUICK_BYTES, QUICK_CUTS = 20_000, 3


def run(*, quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run the benchmark; give its figures.

    Args:
        folder: a folder on the disk that is to be used; a temporary one by default.
    """
    shape, cuts = Shape(), QUICK_CUTS if quick else CUTS
    coordinates = 300_000 if quick else RESNET18
    encoded = sparse_update(QUICK_BYTES if quick else PAYLOAD_BYTES, coordinates, np.random.default_rng(7))
    with (
        tempfile.TemporaryDirectory(dir=folder) as made,
        link_of(shape) as link,
        running_site(Path(made) / "federation", 1, coordinates, link.host) as site,
    ):
        went = upload_over(link, site, encoded, Path(made), cuts=cuts)
    figures: dict[str, Any] = {"benchmark": "links", "quick": quick}
    figures["path"] = "network namespace" if can_shape() else "proxy"
    figures |= {name: value for name, value in asdict(shape).items() if name != "seed"}
    figures["payload_bytes"] = len(encoded.payload)
    figures |= {name: value for name, value in asdict(went).items() if name not in ("traffic", "requests")}
    figures["request_bytes"], figures["requests"] = went.request_bytes, sum(map(len, went.requests))
    figures["calls"], figures["cut_chunks"] = went.calls, went.cut_chunks
    figures["chunk_bytes_median"] = went.chunk_bytes_median
    figures["longest_request_bytes"] = went.longest_request_bytes
    figures["seconds"] = round(went.seconds, 1)
    figures["least_seconds"] = round(went.message_bytes * 8 / shape.bits_per_second, 1)
    figures["share"] = round(went.share, 4)
    figures["traffic"] = asdict(went.traffic)
    formula = f"at most {SHARE_MAX} times the message, beyond one chunk a cut"
    figures["bars"] = {"share": Bar(went.share, SHARE_MAX, formula, at_most=True).to_json()}
    figures["errors"] = {}
    return figures
