"""Bounds that hold for every federation, whatever its policies say.

A length is compared with these before memory is taken for it. Policies may be stricter, never wider.

Format: proto/README.md, "Limits".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

ENTRY_BYTES_MAX = 65_535
"""One log entry (C2SP tlog-tiles: a 16-bit length)."""

NOTE_BYTES_MAX = 128 * 1024
"""One signed note. An ML-DSA-44 line is 3.3 kB, and at least 16 signatures are taken."""

NOTE_SIGNATURES_MAX = 64
"""Signature lines of one note."""

ANCHOR_BYTES_MAX = 8_192
"""The note in a time_anchored entry: Ed25519 lines only, some 50 of them."""

TRUST_POLICY_BYTES_MAX = 256 * 1024
"""One trust policy (C2SP tlog-policy). An ML-DSA-44 key is 1.8 kB, and at least 32 logs and 32 witnesses are taken."""

PAYLOAD_BYTES_MAX = 2**30
"""One update's payload."""

UPDATE_HEADER_BYTES_MAX = 16 * 1024
"""The envelope of an update, without its payload; of a withdrawal, a decision, a request for an identity or object."""

DOCUMENT_BYTES_MAX = 60_000
"""One governance document, so that it fits into an entry with its signatures."""

COORDINATES_MAX = 2**31
"""Coordinates of one model."""

OBJECT_HEADER_BYTES_MAX = 4_096
"""What an object may have beside eight bytes a coordinate."""

OBJECT_BYTES_MAX = 8 * COORDINATES_MAX + OBJECT_HEADER_BYTES_MAX
"""One object: no payload, model or aggregate is longer."""

TENSORS_MAX = 4_096
"""Tensors of one model."""

COHORT_MAX = 500
"""Participants of one round: its closing entry has room to name each of them as dropped."""

WEIGHT_SUM_MAX = 2**22
"""cohort_max * weight_max, checked when terms are built (PROTOCOL 7)."""

GRID_EXPONENT_MAX = 40
"""The grid is 2**-e with e from 0 to this."""

VALUE_MAX = 2**40
"""Largest magnitude of one update value in grid units: with WEIGHT_SUM_MAX, sums stay below 2**62."""

DEADLINE_MARGIN_US = 2_000_000
"""An update is taken until this long before the deadline."""

STATEMENT_LIFETIME_US = 30_000_000
"""A service's statement is valid for at most this long."""

SINGLE_REFUSALS_MAX = 3
"""Refusal entries per peer, round and reason; further ones are counted."""

RECEIPT_BYTES_MAX = 2 * 1024 * 1024
"""One receipt: a dozen entries or two with their paths, the roots after genesis, and a note."""

FOLLOW_BYTES_MAX = 1024 * 1024
"""The entries of one message of FollowLog together."""

APPEND_ENTRIES_MAX = 256
"""Envelopes of one message of AppendEntries or StreamEntries."""

APPEND_BYTES_MAX = 1024 * 1024
"""The envelopes of one such message together."""

ROOTS_MAX = 64
"""Root documents after genesis that a receipt or a round shows."""

CSR_BYTES_MAX = 4_096
"""One PKCS #10 request, in DER."""

CERTIFICATE_BYTES_MAX = 16 * 1024
"""One certificate, in PEM."""

LATENTS_MAX = 256
"""Active latent dimensions that a decision names."""

ATTRIBUTIONS_MAX = 64
"""Inputs that a decision is attributed to."""

PROVE_ENTRIES_MAX = 64
"""Entries that one call of ProveEntries proves."""

CHUNK_BYTES_MAX = 1024 * 1024
"""One chunk of a payload, a model, an object or an entry bundle."""

BASES_MAX = 8
"""Models that a caller of FetchModel names as its own."""

CLUSTERS_MAX = 8
"""Groups of updates of one round that get a model of their own."""

STEPS_MAX = 64
"""Aggregates that one answer of FetchModel sends."""

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""One gRPC message."""

CLEARANCE_MAX = 1_000_000
"""Highest clearance of a participant and sensitivity of a segment."""

GROUPS_MAX = 64
"""Groups of a participant, and groups granted by a segment's terms."""

ROUND_US_MIN = 1_000_000
ROUND_US_MAX = 10**15
"""Shortest and longest round."""

ROUNDS_MAX = 2**31
"""Rounds of one segment in all."""

QUOTA_WINDOW_US_MIN = 1_000_000
QUOTA_WINDOW_US_MAX = 31 * 86_400_000_000
"""Shortest and longest window of a quota."""

QUOTA_UPDATES_MAX = 10**6
QUOTA_BYTES_MAX = 2**53
"""What a quota grants one participant in a window, at most."""

LEAKAGE_BOUNDS_MAX = 16
"""Entries of `leakage.rows`, and of `leakage.labels`."""

CLASS_MAX = 2**31 - 1
"""Highest class that a decision predicts."""

JOIN_LIFETIME_US = 31 * 86_400_000_000
"""An invitation expires at most this long after it was logged."""

ORDER_LIFETIME_US = 72 * 3_600_000_000
"""An order expires at most this long after it was logged."""

RETENTION_DAYS_MAX = 36_500
"""Days for which payloads are kept."""

POLICIES_MAX = 256
"""Cedar policies of a rules document."""

DETERMINING_MAX = 32
"""Rules that one decision may be determined by: an entry takes 64 rule ids, those of both decisions."""

POLICY_STEPS_MAX = 128
"""Characters of one Cedar policy that can make an expression deeper: see `governance.cedar_text`."""

POLICY_NESTING_MAX = 16
"""How deep brackets nest in a Cedar policy."""
