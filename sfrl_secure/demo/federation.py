"""The demo's federation: five rovers, a stranger among them who was let in, and one segment of rocks.

Runs in: demo.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.demo.task import GRID_EXPONENT, WEIGHT_MAX, coordinates_to_send, rock_manifest
from sfrl_secure.services.federation.plan import FederationPlan, ParticipantPlan, SegmentPlan, TensorPlan

SEGMENT = "rocks"
ROVERS = tuple(f"rover-{number}" for number in range(1, 6))
"""One a longitude region, in the order of regions."""

LIAR = "mallory"
"""A participant like the rovers, with keys and a certificate of its own, and other intentions."""

REFUSALS_SECONDS = 1.0
"""Counted refusals are written this often, so that the demo need not wait for them."""


def demo_plan(rounds: int) -> FederationPlan:
    """The plan; the terms of the segment hold everything that a rover needs to know."""
    manifest = rock_manifest()
    sent = coordinates_to_send(manifest)
    return FederationPlan(
        trust_domain="mars.example",
        log_host="log.mars.example",
        refusals_seconds=REFUSALS_SECONDS,
        participants=[ParticipantPlan(name=name, groups=["rovers"], clearance=10) for name in (*ROVERS, LIAR)],
        segments=[
            SegmentPlan(
                name=SEGMENT,
                groups=["rovers"],
                sensitivity=10,
                tensors=[
                    TensorPlan(name=tensor.name, shape=list(tensor.shape), dtype=tensor.dtype)
                    for tensor in manifest.tensors
                ],
                grid_exponent=GRID_EXPONENT,
                constants_exponent=manifest.constants_exponent,
                constants={name: list(values) for name, values in manifest.constants.items()},
                suites=["ed25519"],
                payload_bytes_max=64 * 1024,
                nonzeros_max=2 * sent,
                norm_max=100.0,
                magnitude_max=60_000.0,
                weight_max=WEIGHT_MAX,
                duration_seconds=120,
                cohort_min=3,
                cohort_max=len(ROVERS),
                rounds_max=rounds,
            )
        ],
    )
