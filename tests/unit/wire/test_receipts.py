from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.wire.receipts import ReceiptKind, encode_receipt, parse_receipt

MAY_BE_ABSENT = {("LoggedEntry", 1), ("LoggedEntry", 3), *(("Receipt", number) for number in (4, 7, 8, 11))}
REPEATED_HASHES = {("LoggedEntry", 3), ("Receipt", 8)}


@pytest.mark.parametrize("kind", ReceiptKind)
def test_a_receipt_written_by_hand_is_read_and_written_again(kind: ReceiptKind, by_hand: SimpleNamespace) -> None:
    raw = by_hand.receipt(kind).encode()
    receipt = parse_receipt(raw)
    assert receipt.kind is kind
    assert (receipt.counted is not None) == (kind is ReceiptKind.COUNTED)
    assert [each.index for each in receipt.services] == [1, 4]
    assert [each.index for each in receipt.roots] == [2, 7]
    assert encode_receipt(receipt) == raw


@pytest.mark.parametrize("kind", ReceiptKind)
def test_every_damaged_field_of_a_receipt_is_refused(kind: ReceiptKind, by_hand: SimpleNamespace) -> None:
    for damage, where, damaged in by_hand.damages(by_hand.receipt(kind)):
        numbers = [number for number, _ in damaged.fields]
        allowed = (damage == "dropped" and where in MAY_BE_ABSENT) or (
            damage in ("doubled", "swapped") and where in REPEATED_HASHES and numbers == sorted(numbers)
        )
        try:
            parse_receipt(damaged.encode())
        except MalformedError:
            continue
        assert allowed, f"{where}: {damage}"


@pytest.mark.parametrize("number", [6, 7, 8, 9])
def test_only_a_counted_receipt_has_the_rounds_end(number: int, by_hand: SimpleNamespace) -> None:
    value = dict(by_hand.receipt(3).fields)[number]
    with pytest.raises(MalformedError):
        parse_receipt(by_hand.receipt(2).with_field(number, value).encode())


@pytest.mark.parametrize("number", [6, 9])
def test_a_counted_receipt_has_the_round_and_the_model(number: int, by_hand: SimpleNamespace) -> None:
    with pytest.raises(MalformedError):
        parse_receipt(by_hand.receipt(3).without(number).encode())


def test_lists_and_lengths_of_a_receipt_are_bounded(by_hand: SimpleNamespace) -> None:
    whole = by_hand.receipt(3)
    seventeen = tuple((4, by_hand.logged(index)) for index in range(1, 18))
    genesis_again = whole.replaced(whole.at(11), (11, by_hand.logged(0)))
    for bad in (
        genesis_again,
        by_hand.Msg("Receipt", tuple(sorted([*whole.without(4).fields, *seventeen], key=lambda pair: pair[0]))),
        whole.without(4),
        whole.with_field(2, bytes(128 * 1024 + 1)),
        whole.with_field(3, by_hand.logged(1)),
        whole.with_field(5, by_hand.logged(6).with_field(2, bytes(65_536))),
        whole.with_field(5, by_hand.logged(6).with_field(1, 2**63)),
        whole.with_field(5, by_hand.Msg("LoggedEntry", ((2, b"e"), *((3, bytes(32)),) * 64))),
        whole.with_field(8, bytes(31)),
        whole.with_field(1, 4),
    ):
        with pytest.raises(MalformedError):
            parse_receipt(bad.encode())


def test_a_receipt_shows_at_most_64_roots_after_genesis(by_hand: SimpleNamespace) -> None:
    without = by_hand.receipt(2).without(11)

    def with_roots(count: int) -> bytes:
        roots = tuple((11, by_hand.logged(index)) for index in range(1, count + 1))
        return by_hand.Msg("Receipt", (*without.fields, *roots)).encode()  # type: ignore[no-any-return]

    assert len(parse_receipt(with_roots(64)).roots) == 64
    with pytest.raises(MalformedError, match="64"):
        parse_receipt(with_roots(65))


def test_a_receipt_that_could_not_be_read_is_not_written(by_hand: SimpleNamespace) -> None:
    counted = parse_receipt(by_hand.receipt(3).encode())
    for bad in (
        replace(counted, counted=None),
        replace(counted, kind=ReceiptKind.WITNESSED),
        replace(counted, services=counted.services[::-1]),
        replace(counted, roots=counted.roots[::-1]),
        replace(counted, checkpoint=b""),
    ):
        with pytest.raises(MalformedError):
            encode_receipt(bad)
