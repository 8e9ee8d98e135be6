"""Rounds over a model of several leaves, for the tests of the cohort: see `large_round`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from simulator import GRID, SEGMENT, Simulator, service_id

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, UpdateLimits
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.encode import pack_dense
from sfrl_secure.sparse.header import (
    Header,
    LeafRecord,
    parse_leaf_table,
    parse_preamble,
    payload_leaf_hash,
    write_header,
)
from sfrl_secure.wire.entries import encode_envelope

LEAF = 65_536


def large_round(folder: Path, coordinates: int, *, rovers: int = 3) -> Simulator:
    """A federation with an open round over one int32 tensor of so many coordinates; updates are exact and dense."""
    manifest = ModelManifest((TensorSpec("w", (coordinates,), "int32"),))
    initial = ModelSnapshot(manifest, GRID, np.zeros(coordinates, dtype=np.int64)).to_bytes()
    sim = Simulator(
        folder,
        rovers=[f"rover-{number}" for number in range(1, rovers + 1)],
        terms={
            "model": ModelTerms(manifest, GRID, sha256(initial)),
            "tensors": ["w"],
            "value_types": ["exact"],
            "support_modes": ["dense"],
            "limits": UpdateLimits(2**27, coordinates, 2**60, 2**40, 100),
            "round_terms": RoundTerms(60_000_000, 2, rovers, 9),
        },
    )
    sim.objects.put(initial)
    sim.open_round()
    return sim


def admit_dense(sim: Simulator, name: str, values: np.ndarray, *, refused: bytes | None = None) -> None:
    """Admit a dense update of these values; or, with their facts, one that an honest gatekeeper would have refused."""
    form: dict[str, Any] = {"nonzeros": values.size, "support": "dense", "value_type": "exact", "weight": 1}
    body = sim.admission(name, payload=pack_dense(values, value_type="exact", grid_exponent=GRID), **form)
    if refused is not None:
        envelope, update, _ = sim.update(name, payload=refused, **form)
        sim.objects.put(refused)
        body = replace(body, envelope=envelope, envelope_raw=encode_envelope(envelope), update=update)
    sim.write(service_id("gatekeeper", "g1"), f"segment/{SEGMENT}", body)


def broken_at_the_end(values: np.ndarray) -> bytes:
    """A dense update whose root holds, and whose last leaf has a byte too many."""
    payload = pack_dense(values, value_type="exact", grid_exponent=GRID)
    preamble = parse_preamble(payload)
    header = parse_leaf_table(payload, preamble, len(payload))
    starts = header.leaf_starts
    last = payload[starts[-2] :] + b"\0"
    records = (*header.leaves[:-1], LeafRecord(len(last), payload_leaf_hash([last])))
    return write_header(Header(preamble, records)) + payload[starts[0] : starts[-2]] + last
