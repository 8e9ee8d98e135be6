"""Writes our own vectors for the log, from the specifications alone: a second implementation that imports none of ours.

Hashing and texts are spelled out here; ML-DSA-44 is dilithium-py's, deterministic, so that every run gives the same
bytes. `python write_vectors.py` writes the files; `test_own_vectors.py` compares them with what this module says.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dilithium_py.ml_dsa import ML_DSA_44

ORIGIN = "log.example/sfrl/000102030405060708090a0b0c0d0e0f"
TIME = 1_763_700_000
ENTRIES = [b"entry %d" % i for i in range(5)]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if len(d) < 2:
        return sha(b"\x00" + d[0]) if d else sha(b"")
    k = split(len(d))
    return sha(b"\x01" + mth(d[:k]) + mth(d[k:]))


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], whole: bool) -> list[bytes]:
    if m == len(d):
        return [] if whole else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], whole), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


class Key:
    """A key of one type under one name."""

    def __init__(self, name: str, key_type: int, seed: int) -> None:
        self.name, self.key_type = name, key_type
        self.sign: Callable[[bytes], bytes]
        if key_type == 6:
            self.public, secret = ML_DSA_44.key_derive(bytes([seed]) * 32)
            self.sign = lambda message: ML_DSA_44.sign(secret, message, deterministic=True)
        else:
            private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
            self.public, self.sign = private.public_key().public_bytes_raw(), private.sign
        self.key_id = sha(name.encode() + b"\n" + bytes([key_type]) + self.public)[:4]
        self.vkey = f"{name}+{self.key_id.hex()}+{b64(bytes([key_type]) + self.public)}"

    def line(self, text: str, size: int, root: bytes, time: int = TIME) -> str:
        origin, name, stamp = ORIGIN.encode(), self.name.encode(), time.to_bytes(8, "big")
        if self.key_type == 1:
            value = self.sign(text.encode())
        elif self.key_type == 4:
            value = stamp + self.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
        else:
            value = stamp + self.sign(
                b"subtree/v1\n\0" + bytes([len(name)]) + name + stamp + bytes([len(origin)]) + origin
                + (0).to_bytes(8, "big") + size.to_bytes(8, "big") + root
            )
        return f"— {self.name} {b64(self.key_id + value)}\n"


LOG_ED, LOG_PQ = Key(ORIGIN, 1, 1), Key(ORIGIN, 6, 2)
W1, W2 = Key("one.example/witness", 4, 3), Key("two.example/witness", 6, 4)
LOG, ALL = [LOG_ED, LOG_PQ], [LOG_ED, LOG_PQ, W1, W2]


def note(size: int, keys: list[Key], *, text: str | None = None, root: bytes | None = None, time: int = TIME) -> str:
    root = mth(ENTRIES[:size]) if root is None else root
    text = f"{ORIGIN}\n{size}\n{b64(root)}\n" if text is None else text
    return text + "\n" + "".join(key.line(text, size, root, time) for key in keys)


def proof(index: int, entry: bytes | None, hashes: list[bytes], checkpoint: str) -> str:
    lines = ["c2sp.org/tlog-proof@v1", *([f"extra {b64(entry)}"] if entry is not None else []), f"index {index}"]
    return "\n".join([*lines, *map(b64, hashes), "", checkpoint])


def request(old: int, hashes: list[bytes], checkpoint: str) -> str:
    return "\n".join([f"old {old}", *map(b64, hashes), "", checkpoint])


def policy(*extra: str) -> str:
    return "\n".join([
        f"log {LOG_ED.vkey} https://log.example/", f"log {LOG_PQ.vkey} https://log.example/",
        f"witness one {W1.vkey}", f"witness two {W2.vkey}", *extra, "group both 2 one two", "quorum both", "",
    ])


def vectors() -> dict[str, tuple[str, str, str]]:
    """Name -> (kind, outcome, text). The outcome is `ok`, the error that refuses, or a witness's status."""
    five = f"{ORIGIN}\n5\n{b64(mth(ENTRIES))}\n"
    opened, signed = note(5, ALL), note(5, LOG)
    steps = path(3, ENTRIES)
    growth = subproof(3, ENTRIES, True)
    fork = sha(b"\x00fork")
    first, rest = signed.removeprefix(five + "\n").split("\n", 1)
    line = base64.b64decode(first.split(" ")[2])
    damaged = f"{five}\n— {ORIGIN} {b64(line[:-1] + bytes([line[-1] ^ 1]))}\n{rest}"
    return {
        "policy": ("policy", "ok", policy()),
        "bad_policy_unknown_line": ("policy", "MalformedError", policy("expires never")),
        "bad_policy_duplicate_key": ("policy", "MalformedError", policy(f"witness again {W1.vkey}")),
        "bad_policy_quorum_before_definition": ("policy", "MalformedError", "quorum both\n" + policy()),
        "checkpoint_5": ("checkpoint", "ok", opened),
        "checkpoint_0": ("checkpoint", "ok", note(0, ALL)),
        "bad_checkpoint_without_ml_dsa": ("checkpoint", "SignatureError", note(5, [LOG_ED, W1, W2])),
        "bad_checkpoint_without_ed25519": ("checkpoint", "SignatureError", note(5, [LOG_PQ, W1, W2])),
        "bad_checkpoint_damaged_ed25519": ("checkpoint", "SignatureError", damaged + W1.line(five, 5, mth(ENTRIES))),
        "bad_checkpoint_one_witness": ("checkpoint", "SignatureError", note(5, [*LOG, W1])),
        "bad_checkpoint_untimed_witnesses": ("checkpoint", "SignatureError", note(5, ALL, time=0)),
        "bad_checkpoint_ml_dsa_of_another_root": (
            "checkpoint", "SignatureError",
            note(5, [LOG_ED], text=five) + LOG_PQ.line(five, 5, fork) + W1.line(five, 5, fork)),
        "bad_checkpoint_extension_line": ("checkpoint", "MalformedError", note(5, ALL, text=five + "extension\n")),
        "bad_checkpoint_leading_zero": (
            "checkpoint", "MalformedError", note(5, ALL, text=five.replace("\n5\n", "\n05\n"))),
        "bad_checkpoint_empty_tree_root": ("checkpoint", "VerificationError", note(0, ALL, root=bytes(32))),
        "bad_checkpoint_other_origin": (
            "checkpoint", "SignatureError", note(5, ALL, text=five.replace("log.example", "log2.example"))),
        "bad_note_control_character": ("checkpoint", "MalformedError", note(5, ALL, text="\x01" + five)),
        "bad_note_without_last_newline": ("checkpoint", "MalformedError", opened[:-1]),
        "bad_note_base64_without_padding": ("checkpoint", "MalformedError", opened.replace("=\n— two", "\n— two")),
        "bad_note_65_lines": ("checkpoint", "MalformedError", signed + W1.line(five, 5, mth(ENTRIES)) * 63),
        "entry_3": ("proof", "ok", proof(3, ENTRIES[3], steps, opened)),
        "bad_proof_of_another_entry": ("proof", "InclusionError", proof(3, ENTRIES[2], steps, opened)),
        "bad_proof_of_another_index": ("proof", "InclusionError", proof(2, ENTRIES[3], steps, opened)),
        "bad_proof_short_path": ("proof", "InclusionError", proof(3, ENTRIES[3], steps[:-1], opened)),
        "bad_proof_index_outside": ("proof", "MalformedError", proof(5, ENTRIES[3], steps, opened)),
        "bad_proof_without_entry": ("proof", "MalformedError", proof(3, None, steps, opened)),
        "bad_proof_unwitnessed": ("proof", "SignatureError", proof(3, ENTRIES[3], steps, signed)),
        "request_growth": ("request", "200", request(3, growth, signed)),
        "request_again": ("request", "200", request(3, [], note(3, LOG))),
        "bad_request_old_above_new": ("request", "400", request(3, [], note(2, LOG))),
        "bad_request_unsigned": ("request", "403", request(3, growth, note(5, [LOG_ED]))),
        "bad_request_unknown_log": (
            "request", "404", request(3, growth, note(5, LOG, text=five.replace("log.example", "log2.example")))),
        "bad_request_stale": ("request", "409", request(2, subproof(2, ENTRIES, True), signed)),
        "bad_request_no_proof": ("request", "422", request(3, [], signed)),
        "bad_request_fork": ("request", "422", request(3, [], note(3, LOG, root=fork))),
    }


def write(folder: Path) -> None:
    """Write every file and the table of outcomes."""
    table = {}
    for name, (kind, outcome, text) in vectors().items():
        (folder / f"{name}.txt").write_bytes(text.encode())
        table[name] = {"kind": kind, "outcome": outcome}
    (folder / "outcomes.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    target = Path(__file__).parent / "own"
    target.mkdir(exist_ok=True)
    write(target)
