"""Every range of every document, at both ends: which values of a field are taken and which are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sfrl_secure.errors import MalformedError

Change = Callable[[bytes, tuple[str | int, ...], object], bytes]
Range = tuple[list[object], list[object]]

GROUPS_64 = [f"g{i:02}" for i in range(64)]
GROUPS_65 = [f"g{i:02}" for i in range(65)]
NAMES_500 = [f"p{i:03}" for i in range(500)]


def bound(tensor: str, axis: int = 0, least: int = 1) -> dict[str, object]:
    return {"tensor": tensor, "axis": axis, "min": least}


def bounds(*places: str) -> list[dict[str, object]]:
    return [bound(name, int(axis)) for name, axis in (place.split() for place in places)]


HEADER: dict[str, Range] = {
    "type": ([], ["Rules", ""]),
    "federation_id": (["a" * 64], ["0" * 63, "A" * 64, "0" * 65, "0x" + "0" * 62]),
    "version": ([1, 2, 2**63 - 1], [0, -1, 2**63]),
    "previous": (["ab" * 32], ["g" * 64, "ab" * 31]),
    "expires_us": ([1, 2**63 - 1], [0, -1, 2**63]),
}


def momentum(**others: object) -> dict[str, object]:
    return {"name": "momentum/v1", "decay": 1, "rate": 1} | others


def adaptive(**others: object) -> dict[str, object]:
    return {"name": "adaptive/v1", "decay": 1, "decay_max": 1, "rate": 1, "floor": 1} | others


# Path of the field, its steps joined by blanks: (taken, refused).
RANGES: dict[str, dict[str, Range]] = {
    "root": {
        # A later version names its federation, which this one does not: see next-root.
        "version": ([1], [0, 2, True]),
        "previous": ([], ["00" * 31 + "01", "00" * 31]),
        "expires_us": ([1, 2**63 - 1], [0, 2**63]),
        "trust_domain": (["m", "a" * 128], ["", "Mars", "a" * 129, "-a", "a/b"]),
        "log_host": (["a" * 128, "::1:80", "localhost:8443"], ["", "a" * 129, "a/b", "Log", "[::1]:80", "a\n"]),
        "operators": ([], [{}]),
        "operators bob public_key": ([], ["00" * 32, "ff" * 32, "", "0"]),
        "thresholds root": ([1, 3], [0, 4, -1]),
        "thresholds governance": ([1, 3], [0, 4]),
        "thresholds enrolment": ([1, 3], [0, 4]),
        "thresholds revocation": ([1, 3], [0, 4]),
    },
    "next-root": HEADER | {
        "type": ([], ["roots", ""]),
        # Version 1 has no federation id and none before it.
        "version": ([2, 2**63 - 1], [0, 1, 2**63, True]),
        "thresholds root": ([1, 3], [0, 4, -1]),
    },
    "genesis": {
        "type": ([], ["root"]),
        "federation_id": ([], ["0" * 63]),
        "origin": ([], ["other/sfrl/" + "0" * 32, "", "a" * 256]),
        "root": ([], ["", "!!!!", "AA=", "é", "e30="]),
        "log_keys": ([], [[], ["x+y+z", "x+y+z"]]),
        "formats entry": ([1], [0, 2]),
        "formats codec": ([2], [0, 1, 3]),
        "formats model": ([1], [0, 2]),
        "formats arithmetic": ([1], [0, 2]),
    },
    "services": HEADER | {
        "services": ([], [[]]),
        "auditors": ([[]], []),
        "key_exchange": (
            [["X25519"], ["X25519MLKEM768"], ["X25519", "X25519MLKEM768"]],
            [[], ["X25519MLKEM768", "X25519"], ["X25519", "X25519"], ["x25519"], ["P-256"]],
        ),
        "services 0 spiffe_id": (
            ["spiffe://mars.example/service/aggregator/g1", "spiffe://mars.example/service/verifier/v"],
            ["spiffe://mars.example/auditor/ada", "spiffe://mars.example/service/miner/g1", "https://mars.example/x/y/z"],
        ),
        "auditors 0 spiffe_id": (
            ["spiffe://mars.example/auditor/zoe"],
            ["spiffe://mars.example/service/gatekeeper/g2", "spiffe://mars.example/operator/ann"],
        ),
        "services 0 suite": ([], ["rsa", "ed25519"]),
        "auditors 0 suite": ([], ["ed25519+ml-dsa-44"]),
        # The last is a point of small order: the strict rule holds when a key is recorded too.
        "auditors 0 public_key": ([], ["", "00" * 31, "0" * 63, "zz" * 32, "00" * 33, "01" + "00" * 31]),
    },
    "rules": HEADER | {
        "cedar": (["", "// nothing is permitted"], ["x", "permit(principal, action, resource)", "// é", "\r\n"]),
    },
    "participant": HEADER | {
        "name": (["r", "r" * 64, "r.2-x"], ["", "r" * 65, "Rover", "-r", "r."]),
        "suite": ([], ["ed25519+ml-dsa-44", "ED25519"]),
        "possession": (["", "aa" * 64], ["0", "AA", "aa" * 65]),
        "clearance": ([0, 10**6], [-1, 10**6 + 1]),
        "groups": ([[], ["a"], GROUPS_64], [["b", "a"], ["a", "a"], ["A"], GROUPS_65]),
        "state": (["active", "suspended", "revoked"], ["ACTIVE", ""]),
        "reason": (["", "x" * 200, "a ~"], ["x" * 201, "a\nb", "é", "\x7f"]),
    },
    "join": HEADER | {
        "name": (["r", "r" * 64, "r.2-x"], ["", "r" * 65, "Rover", "-r", "r."]),
        # As for any key: its length, its alphabet, and no point of small order.
        "join_key": ([], ["", "00" * 31, "0" * 63, "zz" * 32, "00" * 33, "01" + "00" * 31]),
        "clearance": ([0, 10**6], [-1, 10**6 + 1]),
        "groups": ([[], ["a"], GROUPS_64], [["b", "a"], ["a", "a"], ["A"], GROUPS_65]),
        "record_expires_us": ([1, 2**63 - 1], [0, -1, 2**63]),
    },
    "key-revocation": HEADER | {
        "version": ([1], [0, 2, 2**63]),
        "previous": ([], ["00" * 31 + "01", "ab" * 32]),
        "spiffe_id": (
            ["spiffe://mars.example/operator/ann", "spiffe://mars.example/service/verifier/v"],
            ["", "https://mars.example/x/y/z", "spiffe://mars.example/miner/m", "spiffe://" + "a" * 250 + "/auditor/a"],
        ),
        "spki_sha256": (["00" * 32], ["", "ab" * 31, "AB" * 32]),
        "reason": (["", "x" * 200, "a ~"], ["x" * 201, "a\nb", "é"]),
    },
    "order": HEADER | {
        "segment": (["-" * 64, "a"], ["", "a_b", "a" * 65, "A"]),
        "action": ([], ["", "HALT", "delete", "halt", "exclude", "rollback", "accept", "override"]),
        "target from_round": ([1, 2**31], [0, -1, 2**31 + 1]),
        "target reveals": ([[], NAMES_500], [["b", "a"], ["a", "a"], ["A"], [""], [*NAMES_500, "q"]]),
        "reason": (["", "x" * 200, "a ~"], ["x" * 201, "a\nb", "é"]),
    },
    "segment-terms": HEADER | {
        "segment": (["-" * 64, "a"], ["", "a_b", "a" * 65, "A"]),
        "sensitivity": ([0, 10**6], [-1, 10**6 + 1]),
        "groups": ([["a"], GROUPS_64], [[], ["b", "a"], ["a", "a"], ["a b"], GROUPS_65]),
        "operations": (
            [[], ["fetch"], ["record"], ["fetch", "record", "submit"]],
            [["submit", "fetch"], ["fetch", "fetch"], ["delete"]],
        ),
        "model manifest tensors": ([], [[]]),
        "model manifest tensors 0 name": (["A" * 128, "a/b_c-d.e"], ["", "a b", "A" * 129, "a.bias", "a\n"]),
        "model manifest tensors 0 shape": (
            [[8], [8] + [1] * 7, [2**31 - 12]],
            [[], [0], [-1], [8] + [1] * 8, [2**31 - 11], [2**31] * 8, [2**31 + 1]],
        ),
        "model manifest tensors 0 dtype": (["int32", "int64"], ["float32", "int16"]),
        "model manifest constants_exponent": ([0, 40], [-1, 41]),
        "model manifest constants": ([{}, {"a": []}], [{"a b": []}, {"a": [True]}, {"a": ["1"]}]),
        "model manifest constants ln_centre": ([[2**63 - 1, -(2**63) + 1]], [[2**63], [-(2**63)]]),
        "model grid_exponent": ([0, 40], [-1, 41]),
        "model initial": (["00" * 32], ["ff"]),
        "tensors": ([["b.weight", "a.bias"], ["a.weight"]], [[], ["nope"], ["a.bias", "a.bias"]]),
        "value_types": (
            [["int8"], ["fp32"], ["bf16", "exact", "fp32", "int8", "packed", "sign"]],
            [[], ["int8", "fp32"], ["fp16"], ["none"], ["int8", "int8"]],
        ),
        "support_modes": (
            [["free"], ["dense"], ["dense", "free"]],
            [[], ["mask"], ["free", "free"], ["free", "dense"], ["agreed"]],
        ),
        "mask": ([None], [{"digest": "ab" * 32, "nonzeros": 7, "next": None}]),
        "relay_groups": ([[], ["a"], GROUPS_64], [["b", "a"], ["a", "a"], ["a b"], [""], GROUPS_65]),
        "suites": ([["ed25519"]], [[], ["rsa"], ["ed25519+ml-dsa-44", "ed25519"]]),
        "limits payload_bytes_max": ([1, 2**30], [0, 2**30 + 1]),
        # Two is leakage.nonzeros_min, and weight_max has weight_min below it.
        "limits nonzeros_max": ([2, 24], [0, 1, 25]),
        "limits norm_max": ([1, 2**62], [0, 2**62 + 1]),
        "limits magnitude_max": ([1, 2**40], [0, 2**40 + 1]),
        # The cohort is 5 at most, and 5 * 838,860 is the last multiple below 2**22.
        "limits weight_max": ([8, 838_860], [0, 7, 838_861]),
        "quota window_us": ([10**6, 2_678_400_000_000], [10**6 - 1, 2_678_400_000_001]),
        "quota updates_max": ([1, 10**6], [0, 10**6 + 1]),
        "quota bytes_max": ([1, 2**53], [0, 2**53 + 1]),
        "leakage nonzeros_min": ([1, 20], [0, 21]),
        "leakage weight_min": ([1, 1_000], [0, 1_001]),
        "leakage noise_std_min": ([0, 2**40], [-1, 2**40 + 1]),
        "leakage rows": (
            [[], bounds("a.bias 0", "b.weight 1", "b.weight 2")],
            [
                bounds("b.weight 2", "b.weight 1"), bounds("b.weight 1", "b.weight 1"),
                bounds("b.weight 0", "a.bias 0"), bounds("b.bias 0"), [bound("a.bias")] * 17,
            ],
        ),
        "leakage rows 0 axis": ([0, 1], [-1, 2]),
        "leakage rows 1 axis": ([2], [3]),
        "leakage rows 0 min": ([1, 2], [0, 3]),
        "leakage labels": ([[], bounds("a.bias 0", "b.weight 2")], [bounds("b.weight 1", "b.weight 1")]),
        "leakage labels 0 tensor": ([], ["a.weights", "", "x" * 129]),
        "leakage labels 0 axis": ([0], [-1, 1]),
        "leakage labels 0 min": ([1, 4], [0, 5]),
        "round duration_us": ([10**6, 10**15], [10**6 - 1, 10**15 + 1]),
        "round cohort_min": ([1, 5], [0, 6]),
        # The weight is 1,000 at most, and 1,000 * 4,194 is the last multiple below 2**22.
        "round cohort_max": ([2, 500], [0, 1, 501]),
        "round rounds_max": ([1, 2**31], [0, 2**31 + 1]),
        "rule": (
            [
                *({"name": f"{name}/v1"} for name in ("weighted_mean", "union_mean", "median")),
                *({"name": "nnm_trimmed_mean/v1", "liars_ppm": liars} for liars in (0, 499_999)),
                *({"name": "multi_krum/v1", "liars_ppm": liars, "selected_ppm": 0} for liars in (0, 499_999)),
                {"name": "multi_krum/v1", "liars_ppm": 0, "selected_ppm": 10**6},
                *({"name": "clustered_mean/v1", "alike_ppm": alike} for alike in (1, 10**6)),
            ],
            [
                "weighted_mean/v1", "", None, [], {}, {"name": ""}, {"name": "mean/v1"}, {"name": None},
                {"name": ["median/v1"]}, {"name": {}}, {"liars_ppm": 0}, {"name": "median/v1", "liars_ppm": 0},
                {"name": "weighted_mean/v1", "clip": None}, {"name": "nnm_trimmed_mean/v1"},
                *({"name": "nnm_trimmed_mean/v1", "liars_ppm": liars} for liars in (-1, 500_000, 0.2, "0", True, None)),
                {"name": "nnm_trimmed_mean/v1", "liars_ppm": 0, "selected_ppm": 0},
                {"name": "multi_krum/v1", "liars_ppm": 0},
                {"name": "multi_krum/v1", "liars_ppm": 500_000, "selected_ppm": 0},
                *({"name": "multi_krum/v1", "liars_ppm": 0, "selected_ppm": best} for best in (-1, 10**6 + 1)),
                *({"name": "clustered_mean/v1", "alike_ppm": alike} for alike in (0, 10**6 + 1)),
                {"name": "clustered_mean/v1"},
            ],
        ),
        "clip": (
            [None, {"norm": 1}, {"norm": 2**62}, {"median_ppm": 1}, {"median_ppm": 10**7}],
            [
                0, {}, [], {"norm": 0}, {"norm": 2**62 + 1}, {"norm": 1.0}, {"norm": None}, {"norm": True},
                {"median_ppm": 0}, {"median_ppm": 10**7 + 1}, {"norm": 1, "median_ppm": 1},
                {"norm": None, "median_ppm": 1}, {"norm": 1, "median_ppm": None}, {"median": 1},
            ],
        ),
        "cap": (
            [None, *({"contributors_below": few, "magnitude": most} for few in (1, 501) for most in (1, 2**40))],
            [
                0, {}, {"contributors_below": 1}, {"magnitude": 1}, {"contributors_below": 0, "magnitude": 1},
                {"contributors_below": 502, "magnitude": 1}, {"contributors_below": 1, "magnitude": 0},
                {"contributors_below": 1, "magnitude": 2**40 + 1}, {"contributors_below": 1, "magnitude": 1, "norm": 1},
            ],
        ),
        "server": (
            [
                None, *(momentum(decay=decay) for decay in (0, 65_535)), *(momentum(rate=rate) for rate in (1, 2**20)),
                *(adaptive(decay=decay) for decay in (0, 65_535)), *(adaptive(rate=rate) for rate in (1, 2**22)),
                *(adaptive(decay_max=decay) for decay in (0, 65_535)), *(adaptive(floor=low) for low in (1, 2**40)),
            ],
            [
                {}, "momentum/v1", momentum(name="adam/v1"), momentum(name=None), momentum(name="adaptive/v1"),
                *(momentum(decay=decay) for decay in (-1, 65_536, 0.9)), momentum(floor=1),
                *(momentum(rate=rate) for rate in (0, 2**20 + 1)),
                *(adaptive(decay=decay) for decay in (-1, 65_536)), adaptive(name="momentum/v1"),
                *(adaptive(rate=rate) for rate in (0, 2**22 + 1)), *(adaptive(floor=low) for low in (0, 2**40 + 1)),
                *(adaptive(decay_max=decay) for decay in (-1, 65_536)),
            ],
        ),
        "privacy": ([], ["secret", ""]),
        "evidence_days": ([1, 36_500], [0, 36_501]),
        "retention_days": ([1, 36_500], [0, 36_501]),
    },
    "agreed-segment-terms": {
        "support_modes": ([["agreed"], ["agreed", "dense", "free"]], [["free"], ["free", "agreed"]]),
        "mask": (
            [{"digest": "ab" * 32, "nonzeros": 1, "next": None}],
            [None, {}, {"digest": "ab" * 32, "nonzeros": 1}, {"digest": "ab" * 32, "nonzeros": 1, "next": {}}],
        ),
        "mask digest": (["00" * 32], ["", "ab" * 31, "AB" * 32]),
        # Twenty is limits.nonzeros_max.
        "mask nonzeros": ([1, 20], [0, -1, 21]),
    },
    # Updates may touch a.bias with 4 coordinates, which is protected, and b.weight with 8.
    "changing-segment-terms": {
        "mask next": ([None], [[], "votes", {"score": "votes", "regrow": 3}]),
        "mask next score": (["contribution", "saliency", "votes"], ["", "vote", None, 1]),
        "mask nonzeros": ([7, 12], [6, 13, 20]),
        "mask next regrow": ([1, 6], [0, 7, 10, 11]),
        "mask next protected": (
            [[], ["a.bias"]],
            [
                ["a.weight"], ["b.weight"], ["a.bias", "b.weight"], ["b.weight", "a.bias"], ["a.bias", "a.bias"],
                ["no"], ["a b"], "a.bias",
            ],
        ),
        "tensors": ([["b.weight", "a.bias", "a.weight"]], [["b.weight"], ["a.bias"]]),
    },
}  # fmt: skip

FIELDS = [(kind, path) for kind, fields in RANGES.items() for path in fields]


@pytest.mark.parametrize(("kind", "path"), FIELDS)
def test_a_field_takes_its_range_and_nothing_beyond(federation, change: Change, kind: str, path: str) -> None:
    steps = tuple(int(step) if step.isdigit() else step for step in path.split())
    taken, refused = RANGES[kind][path]
    for value in taken:
        federation.parse(kind, change(federation.raw[kind], steps, value))
    for value in refused:
        raw = change(federation.raw[kind], steps, value)
        try:
            federation.parse(kind, raw)
        except MalformedError:
            continue
        pytest.fail(f"{str(value)[:60]!r} was taken")


def test_a_cohort_is_bounded_by_itself_too(federation, change: Change) -> None:
    raw = change(federation.raw["segment-terms"], ("leakage", "weight_min"), 1)
    raw = change(raw, ("limits", "weight_max"), 1)
    federation.parse("segment-terms", change(raw, ("round", "cohort_max"), 500))
    with pytest.raises(MalformedError):
        federation.parse("segment-terms", change(raw, ("round", "cohort_max"), 501))


def test_a_weight_is_bounded_by_the_sum_even_alone(federation, change: Change) -> None:
    raw = change(federation.raw["segment-terms"], ("round", "cohort_min"), 1)
    raw = change(raw, ("round", "cohort_max"), 1)
    federation.parse("segment-terms", change(raw, ("limits", "weight_max"), 2**22))
    with pytest.raises(MalformedError):
        federation.parse("segment-terms", change(raw, ("limits", "weight_max"), 2**22 + 1))
