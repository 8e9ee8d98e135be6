"""Names, times and the model of the simulated federation (`simulator`)."""

from __future__ import annotations

from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.ids import SpiffeId, parse_spiffe_id

NOW_US = 1_780_000_000_000_000
HOUR_US = 3_600_000_000
DAY_US = 86_400_000_000
UNTIL_US = NOW_US + 400 * DAY_US
IDENTITY_UNTIL_US = NOW_US + 360 * DAY_US
DOMAIN = "mars.example"
LOG_HOST = "log.mars.example"
SEGMENT = "rocks"
GRID = 16
MANIFEST = ModelManifest(
    (
        TensorSpec("a.weight", (4, 4), "int32"),
        TensorSpec("a.bias", (4,), "int64"),
        TensorSpec("frozen", (4,), "int32"),
    )
)
WITNESSES = ("w1", "w2", "w3")
ROVERS = ("rover-1", "rover-2", "rover-3", "rover-4")


def service_id(role: str, name: str) -> SpiffeId:
    """SPIFFE ID of a service."""
    return parse_spiffe_id(f"spiffe://{DOMAIN}/service/{role}/{name}")


def participant_id(name: str) -> SpiffeId:
    """SPIFFE ID of a participant."""
    return parse_spiffe_id(f"spiffe://{DOMAIN}/participant/{name}")


def operator_id(name: str) -> SpiffeId:
    """SPIFFE ID of an operator."""
    return parse_spiffe_id(f"spiffe://{DOMAIN}/operator/{name}")


def auditor_id(name: str) -> SpiffeId:
    """SPIFFE ID of an auditor."""
    return parse_spiffe_id(f"spiffe://{DOMAIN}/auditor/{name}")


SERVICES = (("gatekeeper", "g1"), ("gatekeeper", "g2"), ("aggregator", "a1"), ("audit_log", "l1"), ("verifier", "v1"))
AUDITORS = ("iris",)
