"""Catalogs: three formats say the same, and what is no table says where and how to mend it."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import catalog_parts, storage
from pipeline.data.catalog import COLUMNS, TEXT_COLUMNS, catalog_root, most_rows, read_catalog
from pipeline.errors import CatalogError

Row = Mapping[str, object]

ARROW_TYPES = {
    **dict.fromkeys(TEXT_COLUMNS, pa.string()),
    **dict.fromkeys(("scale", "width", "height", "size", "page"), pa.int64()),
    "sigma": pa.float64(),
    "kernel_values": pa.list_(pa.list_(pa.float64())),
}


def as_csv(rows: Sequence[Row], newline: str = "\n") -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL)
    table.writerow(COLUMNS)
    for row in rows:
        kernel = row["kernel_values"]
        cells = {**row, "kernel_values": json.dumps(kernel) if isinstance(kernel, list) else kernel}
        table.writerow([cells[name] for name in COLUMNS])
    return text.getvalue().encode()


def as_jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows: Sequence[Row]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=pa.schema(ARROW_TYPES.items())), sink)
    return sink.getvalue()


def put(folder: Path, name: str, data: bytes | str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def read(folder: Path, name: str, data: bytes | str) -> list[dict[str, object]]:
    return list(read_catalog(put(folder, name, data)))


def full(**values: object) -> dict[str, object]:
    """A row as it is read: every column, None where it is not given."""
    return {**dict.fromkeys(COLUMNS), **values}


counts = st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), min_size=1)
kernels = st.lists(st.lists(numbers, min_size=1, max_size=3), min_size=1, max_size=3)
rows_of_a_catalog = st.lists(
    st.fixed_dictionaries(
        {
            **{name: st.none() | texts for name in TEXT_COLUMNS},
            **{name: st.none() | counts for name in ("scale", "width", "height", "size", "page")},
            "sigma": st.none() | numbers,
            "kernel_values": st.none() | kernels,
        }
    ),
    max_size=5,
)


@given(rows=rows_of_a_catalog)
def test_three_formats_give_the_same_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert read(folder, "a.csv", as_csv(rows)) == rows
    assert read(folder, "a.jsonl", as_jsonl(rows)) == rows
    assert read(folder, "a.parquet", as_parquet(rows)) == rows


@given(rows=rows_of_a_catalog, newline=st.sampled_from(["\n", "\r\n"]))
def test_no_catalog_has_more_rows_than_are_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], newline: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert most_rows(put(folder, "a.parquet", as_parquet(rows))) == len(rows)
    assert most_rows(put(folder, "a.csv", as_csv(rows, newline))) >= len(rows)
    assert most_rows(put(folder, "a.jsonl", as_jsonl(rows).rstrip())) >= len(rows)


def test_lines_are_few_more_than_rows(tmp_path: Path) -> None:
    rows = [full(uri=f"{n}.png") for n in range(99)]
    assert most_rows(put(tmp_path, "a.csv", as_csv(rows))) == 101
    assert most_rows(put(tmp_path, "a.jsonl", as_jsonl(rows))) == 100


def test_an_indexed_catalog_says_how_many_rows_it_has(tmp_path: Path) -> None:
    rows = [full(uri=f"/in/{n}.png") for n in range(9)]
    catalog_parts.write(str(tmp_path / "cat"), rows, before=None, about={})
    put(tmp_path, "cat/stray.parquet", as_parquet(rows))
    assert most_rows(str(tmp_path / "cat")) == len(list(read_catalog(str(tmp_path / "cat")))) == 9


@given(rows=rows_of_a_catalog, cut=st.integers(0, 5), name=st.sampled_from(["cat", "cat.parquet"]))
def test_a_catalog_in_many_files_of_many_formats_is_the_catalog(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], cut: int, name: str
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    put(folder, f"{name}/0.csv", as_csv(rows[:cut], newline="\r\n"))
    put(folder, f"{name}/1.jsonl", as_jsonl(rows[cut:]))
    put(folder, f"{name}/2/0.parquet", as_parquet(rows))
    assert list(read_catalog(f"{folder}/{name}")) == [*rows, *rows]


WRITERS = {".csv": as_csv, ".jsonl": as_jsonl, ".parquet": as_parquet}
DAMAGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=4)


@given(rows=rows_of_a_catalog, ending=st.sampled_from(sorted(WRITERS)), damages=DAMAGES)
def test_a_damaged_catalog_is_rows_of_the_known_columns_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], ending: str, damages: list[tuple[float, int, bytes]]
) -> None:
    data = WRITERS[ending](rows)
    for place, length, instead in damages:
        start = int(place * len(data))
        data = data[:start] + instead + data[start + length :]
    uri = put(tmp_path_factory.getbasetemp(), f"damaged{ending}", data)
    rows_or_error = read_or_refused(uri)
    if isinstance(rows_or_error, CatalogError):
        assert f"catalog {uri}" in str(rows_or_error)
    else:
        assert all(tuple(row) == COLUMNS for row in rows_or_error)
        assert not any(value == "" for row in rows_or_error for value in row.values())


def read_or_refused(uri: str) -> list[dict[str, object]] | CatalogError:
    try:
        return list(read_catalog(uri))
    except CatalogError as error:
        return error


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.ndjson", "a.jsonl", "a.json-lines", "a.parquet"])
def test_a_format_is_known_by_its_ending(tmp_path: Path, name: str) -> None:
    rows = [full(uri="a.png", scale=2)]
    writers = {"csv": as_csv, "parquet": as_parquet}
    assert read(tmp_path, name, writers.get(name.split(".")[1].lower(), as_jsonl)(rows)) == rows


def test_unknown_columns_are_ignored_and_empty_values_are_none(tmp_path: Path) -> None:
    rows = [full(uri="a.png"), full(uri="b.png", scale=3)]
    assert read(tmp_path, "a.csv", "note, uri ,scale,\nx,a.png,,\n,b.png,3,y\n") == rows
    lines = '{"uri": "a.png", "kernel": "", "x": {"uri": 1}}\n{"uri": "b.png", "scale": 3}'
    assert read(tmp_path, "a.jsonl", lines) == rows
    table = pa.table({"x": [1, 2], "uri": ["a.png", "b.png"], "scale": [None, 3], "kernel": ["", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(read_catalog(str(tmp_path / "a.parquet"))) == rows


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_marks_and_line_ends_of_other_systems_are_no_data(tmp_path: Path, newline: str, bom: bytes) -> None:
    rows = [full(uri='a, "b"\nc.png', id="ä\u2028日本", scale=1), full(uri="d.png")]
    assert read(tmp_path, "a.csv", bom + as_csv(rows, newline=newline)) == rows
    jsonl = as_jsonl(rows).replace(b"\n", newline.encode() * 2)  # and blank lines
    assert read(tmp_path, "a.jsonl", bom + jsonl) == rows


def test_a_csv_cell_that_is_no_number_stays_text(tmp_path: Path) -> None:
    row = full(uri="007", id="1.0", scale="two", sigma="1,5", width="1_0", page="1.5", kernel_values="[[1,")
    assert read(tmp_path, "a.csv", as_csv([row])) == [{**row, "page": 1.5}]


@pytest.mark.parametrize("cell", ["[" * 100_000, "9" * 5000, "NaN", "1e999"])
def test_no_csv_cell_stops_the_catalog(tmp_path: Path, cell: str) -> None:
    text = f'uri,kernel_values,scale\na.png,"{cell}","{cell}"\nb.png,,2\n'
    assert read(tmp_path, "a.csv", text)[1] == full(uri="b.png", scale=2)


def test_a_large_kernel_fits_into_a_csv_cell(tmp_path: Path) -> None:
    values = [[1 / 3] * 120] * 120
    row = full(uri="a", kernel_values=values)
    assert read(tmp_path, "a.csv", as_csv([row])) == [row]


def test_parquet_decimals_and_dictionaries_are_plain_values(tmp_path: Path) -> None:
    uri = pa.array(["a", "a"]).dictionary_encode()
    pq.write_table(pa.table({"uri": uri, "sigma": [Decimal("2.55"), None]}), tmp_path / "a.parquet")
    assert list(read_catalog(str(tmp_path / "a.parquet"))) == [full(uri="a", sigma=2.55), full(uri="a")]


def test_a_long_parquet_file_is_read_whole(tmp_path: Path) -> None:
    uris = [f"{n}.png" for n in range(5000)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "a.parquet", row_group_size=1700)
    assert [row["uri"] for row in read_catalog(str(tmp_path / "a.parquet"))] == uris


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"uri\n"), ("a.csv", b"uri,scale"), ("a.jsonl", b""), ("a.parquet", as_parquet([]))],
)
def test_a_catalog_without_rows_is_legal(tmp_path: Path, name: str, data: bytes) -> None:
    assert read(tmp_path, name, data) == []


def test_a_folder_is_read_file_by_file_in_the_order_of_names(tmp_path: Path) -> None:
    put(tmp_path, "cat/b.csv", "uri\nb1\nb2\n")
    put(tmp_path, "cat/a/z.jsonl", '{"uri": "az"}')
    put(tmp_path, "cat/c.parquet", as_parquet([full(uri="c")]))
    for ignored in ("_SUCCESS", "readme.txt", ".b.csv", "_temporary/0/x.csv", ".hidden/x.jsonl"):
        put(tmp_path, f"cat/{ignored}", "no table")
    for uri in (tmp_path / "cat", f"{tmp_path}/cat/", f"file://{tmp_path}/cat"):
        assert [row["uri"] for row in read_catalog(str(uri))] == ["az", "b1", "b2", "c"]


def test_a_folder_may_be_named_like_a_file_and_lie_below_a_hidden_one(tmp_path: Path) -> None:
    put(tmp_path, "_work/cat.parquet/part-0.parquet", as_parquet([full(uri="a")]))
    assert list(read_catalog(str(tmp_path / "_work" / "cat.parquet"))) == [full(uri="a")]


def test_a_catalog_may_lie_in_any_storage(s3_prefix: str) -> None:
    for uri in (f"{s3_prefix}/cat/a.csv", "memory://cat-of-test/a.csv"):
        storage.write_bytes(uri, b"uri\na.png\n")
        assert list(read_catalog(uri)) == [full(uri="a.png")]
        assert list(read_catalog(uri.removesuffix("/a.csv"))) == [full(uri="a.png")]
        assert catalog_root(uri) == uri.removesuffix("/a.csv")


WRONG = [
    # file, content, words of the message
    ("a.csv", b"", ["no column `uri`", "it has none", "name the column"]),
    ("a.csv", b"url,scale\na,1\n", ["no column `uri`", "'url', 'scale'"]),
    ("a.csv", b"uri;scale\na;1\n", ["no column `uri`", "'uri;scale'"]),
    ("a.csv", b"uri,scale, uri\na,1,b\n", ["'uri' twice", "rename or remove"]),
    ("a.csv", b"uri,scale\na,1\n\nb\n", ["line 4", "1 cells", "2", "double quotes"]),
    ("a.csv", b"uri,kernel\na,gaussian(1, 2, 3)\n", ["line 2", "4 cells", "double quotes"]),
    ("a.csv", b'uri,scale\n"a\nb",2\nc,2,3\n', ["line 4", "3 cells"]),
    ("a.csv", b'uri,scale\na,2\n"b,2\nc,2\n', ["line 3", "no valid CSV", "double quotes"]),
    ("a.csv", b'uri,scale\n"a"b,2\n', ["line 2", "no valid CSV"]),
    ("a.csv", b"uri\na\nb\xff\n", ["line 3", "UTF-8", "save"]),
    ("a.csv", "uri\na\n".encode("utf-16"), ["line 1", "UTF-8"]),
    ("a.jsonl", b'{"url": "a"}\n{"scale": 2}\n', ["no column `uri`", "'scale', 'url'"]),
    ("a.jsonl", b'{"uri": "a"}\n\n{"uri": }\n', ["line 3", "no valid JSON", "one JSON object a line"]),
    ("a.jsonl", b'{"uri": "a"}\n["b"]\n', ["line 2", "no JSON object"]),
    ("a.jsonl", b'[\n{"uri": "a"}\n]\n', ["line 1", "no valid JSON"]),
    ("a.jsonl", b'{"uri": "a", "uri": "b"}\n', ["line 1", "'uri' is there twice"]),
    ("a.jsonl", b'{"uri": "a\xff"}\n', ["line 1", "UTF-8"]),
    ("a.jsonl", b'{"uri": ' + b"[" * 100_000, ["line 1", "no valid JSON"]),
    ("a.parquet", b"", ["no sound Parquet file", "write it again"]),
    ("a.parquet", b"PAR1 and more", ["no sound Parquet file"]),
    ("a.parquet", as_parquet([full(uri="a")])[:-20], ["no sound Parquet file"]),
    ("a.txt", b"uri\na\n", ["must end in .parquet, .csv"]),
    ("cat/readme.txt", b"uri\na\n", [".parquet, .csv", "correct `catalog`"]),
]


@pytest.mark.parametrize(("name", "data", "words"), WRONG, ids=[f"{case[0]}: {case[2][0]}" for case in WRONG])
def test_what_is_no_catalog_says_where_and_how_to_mend_it(
    tmp_path: Path, name: str, data: bytes, words: list[str]
) -> None:
    uri = put(tmp_path, name, data).removesuffix("/readme.txt")
    with pytest.raises(CatalogError) as error:
        list(read_catalog(uri))
    assert [word for word in [f"catalog {uri}", *words] if word not in str(error.value)] == [], error.value


@pytest.mark.parametrize("uri", ["nowhere.csv", "nowhere", "nowhere/"])
def test_a_catalog_that_is_not_there_says_so(tmp_path: Path, uri: str) -> None:
    with pytest.raises(CatalogError, match=r"is no file and no folder .* correct `catalog`"):
        list(read_catalog(f"{tmp_path}/{uri}"))


def test_an_unusable_uri_is_a_catalog_error() -> None:
    for uri in ("nosuchscheme://a/b.csv", "s3://b//a.csv", ""):
        with pytest.raises(CatalogError, match=f"catalog {uri} cannot be read"):
            list(read_catalog(uri))
    with pytest.raises(CatalogError, match=r"catalog_root: .*segment"):
        catalog_root("a.csv", "s3://b/../c")


def test_a_double_parquet_column_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["uri", "uri"]), tmp_path / "a.parquet")
    with pytest.raises(CatalogError, match="'uri' twice"):
        list(read_catalog(str(tmp_path / "a.parquet")))


def test_a_damaged_parquet_page_is_a_catalog_error(tmp_path: Path) -> None:
    data = bytearray(as_parquet([full(uri=f"{n}.png") for n in range(100)]))
    data[4:300] = bytes(296)
    with pytest.raises(CatalogError, match="no sound Parquet file"):
        read(tmp_path, "a.parquet", bytes(data))


def test_rows_before_a_mistake_are_handed_out_first(tmp_path: Path) -> None:
    rows = read_catalog(put(tmp_path, "a.csv", "uri\na\nb,c\n"))
    assert next(rows) == full(uri="a")
    with pytest.raises(CatalogError, match="line 3"):
        next(rows)


def test_the_root_is_the_folder_of_the_catalog_unless_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert catalog_root("s3://b/x/cat.csv") == "s3://b/x"
    assert catalog_root("s3://b/x/cat.parquet/") == "s3://b/x"
    assert catalog_root("s3://b/x/") == "s3://b/x"
    assert catalog_root("cat.csv") == str(tmp_path)
    assert catalog_root(f"file://{tmp_path}/cat/a.jsonl") == f"{tmp_path}/cat"
    assert catalog_root("s3://b/x/cat.csv", "s3://other/y/") == "s3://other/y"
    assert catalog_root("s3://b/x/cat.csv", "images") == f"{tmp_path}/images"
