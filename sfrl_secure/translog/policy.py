"""Trust policies: which logs and witnesses count, and how many witnesses are enough.

Stricter than the specification in four points: the file is UTF-8; a log key is of type 0x01 or 0x06 and a witness key
of type 0x04 or 0x06; a public key stands in the file once, whether as a log's or a witness's; every key of a log's
generation is demanded (`opened`), where the specification takes any one. A URL belongs to the log: its lines agree on
it. A log's keys are replaced by adding the next generation's two lines below; none is ever taken away.

Format: c2sp.org/tlog-policy.

Runs in: everything.
Trusts: whoever handed the policy over; it is the root of trust, and nothing in it can be checked against anything else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
from sfrl_secure.translog.canonical_text import check_encodable, parse_decimal, parse_utf8
from sfrl_secure.translog.note import ED25519, ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE, VerifierKey, parse_vkey

POLICY_MEMBERS_MAX = 64
"""Log keys, witnesses and groups, each. The specification asks for 32 at least."""

LOG_KEY_TYPES = frozenset({ED25519, ML_DSA_44_COSIGNATURE})
WITNESS_KEY_TYPES = frozenset({ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE})

NO_QUORUM = "none"
"""The quorum that asks for no witness. Nothing else may bear the name."""


@dataclass(frozen=True, slots=True)
class TrustedLog:
    """A log and all its keys.

    Attributes:
        origin: the name of every key.
        keys: one or more, in the order of the file: the oldest first.
        url: where to reach it, or none.
    """

    origin: str
    keys: tuple[VerifierKey, ...]
    url: str | None = None

    def __post_init__(self) -> None:
        if not self.keys or any(key.name != self.origin for key in self.keys):
            raise MalformedError("a log has one key or more, all named as its origin")
        if any(key.key_type not in LOG_KEY_TYPES for key in self.keys):
            raise MalformedError("a log key is of type 0x01 or 0x06")
        _check_url(self.url)

    @property
    def generations(self) -> tuple[tuple[VerifierKey, ...], ...]:
        """The keys that sign together, the oldest generation first: each an Ed25519 key and the ML-DSA-44 key after it.

        Keys that are not such pairs throughout, as other people's logs have them, are one generation.
        """
        types = tuple(key.key_type for key in self.keys)
        if types != (ED25519, ML_DSA_44_COSIGNATURE) * (len(types) // 2):
            return (self.keys,)
        return tuple(self.keys[at : at + 2] for at in range(0, len(self.keys), 2))

    @property
    def genesis_vkeys(self) -> tuple[str, str]:
        """The Ed25519 and the ML-DSA-44 vkey of the first generation, which genesis names.

        Raises:
            MalformedError: it is not one of each: no log of ours.
        """
        first = {key.key_type: key.vkey for key in self.generations[0]}
        if len(self.generations[0]) != 2 or first.keys() != LOG_KEY_TYPES:
            raise MalformedError("the trust policy lists an Ed25519 and an ML-DSA-44 key of the log")
        return first[ED25519], first[ML_DSA_44_COSIGNATURE]


@dataclass(frozen=True, slots=True)
class TrustedWitness:
    """A witness.

    Attributes:
        name: its name within the policy; need not be its key's.
        key: type 0x04 or 0x06.
        url: its submission prefix, or none.
    """

    name: str
    key: VerifierKey
    url: str | None = None

    def __post_init__(self) -> None:
        _check_member_name(self.name)
        if self.key.key_type not in WITNESS_KEY_TYPES:
            raise MalformedError("a witness key is of type 0x04 or 0x06")
        _check_url(self.url)


@dataclass(frozen=True, slots=True)
class WitnessGroup:
    """Some witnesses or groups, of which enough must have cosigned.

    Attributes:
        name: within the policy.
        threshold: 1 to the number of members.
        members: names defined before.
    """

    name: str
    threshold: int
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_member_name(self.name)
        if not 1 <= self.threshold <= len(self.members):
            raise MalformedError("a group's threshold is from 1 to the number of its members")


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Logs, witnesses, groups and the quorum: at most 64 log keys, witnesses and groups each.

    Attributes:
        logs: by origin, none twice; may be empty where the log is known otherwise.
        witnesses: in the order of the file.
        groups: each after its members.
        quorum: a witness, a group, or `none`.
    """

    logs: tuple[TrustedLog, ...]
    witnesses: tuple[TrustedWitness, ...]
    groups: tuple[WitnessGroup, ...]
    quorum: str

    def __post_init__(self) -> None:
        log_keys = [key for log in self.logs for key in log.keys]
        if max(len(log_keys), len(self.witnesses), len(self.groups)) > POLICY_MEMBERS_MAX:
            raise MalformedError(f"a policy has at most {POLICY_MEMBERS_MAX} log keys, witnesses and groups each")
        if len({log.origin for log in self.logs}) != len(self.logs):
            raise MalformedError("a log is listed once, with all its keys")
        keys = [*log_keys, *(witness.key for witness in self.witnesses)]
        # Two lines that one (name, key id) could both mean would leave it to the reader which key verifies.
        if len({key.public_key for key in keys}) != len(keys) or len({(k.name, k.key_id) for k in keys}) != len(keys):
            raise MalformedError("a public key, or a key's name and id, stands in a policy once")
        self._check_groups()

    def _check_groups(self) -> None:
        defined: set[str] = set()
        used: set[str] = set()
        for witness in self.witnesses:
            if witness.name in defined:
                raise MalformedError("a name is defined twice")
            defined.add(witness.name)
        for group in self.groups:
            for member in group.members:
                if member not in defined:
                    raise MalformedError("a group names only what is defined before it")
                if member in used:
                    raise MalformedError("a name is a member of one group, and once")
                used.add(member)
            if group.name in defined:
                raise MalformedError("a name is defined twice")
            defined.add(group.name)
        if self.quorum != NO_QUORUM and self.quorum not in defined:
            raise MalformedError("the quorum is not defined")

    def log(self, origin: str) -> TrustedLog | None:
        """The log of that origin, if the policy lists it."""
        return next((log for log in self.logs if log.origin == origin), None)

    def is_quorum(self, cosigners: Collection[str]) -> bool:
        """Whether the witnesses of these names are enough. The caller has verified a cosignature of each."""
        if self.quorum == NO_QUORUM:
            return True
        witnessed = {witness.name for witness in self.witnesses if witness.name in cosigners}
        for group in self.groups:
            if sum(member in witnessed for member in group.members) >= group.threshold:
                witnessed.add(group.name)
        return self.quorum in witnessed


def _check_member_name(name: str) -> None:
    _check_word(name)
    if name == NO_QUORUM:
        raise MalformedError("the name 'none' is taken by the quorum that asks for no witness")


def _check_url(url: str | None) -> None:
    if url is not None:
        _check_word(url)


def _check_word(word: str) -> None:
    check_encodable(word)
    if not word or any(character <= " " or character == "\x7f" for character in word):
        raise MalformedError("a word of a policy is not empty and has no white space and no control character")


def parse_trust_policy(raw: bytes) -> TrustPolicy:
    """Parse a policy file.

    Raises:
        MalformedError: it breaks a rule of the format or one of ours; an unknown kind of line is among these.
    """
    text = parse_utf8(raw, bytes_max=TRUST_POLICY_BYTES_MAX)
    if not text.endswith("\n") or any((c < " " and c not in "\t\n") or c == "\x7f" for c in text):
        raise MalformedError("every line of a policy ends with a newline; tab is the only other control character")
    reader = _PolicyReader()
    for line in text[:-1].split("\n"):
        # Space and tab alone separate: split() without an argument would also cut at U+00A0 and its like.
        words = [word for word in line.replace("\t", " ").split(" ") if word]
        if words and not words[0].startswith("#"):
            reader.take(words)
    return reader.finish()


class _PolicyReader:
    """Gathers lines, and sees to it that names are defined before they are used."""

    def __init__(self) -> None:
        self._keys: dict[str, list[VerifierKey]] = {}
        self._urls: dict[str, str] = {}
        self._witnesses: list[TrustedWitness] = []
        self._groups: list[WitnessGroup] = []
        self._defined = {NO_QUORUM}
        self._quorum: str | None = None

    def take(self, words: list[str]) -> None:
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self._take_log(parse_vkey(vkey), *url)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._witnesses.append(TrustedWitness(name, parse_vkey(vkey), *url))
                self._defined.add(name)
            case ["group", name, threshold, *members] if members:
                # `none` is defined for the quorum line only; TrustPolicy refuses it as a member.
                self._check_defined(members)
                self._groups.append(WitnessGroup(name, _parse_threshold(threshold, len(members)), tuple(members)))
                self._defined.add(name)
            case ["quorum", name] if self._quorum is None:
                self._check_defined([name])
                self._quorum = name
            case _:
                raise MalformedError("a policy line is log, witness or group in its form, and one quorum")

    def _take_log(self, key: VerifierKey, url: str | None = None) -> None:
        self._keys.setdefault(key.name, []).append(key)
        if url is not None and self._urls.setdefault(key.name, url) != url:
            raise MalformedError("the lines of one log name two URLs")

    def _check_defined(self, names: list[str]) -> None:
        if not self._defined.issuperset(names):
            raise MalformedError("a policy line names only what is defined on a line before it")

    def finish(self) -> TrustPolicy:
        if self._quorum is None:
            raise MalformedError("a policy has exactly one quorum line")
        logs = tuple(TrustedLog(origin, tuple(keys), self._urls.get(origin)) for origin, keys in self._keys.items())
        return TrustPolicy(logs, tuple(self._witnesses), tuple(self._groups), self._quorum)


def _parse_threshold(text: str, members: int) -> int:
    return {"all": members, "any": 1}.get(text) or parse_decimal(text)


def format_trust_policy(policy: TrustPolicy) -> bytes:
    """Write a policy file; a log's URL stands on each of its lines, thresholds are numbers.

    Raises:
        MalformedError: it would be larger than any reader of ours takes.
    """
    lines = [_line("log", key.vkey, log.url) for log in policy.logs for key in log.keys]
    lines += [_line("witness", witness.name, witness.key.vkey, witness.url) for witness in policy.witnesses]
    lines += [_line("group", group.name, str(group.threshold), *group.members) for group in policy.groups]
    lines.append(_line("quorum", policy.quorum))
    raw = "".join(lines).encode()
    if len(raw) > TRUST_POLICY_BYTES_MAX:
        raise MalformedError(f"a policy is at most {TRUST_POLICY_BYTES_MAX} bytes")
    return raw


def _line(*words: str | None) -> str:
    return " ".join(word for word in words if word is not None) + "\n"
