"""A plan with its cost, on a real local Ray cluster, against the run that follows it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.load import load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import manifest
from pipeline.errors import ConfigError
from pipeline.flow import archive, cluster
from pipeline.flow.forecast import as_json, forecast_archive
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with cluster.joined():
        yield


def configured(folder: Path, *overrides: str) -> UpscaleConfig:
    net = initial_usrnet(Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1), seed=0)
    save_safetensors(net.state_dict(), folder / "small.safetensors", {})
    catalog, out, weights = folder / "catalog.csv", folder / "out", folder / "small.safetensors"
    return load_config(
        UpscaleConfig, None, [f"catalog={catalog}", f"output={out}", f"model.weights={weights}", *overrides]
    )


def write_archive(folder: Path, good: int) -> None:
    """Half of the sound rows say their size; two rows cannot work, two will fail."""
    rng, rows = np.random.default_rng(0), ["uri,scale,sigma,kernel,width,height,id"]
    for n in range(good):
        w, h = (int(side) for side in rng.integers(20, 60, 2))
        coarse = Image.fromarray(rng.integers(0, 255, (h // 4, w // 4, 3), dtype=np.uint8))
        coarse.resize((w, h), Image.Resampling.BICUBIC).save(folder / f"{n}.png")
        rows.append(f"{n}.png,{1 + n % 3},0,delta,{f'{w},{h}' if n % 2 else ','},good-{n}")
    (folder / "text.png").write_text("no image")
    rows += ["gone.png,2,0,delta,,,gone", "text.png,2,0,delta,,,text", "0.png,0,0,delta,,,scale"]
    (folder / "catalog.csv").write_text("\n".join([*rows, "0.png,2,0,box(1),,,kernel"]))


def test_counts_are_exact_bytes_near_and_nothing_is_written(tmp_path: Path) -> None:
    write_archive(tmp_path, 30)
    config = configured(tmp_path, "plan.seconds=60", "plan.price_per_hour=2")
    plan = forecast_archive(config, say=lambda _: None)
    assert not (tmp_path / "out").exists()
    assert (plan.catalog_items, plan.done, plan.todo) == (34, 0, 32)
    assert plan.invalid == {"bad-scale": 1, "bad-kernel": 1}
    assert plan.unreadable == {"input-missing": 1, "not-an-image": 1}
    assert plan.sizes == {"from the catalog": 15, "from headers": 15, "guessed": 0}
    assert plan.cost == pytest.approx(2 * plan.device_hours)
    assert plan.seconds > plan.seconds_startup > 0
    assert (plan.replica_memory_bytes or 0) > 5e7, "a process with torch in it"

    summary = archive.restore_archive(config, say=lambda _: None)
    assert (summary.done, summary.failures) == (30, plan.invalid | plan.unreadable)
    assert plan.hr_megapixels == pytest.approx(summary.hr_megapixels)
    rows = [row for row in manifest.current(str(tmp_path / "out")).to_pylist() if row["status"] == "done"]
    assert plan.bytes_out == pytest.approx(sum(row["output_bytes"] for row in rows), rel=0.25)
    assert plan.bytes_in == pytest.approx(sum(row["input_bytes"] for row in rows), rel=0.25)

    again = forecast_archive(config, say=lambda _: None)
    assert (again.done, again.waiting, again.todo, again.cells) == (30, 4, 0, [])
    assert json.loads(as_json(again))["seconds"] == 0.0

    changed = configured(tmp_path, "plan.rates=manifest", "encode.format=tiff")
    by_manifest = forecast_archive(changed, say=lambda _: None)
    assert by_manifest.todo == 32
    assert by_manifest.measured == f"run {summary.run_id}, 30 items"
    assert by_manifest.seconds_restore == pytest.approx(sum(row["seconds_restore"] for row in rows), rel=0.5)

    waves = configured(tmp_path, "plan.rates=manifest", "encode.format=tiff", "run.wave_items=9")
    in_waves = forecast_archive(waves, say=lambda _: None)
    own = ("units", "seconds", "seconds_startup", "replicas_busy", "device_hours", "cost")  # each wave cuts its own
    for name, expected in vars(by_manifest).items():
        if name not in own:
            found = vars(in_waves)[name]
            assert found == (pytest.approx(expected) if isinstance(expected, float) else expected), name


def test_images_above_the_limit_are_counted_apart_and_measured_by_windows(tmp_path: Path) -> None:
    """Two of 0.36 HR MP where whole images end at 0.2; the sizes of one stand in the catalog."""
    write_archive(tmp_path, 6)
    coarse = np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((300, 300), Image.Resampling.BICUBIC)
    for name in ("large.png", "large.tif"):
        large.save(tmp_path / name)
    with (tmp_path / "catalog.csv").open("a") as file:
        file.write("\nlarge.png,2,0,delta,300,300,p\nlarge.tif,2,0,delta,,,t\n")
    config = configured(tmp_path, "plan.seconds=60", "restore.whole_megapixels=0.2")
    plan = forecast_archive(config, say=lambda _: None)
    assert (plan.large, plan.large_hr_megapixels) == (2, pytest.approx(0.72))
    (cell,) = [cell for cell in plan.cells if cell.bucket == "by windows"]
    assert cell.items == 2
    assert plan.scratch_bytes > 3 * 0.36e6

    archive.restore_archive(config, say=lambda _: None)
    rows = manifest.current(str(tmp_path / "out")).to_pylist()
    written = {row["item_id"]: row["output_bytes"] for row in rows if row["item_id"] in ("p", "t")}
    assert cell.bytes_out == pytest.approx(sum(written.values()), rel=0.25)
    assert {row["item_id"] for row in rows if (row["sr_uri"] or "").endswith((".png.tif", "large.tif"))} == {"p", "t"}

    by_manifest = configured(tmp_path, "plan.rates=manifest", "restore.whole_megapixels=0.2", "encode.format=tiff")
    again = forecast_archive(by_manifest, say=lambda _: None)
    (cell,) = [cell for cell in again.cells if cell.bucket == "by windows"]
    assert cell.bytes_out == pytest.approx(sum(written.values()))


def test_a_manifest_without_these_weights_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"plan\.rates=measure"):
        forecast_archive(configured(tmp_path, "plan.rates=manifest"), say=lambda _: None)
