"""Targets of updates on their way: payloads, masks, bundles, streams up and streams down.

Their shares make `python -m tests.fuzz` try a million payloads and two hundred thousand streams.
"""

from __future__ import annotations

from collections.abc import Callable

from .harness import Target
from .payload_checks import check_mask, check_payload
from .payload_mutators import mutate_mask, mutate_payload
from .payload_seeds import MODES, hostile_payloads, mask_seeds, payload_seeds
from .transfers import (
    bundle_seeds,
    check_bundle_file,
    check_download,
    download_seeds,
    mutate_bundle,
    mutate_download,
)
from .upload_streams import check_upload_stream, check_upload_threads, mutate_stream, stream_seeds

_SHORT_SHARE, _MASK_SHARE, _STREAM_SHARE = 21, 2, 13


def update_targets() -> tuple[Target, ...]:
    """All of them, in a fixed order."""
    streams, downloads, bundles = stream_seeds(), download_seeds(), bundle_seeds()
    return (
        *(_payloads(mode, _SHORT_SHARE) for mode in MODES),
        _payloads("long", 1),
        Target("mask", mask_seeds(), check_mask, mutate_mask, _MASK_SHARE, is_measured=True),
        Target("upload_stream", streams, check_upload_stream, mutate_stream, _STREAM_SHARE, is_measured=True),
        Target("upload_threads", streams, check_upload_threads, mutate_stream),
        Target("bundle_file", bundles, check_bundle_file, mutate_bundle, is_measured=True),
        Target("download", downloads, check_download, mutate_download, is_measured=True),
    )


def _payloads(mode: str, share: int) -> Target:
    seeds = payload_seeds(mode)
    check: Callable[[bytes], None] = lambda raw: check_payload(raw, seeds)  # noqa: E731 - binds the seeds
    good = tuple(b"\0" + seed.payload for seed in seeds)
    # Good ones twice: as many are damaged as of the bad ones, or nearly.
    cases = (*good, *good, *(b"\0" + payload for payload in hostile_payloads(mode)))
    return Target(f"payload_{mode}", cases, check, mutate_payload, share, is_measured=True)
