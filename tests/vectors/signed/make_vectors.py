"""Write the vectors of what is signed: what must be read, with what it says, and what must be refused.

A plain encoder, written from proto/README.md, "Canonical form" and "What participants sign", and from the field numbers
of the schemas; it shares no code with the package. The files are what it wrote; a test runs it again and compares.

    python tests/vectors/signed/make_vectors.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

NOW = 1_763_700_000_000_000
ROVER = "spiffe://rover.example/participant/rover-7"
AUDITOR = "spiffe://rover.example/auditor/lea"
GATEKEEPER = "spiffe://rover.example/service/gatekeeper/g1"


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def zigzag(number):
    return 2 * number if number >= 0 else -2 * number - 1


def field(number, value):
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(8 * number + 2) + varint(len(data)) + data


def message(fields, **changes):
    """Fields by name: number and value; a list is a repeated field. `changes` put other values, None leaves one out."""
    pairs = []
    for name, (number, value) in fields.items():
        value = changes.get(name, value)
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                pairs.append((number, each))
    return b"".join(field(number, each) for number, each in sorted(pairs, key=lambda pair: pair[0]))


def digest(word):
    return hashlib.sha256(word.encode()).digest()


def packed(*numbers):
    return b"".join(map(varint, numbers))


def attribution(feature, share_ppm):
    """A number that is zero is not written."""
    return (field(1, feature) if feature else b"") + (field(2, zigzag(share_ppm)) if share_ppm else b"")


COMMON = {
    "federation_id": (1, digest("federation")),
    "segment": (2, "north-field"),
    "participant": (3, "rover-7"),
    "key_id": (4, digest("signing key")),
}
UPDATE = {
    **COMMON,
    "round": (5, 3),
    "round_opened": (6, digest("round opened")),
    "base_model": (7, digest("base")),
    "payload_sha256": (8, digest("payload")),
    "payload_bytes": (9, 300_000),
    "nonzeros": (10, 150_000),
    "format": (11, field(1, 2) + field(2, 1) + field(3, 2)),
    "weight": (12, 400),
    "created_us": (13, NOW),
    "noise_std": (14, 2**40),
    "payload_root": (15, digest("payload root")),
}
MODES = {"free": 1, "agreed": 2, "dense": 3}
TYPES = {"int8": 1, "fp32": 2, "bf16": 3, "sign": 4, "packed": 5, "exact": 6}
WITHDRAWAL = {
    **COMMON,
    "round": (5, 3),
    "round_opened": (6, digest("round opened")),
    "update": (7, digest("update")),
    "created_us": (8, NOW),
}
DECISION = {
    **COMMON,
    "record_seq": (5, 2**63 - 1),
    "input_commitment": (6, digest("salt and input")),
    "model": (7, digest("model")),
    "predicted_class": (8, 2**31 - 1),
    "confidence_ppm": (9, 1_000_000),
    "active_latents": (10, packed(0, 7, 2**31 - 1)),
    "attributions": (11, [attribution(0, 0), attribution(1, -1_000_000_000), attribution(2**31 - 1, 1_000_000_000)]),
    "created_us": (12, NOW),
}
IDENTITY_REQUEST = {
    "federation_id": (1, digest("federation")),
    "spiffe_id": (2, ROVER),
    "key_id": (3, digest("signing key")),
    "spki_sha256": (4, digest("tls key")),
    "created_us": (5, NOW),
}
OBJECT_REQUEST = {
    "federation_id": (1, digest("federation")),
    "reader": (2, AUDITOR),
    "key_id": (3, digest("signing key")),
    "digest": (4, digest("object")),
    "created_us": (5, NOW),
}


def payload_format(support, values, codec=2):
    return field(1, codec) + field(2, support) + field(3, values)


def payload_type(name):
    return f"application/vnd.sfrl.{name}.v1"


def envelope(name, statement, signatures=1):
    one = [
        field(3, field(1, digest(f"key {at}")) + field(2, "ed25519") + field(3, bytes(64))) for at in range(signatures)
    ]
    return field(1, payload_type(name)) + field(2, statement) + b"".join(sorted(one))


def statement(kind, number, stream, body):
    return (
        field(1, digest("federation"))
        + field(2, stream)
        + field(3, kind)
        + field(4, GATEKEEPER)
        + field(5, digest("gatekeeper"))
        + field(6, digest("governance head"))
        + field(7, digest("control head"))
        + field(8, NOW + 30_000_000)
        + field(9, bytes(range(16)))
        + field(number, body)
    )


IDENTITY_ISSUED = {
    "spiffe_id": (1, ROVER),
    "spki_sha256": (2, digest("tls key")),
    "serial": (3, b"\x7f" * 20),
    "not_after_us": (4, NOW + 86_400_000_000),
    "request": (5, envelope("identity-request", message(IDENTITY_REQUEST))),
    "renews": (6, digest("tls key before")),
}
MODEL_PUBLISHED = {
    "round": (1, 3),
    "round_closed": (2, digest("round closed")),
    "base_model": (3, digest("base")),
    "aggregate": (4, digest("aggregate")),
    "model": (5, digest("model")),
    "rule": (6, "weighted_mean/v1"),
    "arithmetic": (7, 1),
    "supersedes": (8, digest("model published")),
    "server_state": (9, None),
    "next_mask": (10, None),
    "clusters": (11, []),
}
ROUND_OPENED = {
    "round": (1, 3),
    "base_model": (2, digest("base")),
    "terms_digest": (3, digest("terms")),
    "server_state": (4, digest("server state")),
    "mask": (5, digest("mask")),
}
REASONS = ["withdrawn", "excluded", "participant_inactive", "defective"]
ROUND_CLOSED = {
    "round": (1, 3),
    "cause": (2, 3),
    "outcome": (3, 2),
    "counted_root": (5, digest("counted root")),
    "dropped": (
        6,
        [field(1, f"rover-{at}") + field(2, digest(f"update {at}")) + field(3, why) for at, why in enumerate(REASONS)],
    ),
}


def identity_issued(**changes):
    return statement(4, 16, "identity", message(IDENTITY_ISSUED, **changes))


def round_closed(**changes):
    return statement(11, 21, "segment/north-field", message(ROUND_CLOSED, **changes))


def round_opened(**changes):
    return statement(5, 17, "segment/north-field", message(ROUND_OPENED, **changes))


def cluster(*members, model=None):
    return field(1, packed(*members)) + field(2, digest("cluster model") if model is None else model)


def model_published(**changes):
    return statement(12, 22, "segment/north-field", message(MODEL_PUBLISHED, **changes))


def quoting(kind, number, quoted):
    return statement(kind, number, "segment/north-field", field(1, quoted))


def withdrawn(quoted):
    return quoting(9, 25, quoted)


def complaint(quoted):
    return quoting(10, 26, quoted)


def decided(quoted):
    return quoting(16, 27, quoted)


def good():
    """Name of the vector: kind of what is signed, bytes, what they say."""
    root = digest("payload root").hex()
    yield "update", "update", message(UPDATE), {"noise_std": 2**40, "payload_root": root}
    for mode, support in MODES.items():
        for name, values in TYPES.items():
            raw = message(UPDATE, format=payload_format(support, values))
            yield f"update_{mode}_{name}", "update", raw, {"format": [2, mode, name]}
    yield "update_without_noise", "update", message(UPDATE, noise_std=None), {"noise_std": 0}
    yield "withdrawal", "withdrawal", message(WITHDRAWAL), {"round": 3, "participant": "rover-7", "created_us": NOW}
    yield "withdrawal_without_a_time", "withdrawal", message(WITHDRAWAL, created_us=None), {"created_us": 0}
    yield "decision", "decision", message(DECISION), {
        "record_seq": 2**63 - 1,
        "predicted_class": 2**31 - 1,
        "confidence_ppm": 1_000_000,
        "active_latents": [0, 7, 2**31 - 1],
        "attributions": [[0, 0], [1, -1_000_000_000], [2**31 - 1, 1_000_000_000]],
    }  # fmt: skip
    smallest = dict.fromkeys(("predicted_class", "confidence_ppm", "active_latents", "attributions", "created_us"))
    yield "decision_of_nothing", "decision", message(DECISION, record_seq=1, **smallest), {
        "record_seq": 1, "predicted_class": 0, "confidence_ppm": 0, "active_latents": [], "attributions": []
    }  # fmt: skip
    full = message(
        DECISION,
        active_latents=packed(*range(256)),
        attributions=[attribution(feature, feature - 32) for feature in range(64)],
    )
    yield "decision_with_all_it_may_have", "decision", full, {
        "active_latents": list(range(256)), "attributions": [[feature, feature - 32] for feature in range(64)]
    }  # fmt: skip
    yield "identity_request", "identity-request", message(IDENTITY_REQUEST), {"spiffe_id": ROVER, "created_us": NOW}
    yield "object_request", "object-request", message(OBJECT_REQUEST), {"reader": AUDITOR, "created_us": NOW}
    serial = int.from_bytes(b"\x7f" * 20, "big")
    yield "identity_issued", "statement", identity_issued(), {"serial": str(serial)}
    yield "identity_issued_first", "statement", identity_issued(renews=None), {"renews": None}
    yield "update_withdrawn", "statement", withdrawn(envelope("withdrawal", message(WITHDRAWAL))), {}
    yield "complaint_recorded", "statement", complaint(envelope("update", message(UPDATE))), {}
    yield "decision_recorded", "statement", decided(envelope("decision", message(DECISION))), {}
    # How many signatures suffice is decided with the keys; more than one is no other form.
    two = envelope("withdrawal", message(WITHDRAWAL), signatures=2)
    yield "update_withdrawn_with_two_signatures", "statement", withdrawn(two), {}
    yield "round_closed_by_order", "statement", round_closed(), {"cause": 3, "outcome": 2}
    yield "model_published_anew", "statement", model_published(), {"round": 3}
    yield "model_published_first", "statement", model_published(supersedes=None), {"supersedes": None}
    state, mask = digest("server state"), digest("next mask")
    moved = model_published(rule="multi_krum/v1", server_state=state, next_mask=mask)
    says = {"rule": "multi_krum/v1", "server_state": state.hex(), "next_mask": mask.hex()}
    yield "model_published_with_state_and_mask", "statement", moved, says
    groups = model_published(rule="clustered_mean/v1", clusters=[cluster(0, 2, 499), cluster(1, 127, 128)])
    model = digest("cluster model").hex()
    says = {"clusters": [[[0, 2, 499], model], [[1, 127, 128], model]], "server_state": None, "next_mask": None}
    yield "model_published_with_clusters", "statement", groups, says
    eight = model_published(clusters=[cluster(number) for number in range(8)])
    yield "model_published_with_eight_clusters", "statement", eight, {}
    says = {"server_state": state.hex(), "mask": digest("mask").hex()}
    yield "round_opened_with_state_and_mask", "statement", round_opened(), says
    plain = round_opened(server_state=None, mask=None)
    yield "round_opened_plain", "statement", plain, {"server_state": None, "mask": None}


def bad():
    """Name of the vector: kind of what is signed, bytes, why they are refused."""
    yield "update_noise", "update", message(UPDATE, noise_std=2**40 + 1), "noise_std is at most 2^40"
    yield "update_noise_zero", "update", message(UPDATE, noise_std=0), "a default is absent"
    yield "update_without_a_root", "update", message(UPDATE, payload_root=None), "payload_root is required"
    yield "update_root", "update", message(UPDATE, payload_root=bytes(33)), "payload_root is 32 bytes"
    for name, form in (
        ("support_mode_none", field(1, 2) + field(3, 2)),
        ("support_mode", payload_format(4, 2)),
        ("value_type_none", field(1, 2) + field(2, 1)),
        ("value_type", payload_format(1, 7)),
        ("codec_none", field(2, 1) + field(3, 2)),
    ):
        yield f"update_{name}", "update", message(UPDATE, format=form), "a format has its three numbers"
    yield "withdrawal_round", "withdrawal", message(WITHDRAWAL, round=None), "the round is required"
    for name in ("federation_id", "key_id", "round_opened", "update"):
        yield f"withdrawal_{name}", "withdrawal", message(WITHDRAWAL, **{name: bytes(31)}), f"{name} is 32 bytes"
    for name, value in (("segment", "North"), ("participant", "-rover")):
        yield f"withdrawal_{name}", "withdrawal", message(WITHDRAWAL, **{name: value}), f"{name} is a name"
    yield "withdrawal_unknown_field", "withdrawal", message(WITHDRAWAL) + field(9, 1), "no field is unknown"
    yield "withdrawal_order", "withdrawal", field(8, NOW) + message(WITHDRAWAL, created_us=None), "fields ascend"

    def decision(why, **changes):
        return "decision", message(DECISION, **changes), why

    for name in ("federation_id", "key_id", "input_commitment", "model"):
        yield f"decision_{name}", *decision(f"{name} is 32 bytes", **{name: bytes(33)})
    yield "decision_segment", *decision("segment is a name", segment="north field")
    yield "decision_participant", *decision("participant is a name", participant="")
    yield "decision_record_seq_none", *decision("record_seq is required", record_seq=None)
    yield "decision_record_seq", *decision("record_seq is below 2^63", record_seq=2**63)
    yield "decision_class", *decision("predicted_class is below 2^31", predicted_class=2**31)
    yield "decision_confidence", *decision("confidence_ppm is at most 10^6", confidence_ppm=1_000_001)
    yield "decision_latents", *decision("at most 256 latents", active_latents=packed(*range(257)))
    yield "decision_latent", *decision("a latent is below 2^31", active_latents=packed(2**31))
    yield "decision_latents_order", *decision("latents ascend", active_latents=packed(7, 0))
    yield "decision_latent_twice", *decision("no latent stands twice", active_latents=packed(7, 7))
    yield "decision_latents_empty", *decision("a default is absent", active_latents=b"")
    yield "decision_latents_padded", *decision("a varint is minimal", active_latents=b"\x87\x00")
    loose = message(DECISION, active_latents=None, attributions=None, created_us=None)
    yield "decision_latents_not_packed", "decision", loose + field(10, 7) + field(10, 8), "numbers are packed"
    many = [attribution(feature, 1) for feature in range(65)]
    yield "decision_attributions", *decision("at most 64 attributions", attributions=many)
    for name, share in (("above", 1_000_000_001), ("below", -1_000_000_001)):
        outside = [attribution(1, share)]
        yield f"decision_share_{name}", *decision("a share is within 10^9", attributions=outside)
    yield "decision_feature", *decision("a feature is below 2^31", attributions=[attribution(2**31, 1)])
    falling = [attribution(2, 1), attribution(1, 1)]
    yield "decision_features_order", *decision("features rise", attributions=falling)
    twice = [attribution(2, 1), attribution(2, 2)]
    yield "decision_feature_twice", *decision("no feature stands twice", attributions=twice)
    zero = [field(1, 1) + field(2, 0)]
    yield "decision_share_zero_written", *decision("a default is absent", attributions=zero)

    def asks(why, **changes):
        return "identity-request", message(IDENTITY_REQUEST, **changes), why

    yield "identity_request_spiffe_id", *asks("a SPIFFE ID of ours", spiffe_id="https://rover.example/participant/a")
    for name in ("federation_id", "key_id", "spki_sha256"):
        yield f"identity_request_{name}", *asks(f"{name} is 32 bytes", **{name: bytes(31)})

    def reads(why, **changes):
        return "object-request", message(OBJECT_REQUEST, **changes), why

    yield "object_request_reader", *reads("a SPIFFE ID of ours", reader="lea")
    for name in ("federation_id", "key_id", "digest"):
        yield f"object_request_{name}", *reads(f"{name} is 32 bytes", **{name: bytes(31)})

    yield "identity_issued_unasked", "statement", identity_issued(request=None), "an identity is asked for"
    other = envelope("update", message(UPDATE))
    yield "identity_issued_by_an_update", "statement", identity_issued(request=other), "the envelope holds a request"
    yield "identity_issued_renews", "statement", identity_issued(renews=bytes(31)), "renews is 32 bytes or absent"
    yield "update_withdrawn_by_an_update", "statement", withdrawn(other), "the envelope holds a withdrawal"
    yield "update_withdrawn_empty", "statement", quoting(9, 25, b""), "an envelope is required"
    inside = envelope("withdrawal", message(WITHDRAWAL) + b"\0")
    yield "update_withdrawn_left_over", "statement", withdrawn(inside), "no byte is left over in what is quoted"
    unsigned = envelope("withdrawal", message(WITHDRAWAL), signatures=0)
    yield "update_withdrawn_unsigned", "statement", withdrawn(unsigned), "an envelope has a signature"
    mixed = envelope("decision", message(UPDATE))
    yield "decision_recorded_of_an_update", "statement", decided(mixed), "the envelope holds a decision"
    as_complaint = envelope("withdrawal", message(WITHDRAWAL))
    yield "complaint_of_a_withdrawal", "statement", complaint(as_complaint), "a complaint is about an update"
    long = envelope("update", message(UPDATE) + field(16, bytes(16_384)))
    yield "complaint_too_long", "statement", complaint(long), "an envelope is at most 16 KiB"
    whole = withdrawn(envelope("withdrawal", message(WITHDRAWAL)))
    wrong = whole.replace(field(3, 9) + field(4, GATEKEEPER), field(3, 10) + field(4, GATEKEEPER))
    assert wrong != whole
    yield "update_withdrawn_as_a_complaint", "statement", wrong, "the kind says what the body is"
    dropped = [field(1, "rover-1") + field(2, digest("update")) + field(3, "late")]
    yield "round_closed_reason", "statement", round_closed(dropped=dropped), "a reason is one of four"
    yield "round_closed_cause", "statement", round_closed(cause=4), "a cause is one of three"
    yield "model_published_supersedes", "statement", model_published(supersedes=bytes(31)), "supersedes is 32 bytes"
    for name in ("server_state", "next_mask"):
        yield f"model_published_{name}", "statement", model_published(**{name: bytes(31)}), f"{name} is 32 bytes"
    for name in ("server_state", "mask"):
        yield f"round_opened_{name}", "statement", round_opened(**{name: bytes(33)}), f"{name} is 32 bytes"
        empty = round_opened(**{name: b""})
        yield f"round_opened_{name}_empty", "statement", empty, "what is absent is not written"
    yield "round_opened_next_mask", "statement", statement(
        5, 17, "segment/north-field", message(ROUND_OPENED) + field(6, digest("mask"))
    ), "no field is unknown"
    for name, clusters, why in (
        ("nine", [cluster(number) for number in range(9)], "there are at most 8 clusters"),
        ("empty", [field(2, digest("cluster model"))], "a cluster has members"),
        ("model", [cluster(1, model=bytes(31))], "a cluster's model is 32 bytes"),
        ("no_model", [field(1, packed(1))], "a cluster has its model"),
        ("twice", [cluster(1, 1)], "members ascend"),
        ("order", [cluster(2, 1)], "members ascend"),
        ("shared", [cluster(0, 1), cluster(1, 2)], "nobody is in two clusters"),
        ("position", [cluster(500)], "a position is below 500"),
        ("unpacked", [field(1, 0) + field(1, 1) + field(2, digest("cluster model"))], "numbers are packed"),
        ("left_over", [cluster(0) + field(3, 1)], "no field is unknown"),
    ):
        yield f"model_published_clusters_{name}", "statement", model_published(clusters=clusters), why


def pae(name, raw):
    kind = payload_type(name).encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(raw), raw)


def vectors():
    for name, kind, raw, says in good():
        yield name, {
            "payload_type": payload_type(kind),
            "statement_digest": hashlib.sha256(pae(kind, raw)).hexdigest(),
            "says": says,
            "bytes": raw.hex(),
        }
    for name, kind, raw, why in bad():
        yield f"bad_{name}", {"payload_type": payload_type(kind), "refused": why, "bytes": raw.hex()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, vector in vectors():
        (folder / f"{name}.json").write_text(json.dumps(vector, indent=1) + "\n", "utf-8", newline="\n")
