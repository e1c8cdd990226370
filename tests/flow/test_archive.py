"""The whole path on a real local Ray cluster: catalog in, images and manifest out."""

import csv
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
import ray
import tifffile
from PIL import Image
from ray.data import ActorPoolStrategy

from pipeline import uris
from pipeline.config.load import load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import manifest, storage, upkeep
from pipeline.errors import NotFinished, StorageError
from pipeline.flow import archive, cluster, graph
from pipeline.flow.ledger import Watch, open_ledger
from pipeline.measure.summary import Summary
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.records import Item, Outcome
from pipeline.stages.read import ReadLimits
from pipeline.stages.write import Encoding
from pipeline.training.loop import initial_usrnet

SMALL = Architecture(iterations=2, hidden=8, widths=(8, 8, 8, 8), blocks=1)


@pytest.fixture(scope="module", autouse=True)
def local_ray(s3: str) -> Iterator[None]:
    """Started after the S3 server, so that its workers inherit endpoint and credentials."""
    with cluster.joined():
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_safetensors(initial_usrnet(SMALL, seed=0).state_dict(), path, {})
    return str(path)


GOOD = [
    # name, width, height, scale, sigma, kernel
    ("a/one.png", 20, 31, 2, 2.55, "gaussian(1.2)"),
    ("a/two.jpg", 33, 17, 3, 0, "disk(2)"),
    ("b/three.png", 20, 31, 2, 7.65, "motion(9, 30)"),
    ("b/four.webp", 24, 24, 1, 0, "delta"),
    ("five.tif", 40, 12, 4, 1, "bicubic"),
]
BAD = [
    ("bad/missing.png", "2", "0", "delta", "input-missing"),
    ("bad/empty.png", "2", "0", "delta", "input-empty"),
    ("bad/text.png", "2", "0", "delta", "not-an-image"),
    ("bad/cut.png", "2", "0", "delta", "corrupt-image"),
    ("bad/double.tif", "2", "0", "delta", "unsupported-mode"),
    ("a/one.png", "0", "0", "delta", "bad-scale"),
    ("a/one.png", "2", "-1", "delta", "bad-sigma"),
    ("a/one.png", "2", "0", "gauss(1)", "bad-kernel"),
    ("a/one.png", "2", "0", "nowhere.npy", "bad-kernel"),
    ("a/one.png", "2", "", "delta", "missing-metadata"),
    ("bad/huge.png", "17", "0", "delta", "over-limit"),
]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def make_archive(root: str, folder: Path) -> str:
    """GOOD and BAD images below `root` (any storage); returns the catalog's URI."""
    folder.mkdir(exist_ok=True)
    for number, (name, width, height, *_) in enumerate(GOOD):
        local = folder / Path(name).name
        picture(width, height, number).save(local)
        storage.write_bytes(uris.join(root, name), local.read_bytes())
    storage.write_bytes(uris.join(root, "bad/empty.png"), b"")
    storage.write_bytes(uris.join(root, "bad/text.png"), b"no image at all")
    whole = (folder / "one.png").read_bytes()
    storage.write_bytes(uris.join(root, "bad/cut.png"), whole[: len(whole) // 2])
    tifffile.imwrite(folder / "double.tif", np.zeros((9, 9)))
    storage.write_bytes(uris.join(root, "bad/double.tif"), (folder / "double.tif").read_bytes())
    rows = [(name, str(scale), str(sigma), kernel, name) for name, _, _, scale, sigma, kernel in GOOD]
    rows += [(name, scale, sigma, kernel, f"bad-{n}") for n, (name, scale, sigma, kernel, _) in enumerate(BAD)]
    return write_catalog(uris.join(root, "catalog.csv"), folder, rows)


def write_catalog(uri: str, folder: Path, rows: list[tuple[str, ...]]) -> str:
    with (folder / "catalog.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "scale", "sigma", "kernel", "id"), *rows])
    storage.write_bytes(uri, (folder / "catalog.csv").read_bytes())
    return uri


def config(catalog: str, output: str, weights: str, *overrides: str) -> UpscaleConfig:
    settings = (f"catalog={catalog}", f"output={output}", f"model.weights={weights}", *overrides)
    return load_config(UpscaleConfig, None, settings)


def run(*args: str) -> Summary:
    return archive.restore_archive(config(*args), say=lambda _: None)


@pytest.fixture(scope="module", params=["file", "s3"])
def restored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, weights: str) -> dict[str, str]:
    """An archive that was restored once, on a local folder and on S3."""
    folder = tmp_path_factory.mktemp("archive")
    root = str(folder / "lr") if request.param == "file" else f"{request.getfixturevalue('s3')}/{uuid4().hex}"
    output = uris.join(root, "out")
    catalog = make_archive(root, folder / "scratch")
    summary = run(catalog, output, weights)
    return {"catalog": catalog, "output": output, "weights": weights, "root": root, "run_id": summary.run_id}


def rows_of(output: str) -> dict[str, dict[str, object]]:
    table = manifest.read(output).to_pylist()
    rows = {row["item_id"]: row for row in table}
    assert len(rows) == len(table), "a plain read of a settled manifest shows one row per item"
    return rows


def test_every_item_has_one_row_with_its_outcome(restored: dict[str, str]) -> None:
    rows = rows_of(restored["output"])
    assert len(rows) == len(GOOD) + len(BAD)
    assert {rows[name]["status"] for name, *_ in GOOD} == {"done"}
    for number, (*_, code) in enumerate(BAD):
        assert (rows[f"bad-{number}"]["error_code"], rows[f"bad-{number}"]["status"]) == (code, "failed")
        assert rows[f"bad-{number}"]["error"]


def test_outputs_mirror_the_archive_and_are_what_the_manifest_says(restored: dict[str, str]) -> None:
    rows = rows_of(restored["output"])
    for name, width, height, scale, *_ in GOOD:
        row = rows[name]
        ending = "" if name.endswith(".png") else ".png"
        assert row["sr_uri"] == uris.join(restored["output"], "images", name + ending)
        data = storage.read_bytes(str(row["sr_uri"]))
        assert row["output_bytes"] == len(data)
        assert (row["sr_width"], row["sr_height"]) == (width * scale, height * scale)
        assert row["consistency_rms_255"] is not None
    listed = list(storage.list_files(uris.join(restored["output"], "images")))
    assert len(listed) == len(GOOD)


def test_the_run_record_tells_totals_config_and_versions(restored: dict[str, str]) -> None:
    (uri, *_) = storage.list_files(uris.join(restored["output"], "run"), (".json",))
    record = json.loads(storage.read_bytes(uri))
    assert record["done"] == len(GOOD)
    assert sum(record["failures"].values()) == len(BAD)
    assert record["config"]["model"]["weights"] == restored["weights"]
    assert record["versions"]["ray"] == ray.__version__


def test_a_second_run_does_nothing(restored: dict[str, str]) -> None:
    before = rows_of(restored["output"])
    summary = run(restored["catalog"], restored["output"], restored["weights"])
    assert (summary.done, summary.failed) == (0, 0)
    assert summary.already_done == len(GOOD)
    assert rows_of(restored["output"]) == before


def test_verifying_restores_what_vanished_or_was_altered_and_nothing_else(restored: dict[str, str]) -> None:
    before = rows_of(restored["output"])
    gone, altered = str(before["a/one.png"]["sr_uri"]), str(before["five.tif"]["sr_uri"])
    storage.delete(gone)
    data = storage.read_bytes(altered)
    storage.write_bytes(altered, data[:-1] + bytes([data[-1] ^ 1]))
    said: list[str] = []
    settings = config(restored["catalog"], restored["output"], restored["weights"])
    summary = archive.restore_archive(settings, said.append, verify=True)
    assert (summary.done, summary.already_done) == (2, len(GOOD) - 2)
    assert [line for line in said if gone in line or altered in line] == [
        f"altered: {gone} is gone",
        f"altered: {altered} has other content than the manifest says",
    ]
    assert storage.read_bytes(altered) == data
    after = rows_of(restored["output"])
    assert {name: row["output_sha256"] for name, row in after.items()} == {
        name: row["output_sha256"] for name, row in before.items()
    }


def test_a_run_in_waves_gives_what_a_run_in_one_gives(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad rows, doubles of ids and of output keys among them, and one image too large for the usual path."""
    catalog = make_archive(str(tmp_path), tmp_path / "scratch")
    lines = storage.read_bytes(catalog).decode().splitlines()
    doubles = [f"a/one.png,{n % 3 + 1},0,delta,key-{n}" for n in range(6)] + ["five.tif,2,0,delta,bad-3"]
    storage.write_bytes(catalog, "\n".join([*lines, *doubles]).encode())
    settings = ("restore.unit_items=1", "restore.whole_megapixels=0.006")
    plans: list[int] = []
    restored = archive._restored
    monkeypatch.setattr(
        archive, "_restored", lambda c, plan, *more: plans.append(len(plan.todo)) or restored(c, plan, *more)
    )
    one = run(catalog, str(tmp_path / "one"), weights, *settings)
    assert len(plans) == 1
    said: list[str] = []
    several = archive.restore_archive(
        config(catalog, str(tmp_path / "several"), weights, *settings, "run.wave_items=9"), said.append
    )
    assert len(plans) == 1 + 3, "each of three waves has work"
    assert sum(plans[1:]) == plans[0]
    assert any("in 3 waves" in line for line in said)
    told = ("catalog_items", "already_done", "waiting", "done", "failures", "flagged", "missing", "finished")
    assert [vars(one)[name] for name in told] == [vars(several)[name] for name in told]
    assert one.failures.items() >= {"duplicate-output": 6, "duplicate-id": 1}.items()
    assert timeless(tmp_path / "several") == timeless(tmp_path / "one")
    again = run(catalog, str(tmp_path / "several"), weights, *settings, "run.wave_items=9")
    assert (again.done, again.failed, again.already_done) == (0, 0, one.done)


def timeless(output: Path) -> dict[str, dict[str, object]]:
    """The manifest's rows without times, run, and the place of the output."""
    changing = {"run_id", "written_at", "seconds_read", "seconds_restore", "seconds_write"}
    return {
        item: {k: str(v).replace(str(output), "") for k, v in row.items() if k not in changing}
        for item, row in rows_of(str(output)).items()
    }


def test_rows_that_a_killed_run_left_twice_are_settled_by_a_run_with_nothing_to_do(restored: dict[str, str]) -> None:
    row = next(row for row in manifest.current(restored["output"]).to_pylist() if row["item_id"] == "five.tif")
    fields = {name: value for name, value in row.items() if name in Outcome.__dataclass_fields__}
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    earlier = Outcome(**{**fields, "status": "failed", "run_id": "killed", "written_at": long_ago})
    manifest.write_part(restored["output"], "killed", [earlier])
    assert upkeep.doubled(restored["output"]) == ["five.tif"]
    summary = run(restored["catalog"], restored["output"], restored["weights"])
    assert (summary.done, summary.already_done) == (0, len(GOOD))
    assert upkeep.doubled(restored["output"]) == []


@pytest.mark.parametrize(
    "error",
    [ray.exceptions.OutOfMemoryError("the node is full"), StorageError("storage-transient", "s3://b/x: 503")],
)
def test_verifying_that_is_cut_short_ends_in_one_line_and_can_be_taken_up_again(
    error: Exception, restored: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(archive, "forget_altered", fail)
    settings = config(restored["catalog"], restored["output"], restored["weights"])
    with pytest.raises(NotFinished, match="verified; run again"):
        archive.restore_archive(settings, lambda _: None, verify=True)


def test_a_hanging_item_has_time_to_fail_before_the_run_is_given_up() -> None:
    settings = config("c.csv", "out", "w.pth", "write.seconds=5000")
    assert archive._stall_seconds(settings) == 15_000
    assert archive._stall_seconds(config("c.csv", "out", "w.pth", "run.stall_seconds=60")) == 60


def test_one_changed_sigma_restores_just_that_item(s3_prefix: str, weights: str, tmp_path: Path) -> None:
    catalog, output = make_archive(s3_prefix, tmp_path / "scratch"), uris.join(s3_prefix, "out")
    run(catalog, output, weights)
    text = storage.read_bytes(catalog).decode().replace("a/one.png,2,2.55", "a/one.png,2,5.1")
    storage.write_bytes(catalog, text.encode())
    summary = run(catalog, output, weights)
    assert (summary.done, summary.already_done) == (1, len(GOOD) - 1)
    assert rows_of(output)["a/one.png"]["sigma"] == 5.1


def test_a_deleted_manifest_part_is_redone_exactly(s3_prefix: str, weights: str, tmp_path: Path) -> None:
    catalog, output = make_archive(s3_prefix, tmp_path / "scratch"), uris.join(s3_prefix, "out")
    run(catalog, output, weights, "restore.unit_items=1")
    parts = {
        uri: manifest.pq.read_table(manifest.io.BytesIO(storage.read_bytes(uri))) for uri in manifest.parts(output)
    }
    uri = next(uri for uri, table in parts.items() if table["item_id"].to_pylist() == ["b/three.png"])
    storage.delete(uri)
    summary = run(catalog, output, weights)
    assert (summary.done, summary.already_done) == (1, len(GOOD) - 1)
    assert rows_of(output)["b/three.png"]["status"] == "done"


def test_read_and_write_workers_never_load_torch(restored: dict[str, str]) -> None:
    """Asked in the worker itself, right after it ran its stage."""

    # Defined in here so that they travel by value: this file itself imports torch.
    def read(unit: pa.Table, limits: ReadLimits, watch: Watch) -> pa.Table:
        return with_torch(graph._read_unit(unit, limits, watch))

    def write(unit: pa.Table, **settings: object) -> pa.Table:
        work = graph._write_unit(unit.drop_columns("torch"), **settings)
        return with_torch(work)

    def with_torch(table: pa.Table) -> pa.Table:
        loaded = [work for work in sys.modules if work == "torch"]
        return table.append_column("torch", pa.array([bool(loaded)] * len(table)))

    output = uris.join(restored["root"], "probe")
    items = [Item("a", uris.join(restored["root"], "a/one.png"), "a", 2, 0.0, "delta", "center")]
    settings: dict[str, Any] = {"output": output, "encoding": Encoding("png"), "run_id": "r", "software": "s"}
    ledger = open_ledger(2)
    reading = {"limits": ReadLimits(10**6, 10**6, 64), "watch": Watch(ledger, "read", 60)}
    ds = graph._one_block_each([items])
    ds = graph._whole_blocks(ds, read, fn_kwargs=reading, num_cpus=0.5)
    (row,) = ds.take_all()
    assert (row["torch"], row["outcome"]["status"]) == (False, "")
    settings |= {"attempts": ray.put({}), "watch": Watch(ledger, "write", 60)}
    ds = graph._whole_blocks(ds, write, fn_kwargs=settings, num_cpus=0.25)
    (row,) = ds.take_all()
    assert (row["torch"], row["status"]) == (False, "done")


def test_one_block_reaches_one_call_of_a_replica() -> None:
    """With whole units of unlike sizes, whatever Ray would like to bundle."""
    units = [[item(f"{u}-{n}") for n in range(count)] for u, count in enumerate((1, 5, 2, 7, 1))]
    ds = graph._whole_blocks(graph._one_block_each(units), Sizes, num_cpus=0.5, compute=ActorPoolStrategy(size=1))
    assert sorted(row["rows"] for row in ds.take_all()) == [1, 1, 2, 5, 7]


class Sizes:
    def __call__(self, unit: pa.Table) -> pa.Table:
        return pa.table({"rows": [len(unit)]})


def item(name: str) -> Item:
    return Item(name, name, name, 2, 0.0, "delta", "center")


def test_an_empty_catalog_is_a_finished_run(tmp_path: Path, weights: str) -> None:
    catalog = write_catalog(str(tmp_path / "catalog.csv"), tmp_path, [])
    summary = run(catalog, str(tmp_path / "out"), weights)
    assert summary.finished
    assert summary.attempted == 0


def test_deep_large_and_same_named_images_in_one_run(tmp_path: Path, weights: str) -> None:
    """16 bits stay, `same` keeps the name's format, and what is too large goes by windows to a tiled TIFF."""
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (24, 20, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "known.tif", rng.integers(0, 65536, (96, 130), dtype=np.uint16), tile=(32, 32))
    for name in ("photo.jpg", "found.png"):
        shape = (90, 120, 3) if name == "found.png" else (24, 20, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
    rows = [("deep.tif", "", ""), ("photo.jpg", "", ""), ("known.tif", "130", "96"), ("found.png", "", "")]
    with (tmp_path / "catalog.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "width", "height"), *rows])
    output, catalog = str(tmp_path / "out"), str(tmp_path / "catalog.csv")
    settings = ("defaults.scale=2", "defaults.sigma=2", "defaults.kernel=delta", "encode.format=same")
    summary = run(catalog, output, weights, *settings, "restore.whole_megapixels=0.03")
    assert (summary.done, summary.failed, summary.missing) == (4, 0, 0)
    rows_by_name = {str(row["uri"]).rsplit("/", 1)[1]: row for row in manifest.read(output).to_pylist()}
    assert len(rows_by_name) == 4
    endings = {name: str(row["sr_uri"]).rsplit("/", 1)[1] for name, row in rows_by_name.items()}
    assert endings == {
        "deep.tif": "deep.tif", "photo.jpg": "photo.jpg", "known.tif": "known.tif", "found.png": "found.png.tif",
    }  # fmt: skip
    for name, shape, dtype in (("deep.tif", (48, 40, 3), "uint16"), ("known.tif", (192, 260), "uint16"),
                               ("found.png", (180, 240, 3), "uint8")):  # fmt: skip
        result = tifffile.imread(str(rows_by_name[name]["sr_uri"]))
        assert (result.shape, result.dtype.name) == (shape, dtype)
    assert 0 < rows_by_name["known.tif"]["consistency_rms_255"] < 10, "windows are accounted for as well"
    assert run(catalog, output, weights, *settings, "restore.whole_megapixels=0.03").already_done == 4
