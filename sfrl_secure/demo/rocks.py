"""The rock analyses of the demo: 22,625 dated volcanic rocks, their oxides and trace elements, region and eon.

The table lies inside the wheel of `geochemistrypi` 0.8.0, which is downloaded by hash and never installed or imported.
Wheel and workbook are compared with their SHA-256 before a byte of them is interpreted.

A rock is labelled by its AGE, in million years; the 15 rocks without one are left out. A region is a band of longitude,
and belongs to one rover. A publication is one REFERENCE; spellings that differ in case or blanks only, and references
that print the same analysis, are one publication, because the table gathers three databases that cite the same paper in
different words. Publications, not rocks, are split into training and test.

Runs in: participant, in the demo alone.
Trusts: the two digests below. The cache beside the wheel is ours, and is checked for shape, not for truth.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sfrl_secure.demo.spreadsheet import iter_rows, open_archive, read_member
from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError

WHEEL_NAME = "geochemistrypi-0.8.0-py3-none-any.whl"
WHEEL_BYTES = 33_693_545
WHEEL_SHA256 = "df7338c6b34c08c2ad152ab01693badc7afc2d6b7121e734b8833aa5a7652cbb"
WORKBOOK_MEMBER = "geochemistrypi/data_mining/data/dataset/Data_Time_Series.xlsx"
WORKBOOK_BYTES = 8_727_542
WORKBOOK_SHA256 = "7c16e0f315b993b90a6fdaaae07356cf332581663ce8a86ad1475f526bfbd5f2"
DOWNLOAD_LINE = "pip download --no-deps --require-hashes -d .venv/data -r data-requirements.txt"

OXIDES = ("SIO2", "TIO2", "AL2O3", "FEOT", "MNO", "MGO", "CAO", "NA2O", "K2O", "P2O5")
TRACE_ELEMENTS = (
    "SC", "V", "CR", "CO", "NI", "CU", "ZN", "GA", "RB", "SR", "Y", "ZR", "NB", "CS", "BA", "LA", "CE", "PR", "ND",
    "SM", "EU", "GD", "TB", "DY", "HO", "ER", "TM", "YB", "LU", "HF", "TA", "PB", "TH", "U",
)  # fmt: skip
FEATURE_NAMES = OXIDES + TRACE_ELEMENTS
"""Oxides in weight percent, trace elements in parts per million."""

EON_NAMES = ("archean", "proterozoic", "phanerozoic")
EON_EDGES = (2_500.0, 541.0)
"""Ages in million years. An eon begins with its edge: a rock of exactly 2,500 is Proterozoic."""

REGION_EDGES = (-100.0, -30.0, 30.0, 100.0)
"""Degrees of longitude. A rock on an edge belongs to the region east of it."""

REGIONS = len(REGION_EDGES) + 1

COMPILATION_ROCKS = 1_000
"""A reference with more rocks than this is a national database rather than a publication, and always in training.

It is one, `USGS, 2004` with 3,471 rocks; held out, it would be half of the test rocks by itself.
"""

_CACHE_NAME = f"rocks-1-{WORKBOOK_SHA256[:16]}.npz"
_VALUES_TO_MATCH = 8
"""So many measured values must agree, and all others be missing in both, before two analyses count as one."""


@dataclass(frozen=True, slots=True)
class Rocks:
    """Dated rocks, one row each.

    Attributes:
        features: float64, (n, 44), columns as FEATURE_NAMES; NaN where the table has no value.
        eon: int64, (n,), index into EON_NAMES.
        region: int64, (n,), 0 to 4 from west to east.
        publication: int64, (n,), index into `publication_names`.
        publication_names: one reference of each publication, the first in the order of the alphabet.
    """

    features: npt.NDArray[np.float64]
    eon: npt.NDArray[np.int64]
    region: npt.NDArray[np.int64]
    publication: npt.NDArray[np.int64]
    publication_names: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.eon)
        if self.features.shape != (n, len(FEATURE_NAMES)) or self.features.dtype != np.float64:
            raise MalformedError("features are float64, one row a rock and one column a feature")
        bounds = ((self.eon, len(EON_NAMES)), (self.region, REGIONS), (self.publication, len(self.publication_names)))
        for column, end in bounds:
            if column.shape != (n,) or column.dtype != np.int64:
                raise MalformedError("eon, region and publication are int64, one value a rock")
            if n and (int(column.min()) < 0 or int(column.max()) >= end):
                raise MalformedError("an eon, region or publication does not exist")


def eon_of_age(age_million_years: float) -> int:
    """Name the eon of a rock by its age, as an index into EON_NAMES."""
    archean_ends, proterozoic_ends = EON_EDGES
    if age_million_years > archean_ends:
        return 0
    return 1 if age_million_years > proterozoic_ends else 2


def region_of_longitude(degrees: float) -> int:
    """Name the region of a place, 0 to 4 from west to east."""
    return sum(degrees >= edge for edge in REGION_EDGES)


def load_rocks(data_dir: Path) -> Rocks:
    """Read the rocks from the cache in `data_dir`, or from the wheel there, and cache them.

    Raises:
        MissingEvidenceError: the wheel is not there; the sentence has the line that fetches it.
        DigestError: the wheel or its workbook is not the one that is meant.
        MalformedError: the workbook does not have the columns that are meant.
    """
    cache = data_dir / _CACHE_NAME
    if cache.is_file():
        try:
            return _read_cache(cache)
        except MalformedError:
            pass  # A cache of another making: the wheel decides.
    rocks = parse_rocks(_open_workbook(data_dir / WHEEL_NAME))
    _write_cache(cache, rocks)
    return rocks


def parse_rocks(workbook: bytes) -> Rocks:
    """Take the table out of the workbook.

    Raises:
        MalformedError: a column that is needed is missing, or holds something else than numbers.
    """
    rows = iter_rows(workbook)
    header = next(rows, [])
    # FEOT stands twice; the first is the analysis, the second a recalculation with errors in it.
    columns = {name: header.index(name) for name in ("REFERENCE", "LONGITUDE", "AGE", *FEATURE_NAMES) if name in header}
    if len(columns) < 3 + len(FEATURE_NAMES):
        raise MalformedError("the workbook lacks a column that is needed")
    width = len(header)
    feature_columns = [columns[name] for name in FEATURE_NAMES]
    features: list[list[float]] = []
    eon: list[int] = []
    region: list[int] = []
    references: list[str] = []
    for row in rows:
        cells = row + [None] * (width - len(row))
        age = _number(cells[columns["AGE"]])
        longitude = _number(cells[columns["LONGITUDE"]])
        if np.isnan(age) or np.isnan(longitude):
            continue
        eon.append(eon_of_age(age))
        region.append(region_of_longitude(longitude))
        references.append(" ".join((cells[columns["REFERENCE"]] or "").casefold().split()))
        features.append([_number(cells[column]) for column in feature_columns])
    table = np.array(features, dtype=np.float64).reshape(len(features), len(FEATURE_NAMES))
    names, publication = join_references(references, table)
    return Rocks(table, np.array(eon, np.int64), np.array(region, np.int64), publication, names)


def join_references(
    references: Sequence[str], features: npt.NDArray[np.float64]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Find the publications: references that print one and the same analysis are joined.

    Returns: the publications' names, sorted, and the index of each rock's publication among them.
    """
    parent = {name: name for name in references}

    def first_of(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    measured = np.count_nonzero(~np.isnan(features), axis=1)
    # Zero in place of NaN would join a value of zero and a missing one; an impossible content does not.
    keys = np.where(np.isnan(features), -1.0, features)
    seen: dict[bytes, str] = {}
    for name, key, count in zip(references, keys, measured, strict=True):
        if count >= _VALUES_TO_MATCH:
            low, high = sorted((first_of(name), first_of(seen.setdefault(key.tobytes(), name))))
            parent[high] = low
    roots = [first_of(name) for name in references]
    names = tuple(sorted(set(roots)))
    index = {name: i for i, name in enumerate(names)}
    return names, np.array([index[name] for name in roots], dtype=np.int64)


def split_by_reference(
    rocks: Rocks, seed: int, held_out_fraction: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Split the rocks into training and test, so that no publication stands on both sides.

    A publication's side follows from the seed and its own name, so each rover can draw it without seeing the others'
    rocks. The fraction counts publications; the share of rocks differs, as publications differ in size.

    Returns: training mask and test mask, bool, (n,), each the other's complement.

    Raises:
        MalformedError: the fraction is not strictly between 0 and 1, or the seed not from 0 to 2**63 - 1.
    """
    if not 0.0 < held_out_fraction < 1.0:
        raise MalformedError("the held-out fraction is strictly between 0 and 1")
    if not 0 <= seed < 2**63:
        raise MalformedError("a seed is from 0 to 2**63 - 1")
    end = int(held_out_fraction * 2**64)
    salt = b"sfrl-secure demo split" + seed.to_bytes(8, "little")
    drawn = [
        int.from_bytes(hashlib.sha256(salt + name.encode()).digest()[:8], "little") < end
        for name in rocks.publication_names
    ]
    sizes = np.bincount(rocks.publication, minlength=len(drawn))
    held_out = np.array(drawn, dtype=np.bool_) & (sizes <= COMPILATION_ROCKS)
    test = held_out[rocks.publication]
    return ~test, test


def _number(text: str | None) -> float:
    if text is None:
        return float("nan")
    try:
        value = float(text)
    except ValueError as error:
        raise MalformedError("a column of numbers holds something else") from error
    if not np.isfinite(value):
        raise MalformedError("a number in the table is finite")
    return value


def _open_workbook(wheel: Path) -> bytes:
    try:
        with wheel.open("rb") as file:
            raw = file.read(WHEEL_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingEvidenceError(f"the rock analyses are not here; fetch them with: {DOWNLOAD_LINE}") from error
    _check_digest(raw, WHEEL_BYTES, WHEEL_SHA256, "wheel")
    workbook = read_member(open_archive(raw), WORKBOOK_MEMBER, WORKBOOK_BYTES)
    _check_digest(workbook, WORKBOOK_BYTES, WORKBOOK_SHA256, "workbook")
    return workbook


def _check_digest(raw: bytes, size: int, sha256: str, what: str) -> None:
    if len(raw) != size or hashlib.sha256(raw).hexdigest() != sha256:
        raise DigestError(f"the {what} with the rock analyses is not {size} bytes with SHA-256 {sha256}")


def _write_cache(path: Path, rocks: Rocks) -> None:
    """Write beside and rename, so that five rovers that start at once each find a whole file or none."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".rocks-", suffix=".npz", delete=False) as file:
            np.savez(
                file,
                features=rocks.features,
                eon=rocks.eon,
                region=rocks.region,
                publication=rocks.publication,
                publication_names=np.array(rocks.publication_names),
            )
        os.replace(file.name, path)
    except OSError:
        pass  # A folder that cannot be written costs three seconds at the next start, and nothing else.


def _read_cache(path: Path) -> Rocks:
    try:
        # Opened here: np.load leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names = tuple(str(name) for name in stored["publication_names"])
            return Rocks(stored["features"], stored["eon"], stored["region"], stored["publication"], names)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MalformedError("the cache of the rock analyses cannot be read") from error
