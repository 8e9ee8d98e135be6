"""The messages that are signed or logged, as tables for `protobuf`.

Number, name and kind of each field, copied from the schema by hand.

Format: proto/sfrl/audit/v1/entry.proto, proto/sfrl/update/v1/update.proto, proto/sfrl/identity/v1/identity.proto.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.replay.protobuf import Field, Kind, Table


def _enum(name: str, count: int) -> Field:
    return Field(name, Kind.ENUM, known=frozenset(range(1, count + 1)))


def _message(name: str, table: Table, *, repeated: bool = False) -> Field:
    return Field(name, Kind.MESSAGE, repeated, table=table)


SIGNATURE: Table = {1: Field("key_id", Kind.BYTES), 2: Field("suite", Kind.TEXT), 3: Field("value", Kind.BYTES)}

ENVELOPE: Table = {
    1: Field("payload_type", Kind.TEXT),
    2: Field("statement", Kind.BYTES),
    3: _message("signatures", SIGNATURE, repeated=True),
}

LOG_ENTRY: Table = {
    1: Field("prev", Kind.BYTES),
    2: Field("log_time_us", Kind.UINT64),
    3: Field("stream_seq", Kind.UINT64),
    4: Field("stream_prev", Kind.BYTES),
    5: Field("payload_type", Kind.TEXT),
    6: Field("statement", Kind.BYTES),
    7: _message("signatures", SIGNATURE, repeated=True),
}

FACTS: Table = {
    1: Field("nonzeros", Kind.UINT64),
    2: Field("density_ppm", Kind.UINT64),
    3: Field("norm", Kind.UINT64),
    4: Field("largest_magnitude", Kind.UINT64),
    5: Field("tensors", Kind.PACKED),
}

IDENTITY_ISSUED: Table = {
    1: Field("spiffe_id", Kind.TEXT),
    2: Field("spki_sha256", Kind.BYTES),
    3: Field("serial", Kind.BYTES),
    4: Field("not_after_us", Kind.UINT64),
    5: Field("request", Kind.BYTES),
    6: Field("renews", Kind.BYTES),
}

ROUND_OPENED: Table = {
    1: Field("round", Kind.UINT64),
    2: Field("base_model", Kind.BYTES),
    3: Field("terms_digest", Kind.BYTES),
    4: Field("server_state", Kind.BYTES),
    5: Field("mask", Kind.BYTES),
}

UPDATE_ADMITTED: Table = {
    1: Field("envelope", Kind.BYTES),
    2: _message("facts", FACTS),
    3: Field("rule_ids", Kind.TEXT, repeated=True),
    4: Field("retain_until_us", Kind.UINT64),
}

UPDATE_REFUSED: Table = {
    1: Field("peer", Kind.TEXT),
    2: Field("envelope", Kind.BYTES),
    3: Field("request_digest", Kind.BYTES),
    4: Field("reason", Kind.TEXT),
    5: _message("facts", FACTS),
    6: Field("rule_ids", Kind.TEXT, repeated=True),
    7: _enum("evidence", 3),
}

REFUSAL_COUNT: Table = {1: Field("reason", Kind.TEXT), 2: _enum("peer_class", 5), 3: Field("count", Kind.UINT64)}

REFUSALS_COUNTED: Table = {
    1: Field("from_us", Kind.UINT64),
    2: Field("until_us", Kind.UINT64),
    3: _message("counts", REFUSAL_COUNT, repeated=True),
    4: Field("requests_root", Kind.BYTES),
}

DROPPED_UPDATE: Table = {
    1: Field("participant", Kind.TEXT), 2: Field("statement_digest", Kind.BYTES), 3: Field("reason", Kind.TEXT)
}  # fmt: skip

ROUND_CLOSED: Table = {
    1: Field("round", Kind.UINT64),
    2: _enum("cause", 3),
    3: _enum("outcome", 2),
    4: Field("counted_count", Kind.UINT64),
    5: Field("counted_root", Kind.BYTES),
    6: _message("dropped", DROPPED_UPDATE, repeated=True),
}

CLUSTER: Table = {1: Field("members", Kind.PACKED), 2: Field("model", Kind.BYTES)}

MODEL_PUBLISHED: Table = {
    1: Field("round", Kind.UINT64),
    2: Field("round_closed", Kind.BYTES),
    3: Field("base_model", Kind.BYTES),
    4: Field("aggregate", Kind.BYTES),
    5: Field("model", Kind.BYTES),
    6: Field("rule", Kind.TEXT),
    7: Field("arithmetic", Kind.UINT32),
    8: Field("supersedes", Kind.BYTES),
    9: Field("server_state", Kind.BYTES),
    10: Field("next_mask", Kind.BYTES),
    11: _message("clusters", CLUSTER, repeated=True),
}

MODEL_FETCH: Table = {1: Field("participant", Kind.TEXT), 2: Field("model", Kind.BYTES)}

MODELS_FETCHED: Table = {
    1: Field("from_us", Kind.UINT64),
    2: Field("until_us", Kind.UINT64),
    3: _message("fetches", MODEL_FETCH, repeated=True),
}

TIME_ANCHORED: Table = {1: Field("checkpoint", Kind.BYTES)}

QUOTED: Table = {1: Field("envelope", Kind.BYTES)}
"""update_withdrawn, complaint_recorded and decision_recorded are what a participant signed, and nothing else."""

STATEMENT: Table = {
    1: Field("federation_id", Kind.BYTES),
    2: Field("stream", Kind.TEXT),
    3: _enum("kind", 17),
    4: Field("writer", Kind.TEXT),
    5: Field("key_id", Kind.BYTES),
    6: Field("reads_governance", Kind.BYTES),
    7: Field("reads_segment", Kind.BYTES),
    8: Field("valid_until_us", Kind.UINT64),
    9: Field("request_id", Kind.BYTES),
    16: _message("identity_issued", IDENTITY_ISSUED),
    17: _message("round_opened", ROUND_OPENED),
    18: _message("update_admitted", UPDATE_ADMITTED),
    19: _message("update_refused", UPDATE_REFUSED),
    20: _message("refusals_counted", REFUSALS_COUNTED),
    21: _message("round_closed", ROUND_CLOSED),
    22: _message("model_published", MODEL_PUBLISHED),
    23: _message("models_fetched", MODELS_FETCHED),
    24: _message("time_anchored", TIME_ANCHORED),
    25: _message("update_withdrawn", QUOTED),
    26: _message("complaint_recorded", QUOTED),
    27: _message("decision_recorded", QUOTED),
}

PAYLOAD_FORMAT: Table = {1: Field("codec", Kind.UINT32), 2: _enum("support", 3), 3: _enum("values", 6)}

UPDATE_STATEMENT: Table = {
    1: Field("federation_id", Kind.BYTES),
    2: Field("segment", Kind.TEXT),
    3: Field("participant", Kind.TEXT),
    4: Field("key_id", Kind.BYTES),
    5: Field("round", Kind.UINT64),
    6: Field("round_opened", Kind.BYTES),
    7: Field("base_model", Kind.BYTES),
    8: Field("payload_sha256", Kind.BYTES),
    9: Field("payload_bytes", Kind.UINT64),
    10: Field("nonzeros", Kind.UINT64),
    11: _message("format", PAYLOAD_FORMAT),
    12: Field("weight", Kind.UINT64),
    13: Field("created_us", Kind.UINT64),
    14: Field("noise_std", Kind.UINT64),
    15: Field("payload_root", Kind.BYTES),
}

WITHDRAWAL_STATEMENT: Table = {
    1: Field("federation_id", Kind.BYTES),
    2: Field("segment", Kind.TEXT),
    3: Field("participant", Kind.TEXT),
    4: Field("key_id", Kind.BYTES),
    5: Field("round", Kind.UINT64),
    6: Field("round_opened", Kind.BYTES),
    7: Field("update", Kind.BYTES),
    8: Field("created_us", Kind.UINT64),
}

ATTRIBUTION: Table = {1: Field("feature", Kind.UINT32), 2: Field("share_ppm", Kind.SINT64)}

DECISION_STATEMENT: Table = {
    1: Field("federation_id", Kind.BYTES),
    2: Field("segment", Kind.TEXT),
    3: Field("participant", Kind.TEXT),
    4: Field("key_id", Kind.BYTES),
    5: Field("record_seq", Kind.UINT64),
    6: Field("input_commitment", Kind.BYTES),
    7: Field("model", Kind.BYTES),
    8: Field("predicted_class", Kind.UINT32),
    9: Field("confidence_ppm", Kind.UINT32),
    10: Field("active_latents", Kind.PACKED),
    11: _message("attributions", ATTRIBUTION, repeated=True),
    12: Field("created_us", Kind.UINT64),
}

IDENTITY_REQUEST: Table = {
    1: Field("federation_id", Kind.BYTES),
    2: Field("spiffe_id", Kind.TEXT),
    3: Field("key_id", Kind.BYTES),
    4: Field("spki_sha256", Kind.BYTES),
    5: Field("created_us", Kind.UINT64),
}
