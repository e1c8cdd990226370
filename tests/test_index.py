"""A prefix becomes a catalog; the second time only what changed is read and written."""

import io
import json
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import uris
from pipeline.data import catalog_parts, lease, peek, sidecars, storage
from pipeline.data.catalog import read_catalog
from pipeline.errors import CatalogError, ItemError, LeaseHeld, StorageError
from pipeline.index import Indexed, index
from pipeline.resolve import Defaults, Limits, resolve

LIMITS = Limits(scale=16, kernel=64, lr_pixels=10**6, bytes=10**6)


def png(width: int, height: int = 5) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def put(root: str, name: str, data: bytes | dict[str, object]) -> None:
    storage.write_bytes(uris.join(root, name), data if isinstance(data, bytes) else json.dumps(data).encode())


def indexed(root: str, **changes: object) -> Indexed:
    options = {"defaults": {"sigma": 2.55}, "endings": [".png", ".tif"], "readers": 4, **changes}
    return index(uris.join(root, "in"), uris.join(root, "catalog"), **options)  # type: ignore[arg-type]


def rows(root: str) -> dict[str, dict[str, object]]:
    found = list(read_catalog(uris.join(root, "catalog")))
    assert [row["uri"] for row in found] == list(dict.fromkeys(row["uri"] for row in found)), "no image twice"
    return {str(row["uri"])[len(uris.join(root, "in")) + 1 :]: row for row in found}


@pytest.fixture(params=["file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else str(request.getfixturevalue("s3_prefix"))


class Reads:
    """URIs of what was opened."""

    def __init__(self) -> None:
        self.sidecars: list[str] = []
        self.headers: list[str] = []


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    found, whole, part = Reads(), storage.read_bytes, storage.read_range

    def read_bytes(uri: str, **options: int) -> bytes:
        if uri.endswith(".json") and "catalog" not in uri:
            found.sidecars.append(uri.rsplit("/", 1)[-1])
        return whole(uri, **options)

    def read_range(uri: str, start: int, length: int) -> bytes:
        found.headers.append(uri.rsplit("/", 1)[-1])
        return part(uri, start, length)

    monkeypatch.setattr(sidecars.storage, "read_bytes", read_bytes)
    monkeypatch.setattr(peek.storage, "read_range", read_range)
    return found


def test_values_come_from_the_sidecar_else_the_defaults_and_say_so(root: str) -> None:
    put(root, "in/a.png", png(7))
    put(root, "in/a.png.json", {"scale": 3, "kernel": "disk(2)"})
    put(root, "in/sub/b.png", png(9))
    put(root, "in/notes.txt", b"no image")
    result = indexed(root, headers=True)
    assert (result.images, result.new, result.sidecars_read, result.headers_read) == (2, 2, 1, 2)
    a, b = rows(root)["a.png"], rows(root)["sub/b.png"]
    assert (a["scale"], a["kernel"], a["sigma"], a["width"], a["height"]) == (3, "disk(2)", 2.55, 7, 5)
    assert (b["scale"], b["sigma"]) == (None, 2.55)
    defaults = Defaults(scale=2, kernel="delta")
    one, two = (resolve(row, defaults=defaults, root=root, limits=LIMITS) for row in (a, b))
    assert (one.scale_source, one.kernel_source, one.sigma_source, one.phase_source) == (
        "sidecar",
        "sidecar",
        "default",
        "default",
    )
    assert (two.scale_source, two.sigma_source, two.width) == ("default", "default", 9)
    assert a["etag"] == storage.stat(uris.join(root, "in/a.png")).etag


def test_the_second_time_only_what_is_new_or_changed_is_read(root: str, reads: Reads) -> None:
    for n in range(40):
        put(root, f"in/{n % 3}/{n:02}.png", png(5 + n))
        put(root, f"in/{n % 3}/{n:02}.json", {"scale": 2})
    indexed(root, headers=True)
    first = rows(root)
    reads.sidecars.clear()
    reads.headers.clear()
    put(root, "in/0/03.png", png(88))
    put(root, "in/1/04.json", {"scale": 4, "kernel_values": [[1, 2], [3, 4]]})
    put(root, "in/new.png", png(3))
    storage.delete(uris.join(root, "in/2/05.png"))
    storage.delete(uris.join(root, "in/0/06.json"))
    result = indexed(root, headers=True)
    assert (result.new, result.changed, result.gone, result.unchanged) == (1, 3, 1, 36)
    assert sorted(set(reads.sidecars)) == ["04.json"]
    assert sorted(set(reads.headers)) == ["03.png", "new.png"]
    second = rows(root)
    assert second["0/03.png"]["width"] == 88
    assert (second["1/04.png"]["scale"], second["1/04.png"]["kernel_values"]) == (4, [[1.0, 2.0], [3.0, 4.0]])
    assert second["0/06.png"]["scale"] is None
    assert "2/05.png" not in second
    touched = {"0/03.png", "1/04.png", "new.png", "0/06.png", "2/05.png"}
    assert {k: v for k, v in second.items() if k not in touched} == {k: v for k, v in first.items() if k not in touched}


def test_a_third_time_with_nothing_new_writes_nothing(root: str) -> None:
    put(root, "in/a.png", png(4))
    put(root, "in/a.json", {"sigma": 5, "kernel_values": [[1.0]], "id": "x"})
    indexed(root)
    before = rows(root)
    result = indexed(root)
    assert (result.unchanged, result.sidecars_read, result.parts_written) == (1, 0, 0)
    assert rows(root) == before
    assert before["a.png"]["kernel_source"] == "sidecar"


def test_new_defaults_reach_old_rows_without_reading(root: str, reads: Reads) -> None:
    put(root, "in/a.png", png(4))
    put(root, "in/a.json", {"sigma": 5})
    put(root, "in/b.png", png(4))
    indexed(root)
    reads.sidecars.clear()
    indexed(root, defaults={"sigma": 9.0, "scale": 2})
    found = rows(root)
    assert (found["a.png"]["sigma"], found["b.png"]["sigma"], found["b.png"]["scale"]) == (5.0, 9.0, 2)
    assert not reads.sidecars


@pytest.mark.parametrize("sidecar", [b"{", {"scale": 1.5}, {"sigma": -1}, {"kernel": 3}, {"kernel_values": [[0]]}])
def test_a_bad_sidecar_makes_its_image_fail_and_no_default_hides_it(tmp_path: Path, sidecar: bytes) -> None:
    root = str(tmp_path)
    put(root, "in/a.png", png(4))
    put(root, "in/a.json", sidecar)
    for _ in range(2):
        result = indexed(root, defaults={"scale": 2, "sigma": 0.0, "kernel": "delta"})
        assert result.bad == 1
        with pytest.raises(ItemError, match=r"a\.json") as error:
            resolve(rows(root)["a.png"], defaults=Defaults(), root=root, limits=LIMITS)
        assert error.value.code == "bad-metadata"


def test_each_page_of_a_tiff_is_a_row(tmp_path: Path) -> None:
    root, file = str(tmp_path), io.BytesIO()
    page = Image.fromarray(np.zeros((4, 6), np.uint8))
    page.save(file, "TIFF", save_all=True, append_images=[page, page])
    put(root, "in/a.tif", file.getvalue())
    for _ in range(2):
        assert indexed(root, headers=True).rows == 3
        found = list(read_catalog(f"{root}/catalog"))
        assert [(row["page"], row["width"]) for row in found] == [(0, 6), (1, None), (2, None)]


def test_excluded_paths_are_left_out(tmp_path: Path) -> None:
    root = str(tmp_path)
    for name in ("a.png", "restored/images/a.png", "x/restored/b.png"):
        put(root, f"in/{name}", png(4))
    indexed(root, exclude=["restored/*"])
    assert list(rows(root)) == ["a.png", "x/restored/b.png"]


def test_an_image_that_cannot_be_read_stays_for_the_run_to_judge(tmp_path: Path, reads: Reads) -> None:
    root = str(tmp_path)
    put(root, "in/a.png", b"no image")
    indexed(root, headers=True)
    reads.headers.clear()
    assert indexed(root, headers=True).unchanged == 1
    assert not reads.headers
    assert rows(root)["a.png"]["width"] is None


def test_a_change_in_a_large_catalog_rewrites_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_parts, "_USUAL_ROWS", 16)
    root = str(tmp_path)
    for n in range(300):
        put(root, f"in/{n:03}.png", b"x")
    assert indexed(root).parts > 5
    put(root, "in/1234.png", b"x")
    put(root, "in/200.png", b"other")
    result = indexed(root)
    assert 1 <= result.parts_written <= 2
    assert len(rows(root)) == 301


def files_and_superseded(root: str) -> tuple[set[str], set[str]]:
    """Names of the Parquet files in the catalog's folder, and of those that are no longer in force."""
    state = catalog_parts.state(f"{root}/catalog") or {}
    files = {uri.rsplit("/", 1)[-1] for uri in storage.list_files(f"{root}/catalog", (".parquet",))}
    assert files == {*state["parts"], *state["superseded"]}
    return files, set(state["superseded"])


def test_who_began_to_read_before_a_change_reads_on_and_before_two_is_told(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_parts, "_USUAL_ROWS", 4)
    for n in range(40):
        put(root, f"in/{n:02}.png", png(4))
    indexed(root)
    before = list(read_catalog(uris.join(root, "catalog")))
    slow, slower = (read_catalog(uris.join(root, "catalog")) for _ in range(2))
    first = [next(slow), next(slower)]
    for n in range(40):
        put(root, f"in/{n:02}.png", png(5))
    indexed(root)
    _, superseded = files_and_superseded(root)
    assert superseded
    assert indexed(root).parts_written == 0
    assert files_and_superseded(root)[1] == superseded, "nothing changed"
    assert [first[0], *slow] == before
    for n in range(40):
        put(root, f"in/{n:02}.png", png(6))
    indexed(root)
    assert not files_and_superseded(root)[0] & superseded
    with pytest.raises(StorageError, match="indexed twice while it was read") as error:
        list(slower)
    assert error.value.code == "storage-transient"


def test_of_two_indexings_at_once_one_works_and_the_other_says_so(root: str) -> None:
    for n in range(3):
        put(root, f"in/{n}.png", png(4))
    begun, go_on, results = threading.Event(), threading.Event(), []

    def wait(_: Indexed) -> None:
        begun.set()
        assert go_on.wait(60)

    first = threading.Thread(target=lambda: results.append(indexed(root, lease_seconds=2.0, seen=wait)))
    first.start()
    try:
        assert begun.wait(60)
        with pytest.raises(LeaseHeld, match=r"catalog .* is being written: run index-"):
            indexed(root, lease_seconds=2.0, say=lambda _: None)
    finally:
        go_on.set()
        first.join()
    assert [result.new for result in results] == [3]
    assert indexed(root, say=lambda words: pytest.fail(words)).unchanged == 3, "the lease was given back"


def test_an_indexing_that_was_taken_for_dead_changes_nothing(tmp_path: Path) -> None:
    root = str(tmp_path)
    put(root, "in/a.png", png(4))
    indexed(root)
    before = (tmp_path / "catalog" / catalog_parts.STATE).read_bytes()
    put(root, "in/b.png", png(4))

    def taken_over(_: Indexed) -> None:
        other = lease.Record("another's", "index-2", "elsewhere", 1, 60.0)
        put(root, "catalog/run/lease/000009.json", asdict(other))
        time.sleep(0.5)  # five heartbeats

    with pytest.raises(LeaseHeld, match="index-2 on elsewhere"):
        indexed(root, lease_seconds=0.4, seen=taken_over)
    assert (tmp_path / "catalog" / catalog_parts.STATE).read_bytes() == before


def test_an_indexing_that_broke_off_leaves_the_old_catalog_in_force(tmp_path: Path) -> None:
    root = str(tmp_path)
    for n in range(3):
        put(root, f"in/{n}.png", b"x")
    indexed(root)
    before = rows(root)
    put(root, "in/3.png", b"x")

    class StoppedError(Exception):
        pass

    def stop(result: Indexed) -> None:
        if result.images == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        indexed(root, seen=stop)
    assert rows(root) == before
    storage.write_bytes(f"{root}/catalog/part-orphan.parquet", b"left over")
    assert indexed(root).new == 1
    assert not storage.exists(f"{root}/catalog/part-orphan.parquet")
    assert len(rows(root)) == 4


def test_another_prefix_is_indexed_from_scratch(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(str(tmp_path), f"{name}/in/a.png", b"x")
    options = {"defaults": {}, "endings": [".png"]}
    index(f"{tmp_path}/one/in", f"{tmp_path}/catalog", **options)  # type: ignore[arg-type]
    result = index(f"{tmp_path}/two/in", f"{tmp_path}/catalog", **options)  # type: ignore[arg-type]
    assert (result.new, result.gone) == (1, 0)
    assert [row["uri"] for row in read_catalog(f"{tmp_path}/catalog")] == [f"{tmp_path}/two/in/a.png"]


def test_an_archive_that_vanished_does_not_empty_its_catalog(root: str) -> None:
    put(root, "in/a.png", png(4))
    indexed(root)
    storage.delete(uris.join(root, "in/a.png"))
    with pytest.raises(CatalogError, match="are gone"):
        indexed(root)
    assert list(rows(root)) == ["a.png"]


def test_a_prefix_that_is_an_object_is_refused_and_an_empty_one_is_an_empty_catalog(root: str) -> None:
    assert indexed(root).images == 0
    assert rows(root) == {}
    put(root, "in", b"x")
    with pytest.raises(CatalogError, match="not a folder"):
        indexed(root)
