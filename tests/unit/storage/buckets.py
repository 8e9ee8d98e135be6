"""Buckets whose answers are lost, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import obstore
from obstore.exceptions import GenericError

from sfrl_secure.storage.bucket import BucketStore


@contextmanager
def unanswered(call: str, *, takes_effect: bool, then_dead: bool = False, name: str = "") -> Iterator[None]:
    """Let the next `call` about an object whose path ends with `name` go without an answer.

    Args:
        takes_effect: the store did what was asked.
        then_dead: the store answers nothing from then on.
    """
    whole = {each: getattr(obstore, each) for each in ("put", "get", "delete", "list", "head")}
    is_lost = False

    def wrap(each: str) -> Any:
        def called(store: Any, path: Any = None, *given: Any, **named: Any) -> Any:
            nonlocal is_lost
            if is_lost and then_dead:
                raise GenericError("made to fail")
            if not is_lost and each == call and str(path).endswith(name):
                is_lost = True
                if takes_effect:
                    whole[each](store, path, *given, **named)
                raise GenericError("made to fail")
            return whole[each](store, *(() if path is None else (path,)), *given, **named)

        return called

    with patch.multiple(obstore, **{each: wrap(each) for each in whole}):
        yield


def objects_of(store: BucketStore) -> dict[str, bytes]:
    """Everything that the bucket holds, by path."""
    return {
        found["path"]: bytes(obstore.get(store, found["path"]).bytes())
        for part in obstore.list(store)
        for found in part
    }
