"""How many bytes an update takes on its way: payload, signed envelope, and what frames them.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.statements import UPDATE_TYPE, PayloadFormat, UpdateStatement
from sfrl_secure.ids import sha256
from sfrl_secure.limits import CHUNK_BYTES_MAX
from sfrl_secure.sparse.encode import EncodedUpdate
from sfrl_secure.sparse.header import CODEC_VERSION
from sfrl_secure.wire.statements import encode_update
from sfrl_secure.wire.uploads import Chunk, encode_chunk, encode_upload_start

_GRPC_PREFIX = 5
_HTTP2_FRAME, _HTTP2_FRAME_BYTES = 9, 16_384


def message_bytes(encoded: EncodedUpdate) -> int:
    """Bytes of all requests of one upload: the hybrid suite's envelope, whole chunks, gRPC and HTTP/2 frames."""
    key = SigningKey.generate("ed25519+ml-dsa-44")
    some = sha256(b"some")
    statement = UpdateStatement(
        federation_id=some, segment="a-segment", participant="a-participant", key_id=key.public_key.key_id,
        round=1_000, round_opened=some, base_model=some, payload_sha256=sha256(encoded.payload),
        payload_root=encoded.root, payload_bytes=len(encoded.payload), nonzeros=encoded.nonzeros,
        format=PayloadFormat(CODEC_VERSION, encoded.support, encoded.value_type), weight=1_000,
        created_us=1_700_000_000_000_000)
    envelope = sign_envelope(UPDATE_TYPE, encode_update(statement), [key])
    chunks = [Chunk(start, encoded.payload[start : start + CHUNK_BYTES_MAX])
              for start in range(0, len(encoded.payload), CHUNK_BYTES_MAX)]
    requests = [encode_upload_start(envelope, chunks[0]), *(encode_chunk(chunk) for chunk in chunks[1:])]
    framed = [_GRPC_PREFIX + len(request) for request in requests]
    return sum(size + _HTTP2_FRAME * -(-size // _HTTP2_FRAME_BYTES) for size in framed)
