from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
from sfrl_secure.translog.note import ED25519, ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE, verifier_key
from sfrl_secure.translog.policy import (
    TrustedLog,
    TrustedWitness,
    TrustPolicy,
    WitnessGroup,
    format_trust_policy,
    parse_trust_policy,
)


def key(name: str, key_type: int, seed: int):
    if key_type == ML_DSA_44_COSIGNATURE:
        return verifier_key(name, key_type, seed.to_bytes(1312, "big"))
    private = Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))
    return verifier_key(name, key_type, private.public_key().public_bytes_raw())


LOG = key("log.example/a", ED25519, 1).vkey
LOG_PQ = key("log.example/a", ML_DSA_44_COSIGNATURE, 2).vkey
WITNESSES = [key(f"w{i}.example", ED25519_COSIGNATURE, 10 + i).vkey for i in range(6)]
LINES = [f"witness {name} {vkey}" for name, vkey in zip(["X1", "X2", "X3", "Y1", "Y2", "Y3"], WITNESSES, strict=True)]


def policy_of(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


NESTED = policy_of(
    "# two organisations", f"log {LOG} https://log.example/", f"log\t{LOG_PQ}  ", "", *LINES[:3],
    "group X-witnesses 2 X1 X2 X3", *LINES[3:], "  group Y-witnesses any Y1 Y2 Y3",
    "  \t# both", "group X-and-Y all X-witnesses Y-witnesses", "quorum X-and-Y",
)


def test_a_policy_is_read() -> None:
    policy = parse_trust_policy(NESTED)
    log = policy.log("log.example/a")
    assert log is not None
    assert [k.vkey for k in log.keys] == [LOG, LOG_PQ]
    assert log.url == "https://log.example/"
    assert policy.log("log.example/b") is None
    assert [witness.name for witness in policy.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert [(g.name, g.threshold) for g in policy.groups] == [("X-witnesses", 2), ("Y-witnesses", 1), ("X-and-Y", 2)]


def test_a_policy_comes_back() -> None:
    policy = parse_trust_policy(NESTED)
    raw = format_trust_policy(policy)
    assert parse_trust_policy(raw) == policy
    assert format_trust_policy(parse_trust_policy(raw)) == raw


def test_the_quorum_counts_through_groups() -> None:
    policy = parse_trust_policy(NESTED)
    names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    for count in range(7):
        for chosen in combinations(names, count):
            x, y = sum(n[0] == "X" for n in chosen), sum(n[0] == "Y" for n in chosen)
            assert policy.is_quorum(chosen) == (x >= 2 and y >= 1)
    assert not policy.is_quorum(["X-and-Y", "X-witnesses", "Y-witnesses"]), "a group's name is no cosignature"


def test_a_quorum_can_be_one_witness_or_none() -> None:
    one = parse_trust_policy(policy_of(*LINES[:2], "quorum X2"))
    assert (one.is_quorum(["X1"]), one.is_quorum(["X2"])) == (False, True)
    assert parse_trust_policy(policy_of("quorum none")).is_quorum([])


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_more_cosigners_never_break_a_quorum(data: st.DataObject) -> None:
    policy = parse_trust_policy(NESTED)
    names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    some = data.draw(st.sets(st.sampled_from(names)))
    more = some | data.draw(st.sets(st.sampled_from(names)))
    assert policy.is_quorum(some) <= policy.is_quorum(more)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [f"log {LOG}"],
        ["quorum none", "quorum none"],
        ["quorum"],
        ["quorum X1"],
        ["quorum X1", LINES[0]],
        ["quorum none none"],
        ["expiry never", "quorum none"],
        ["Log " + LOG, "quorum none"],
        ["log", "quorum none"],
        [f"log {LOG} url url", "quorum none"],
        [f"log {LOG}", f"log {LOG}", "quorum none"],
        [f"log {LOG} https://one/", f"log {LOG_PQ} https://two/", "quorum none"],
        [f"log {WITNESSES[0]}", "quorum none"],
        [f"witness X1 {LOG}", "quorum none"],
        ["witness X1", "quorum none"],
        [f"witness none {WITNESSES[0]}", "quorum none"],
        [LINES[0] + " url url", "quorum none"],
        [LINES[0], LINES[0], "quorum none"],
        [LINES[0], f"witness again {WITNESSES[0]}", "quorum none"],
        [LINES[0], f"witness X1 {WITNESSES[1]}", "quorum none"],
        [LINES[0], "witness again " + key("renamed.example", ED25519_COSIGNATURE, 10).vkey, "quorum none"],
        [f"log {LOG}", "witness own " + key("own.example", ED25519_COSIGNATURE, 1).vkey, "quorum none"],
        ["log log.example+00112233+AkFB", "quorum none"],
        ["witness X1 w.example+00112233+AkFB", "quorum none"],
        ["group G all X1", LINES[0], "quorum G"],
        [LINES[0], "group G all", "quorum none"],
        [LINES[0], "group G", "quorum none"],
        [LINES[0], "group G X1", "quorum none"],
        [LINES[0], "group G some X1", "quorum none"],
        [LINES[0], "group G 0 X1", "quorum none"],
        [LINES[0], "group G 2 X1", "quorum none"],
        [LINES[0], "group G -1 X1", "quorum none"],
        [LINES[0], "group G 01 X1", "quorum none"],
        [LINES[0], "group G any X1 X1", "quorum none"],
        [LINES[0], "group G any G", "quorum none"],
        [LINES[0], "group G any none", "quorum none"],
        [LINES[0], "group none any X1", "quorum none"],
        [LINES[0], "group X1 any X1", "quorum none"],
        [LINES[0], "group G any X1", "group H any X1", "quorum G"],
        [LINES[0], LINES[1], "group G any X1", "group G any X2", "quorum G"],
        [LINES[0], "group G any X1", f"witness G {WITNESSES[1]}", "quorum G"],
        ["quorum none\r"],
        ["# \x00", "quorum none"],
        ["# \x7f", "quorum none"],
    ],
)
def test_what_is_no_policy_is_refused(lines: list[str]) -> None:
    with pytest.raises(MalformedError):
        parse_trust_policy(policy_of(*lines))


@pytest.mark.parametrize("raw", [b"", b"quorum none", b"# \xff\nquorum none\n", b"quorum\xc2\xa0none\n"])
def test_bytes_that_are_no_policy_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_trust_policy(raw)


def test_a_policy_above_the_limit_is_neither_read_nor_written() -> None:
    comment = b"#" * (TRUST_POLICY_BYTES_MAX - 13) + b"\nquorum none\n"
    parse_trust_policy(comment)
    with pytest.raises(MalformedError):
        parse_trust_policy(b"#" + comment)
    long = tuple(TrustedWitness("n" * 9000 + str(i), key("w", ED25519_COSIGNATURE, i + 1)) for i in range(32))
    with pytest.raises(MalformedError):
        format_trust_policy(TrustPolicy((), long, (), "none"))


def _many(count: int) -> dict[str, list[str]]:
    witnesses = [f"witness w{i} {key('w.example', ED25519_COSIGNATURE, i + 1).vkey}" for i in range(count)]
    return {
        "logs": [f"log {key(f'log{i}.example', ED25519, i + 1).vkey}" for i in range(count)],
        "witnesses": witnesses,
        "groups": [*witnesses[:64], *(f"group g{i} any {'w0' if i == 0 else f'g{i - 1}'}" for i in range(count))],
    }


@pytest.mark.parametrize("kind", ["logs", "witnesses", "groups"])
def test_64_of_each_kind_are_taken_and_65_are_not(kind: str) -> None:
    parse_trust_policy(policy_of(*_many(64)[kind], "quorum none"))
    with pytest.raises(MalformedError):
        parse_trust_policy(policy_of(*_many(65)[kind], "quorum none"))


def test_a_deep_chain_of_groups_counts() -> None:
    policy = parse_trust_policy(policy_of(*_many(64)["groups"], "quorum g63"))
    assert (policy.is_quorum(["w0"]), policy.is_quorum(["w1"])) == (True, False)


def test_two_keys_that_one_line_could_mean_are_refused() -> None:
    """A key id has 32 bits: these two ML-DSA keys were found to share one, under one name."""
    one, two = (TrustedWitness(f"w{seed}", key("w.example", ML_DSA_44_COSIGNATURE, seed)) for seed in (38277, 59835))
    assert one.key.key_id == two.key.key_id
    with pytest.raises(MalformedError):
        TrustPolicy((), (one, two), (), "none")


def test_values_check_themselves() -> None:
    log, witness = key("log.example", ED25519, 1), key("w.example", ED25519_COSIGNATURE, 2)
    good = TrustedLog("log.example", (log,))
    for make in (
        lambda: TrustedLog("log.example", ()),
        lambda: TrustedLog("other.example", (log,)),
        lambda: TrustedLog("w.example", (witness,)),
        lambda: TrustedLog("log.example", (log,), "two words"),
        lambda: TrustedLog("log.example", (log,), ""),
        lambda: TrustedWitness("w", log),
        lambda: TrustedWitness("two words", witness),
        lambda: TrustedWitness("\ud800", witness),
        lambda: TrustedWitness("w", witness, "a\nquorum none"),
        lambda: WitnessGroup("g", 0, ("w",)),
        lambda: WitnessGroup("g\n", 1, ("w",)),
        lambda: TrustPolicy((good, TrustedLog("log.example", (key("log.example", ED25519, 3),))), (), (), "none"),
        lambda: TrustPolicy((), (), (), "nobody"),
        lambda: TrustPolicy((), (), (WitnessGroup("g", 1, ("w",)),), "none"),
    ):
        with pytest.raises(MalformedError):
            make()


WORDS = ["log", "witness", "group", "quorum", "none", "X1", "all", "1", LOG, WITNESSES[0], "#", "\t", "é"]


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.binary(max_size=30))
@settings(deadline=None, max_examples=300)
def test_any_words_are_a_policy_that_comes_back_or_malformed(words: list[str], junk: bytes) -> None:
    for raw in (policy_of(*LINES[:1], " ".join(words), "quorum none"), junk + b"\nquorum none\n"):
        try:
            policy = parse_trust_policy(raw)
        except MalformedError:
            continue
        assert parse_trust_policy(format_trust_policy(policy)) == policy
