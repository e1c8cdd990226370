"""The tables on a real local Ray cluster: figures, restart, what they are kept under."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.load import load_config
from pipeline.data import storage
from pipeline.errors import ConfigError, WeightsError
from pipeline.flow import cluster
from pipeline.flow import evaluate as job
from pipeline.measure.paper import table1_cell, table2_scores
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)


@pytest.fixture(scope="module", autouse=True)
def local_ray(s3: str) -> Iterator[None]:
    with cluster.joined():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two HR images, two kernels, the weights of an untrained network."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    (folder / "hr").mkdir()
    (folder / "hr" / "notes.txt").write_text("not an image")
    for name in ("a.png", "b.PNG"):
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(folder / "hr" / name)
    kernels = rng.random((2, 5, 5))
    np.savez(folder / "k.npz", both=kernels / kernels.sum(axis=(1, 2), keepdims=True))
    save_safetensors(initial_usrnet(SMALL, seed=0).state_dict(), folder / "first.safetensors", {})
    return folder


def evaluated(folder: Path, output: str, *more: str) -> tuple[str, list[str]]:
    said: list[str] = []
    settings = [f"images={folder}/hr", f"output={output}", f"weights=[{folder}/first.safetensors]"]
    settings += [f"table1.kernels={folder}/k.npz#both", "table1.scales=[1, 2]", "table1.sigmas=[3]"]
    config = load_config(EvaluateConfig, None, [*settings, "table2.scales=[2]", *more])
    return job.evaluate(config, say=said.append), said


@pytest.fixture(scope="module")
def measured(folder: Path) -> Path:
    """Where both tables are measured already."""
    text, _ = evaluated(folder, str(folder / "measured"))
    assert text == (folder / "measured" / "tables.md").read_text()
    return folder / "measured"


def test_both_tables_hold_the_protocols_figures(folder: Path, measured: Path) -> None:
    text = (measured / "tables.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    hr = [np.asarray(Image.open(folder / "hr" / name)) for name in ("a.png", "b.PNG")]
    kernel = np.load(folder / "k.npz")["both"][1]
    net = initial_usrnet(SMALL, seed=0).requires_grad_(False)
    (line,) = (line for line in lines if line[:3] == ["x2", "3", "2"])
    assert float(line[3]) == pytest.approx(table1_cell(None, hr, kernel, 2, 3.0), abs=0.006)
    assert float(line[4]) == pytest.approx(table1_cell(net, hr, kernel, 2, 3.0), abs=0.006)
    scores = [table2_scores(net, image, 2) for image in hr]
    assert float(lines[-1][2]) == pytest.approx(np.mean([s.psnr_y_db for s in scores]), abs=0.006)
    assert float(lines[-1][4]) == pytest.approx(np.mean([s.ssim_y for s in scores]), abs=0.0001)
    query = f"select method, count(*) from read_parquet('{measured}/cells/*.parquet') group by method order by method"
    assert duckdb.sql(query).fetchall() == [("bicubic", 10), ("first", 10)]


def test_it_goes_on_where_it_stopped_on_s3(folder: Path, s3_prefix: str) -> None:
    first, said = evaluated(folder, s3_prefix)
    assert said[0] == "10 cells over 2 images: 0 done already"
    parts = list(storage.list_files(f"{s3_prefix}/cells"))
    times = {uri: storage.stat(uri).etag for uri in parts}
    for uri in parts[:3]:
        storage.delete(uri)
    again, said = evaluated(folder, s3_prefix)
    assert said[0] == "10 cells over 2 images: 7 done already"
    assert again == first
    assert set(storage.list_files(f"{s3_prefix}/cells")) == set(times)
    assert {uri: storage.stat(uri).etag for uri in parts[3:]} == {uri: times[uri] for uri in parts[3:]}
    assert evaluated(folder, s3_prefix)[1] == ["10 cells over 2 images: 10 done already"]


def test_other_noise_kernels_or_weights_are_other_cells(folder: Path, measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    other = folder / "second.safetensors"
    save_safetensors(initial_usrnet(SMALL, seed=1).state_dict(), other, {})
    _, said = evaluated(folder, str(tmp_path), f"weights=[{other}]")
    assert said[0] == "10 cells over 2 images: 5 done already", "bicubic's"
    _, said = evaluated(folder, str(tmp_path), "table1.sigmas=[4]")
    assert said[0] == "10 cells over 2 images: 2 done already", "those of Table 2"
    renamed = folder / "third.safetensors"
    renamed.write_bytes((folder / "first.safetensors").read_bytes())
    text, said = evaluated(folder, str(tmp_path), f"weights=[{renamed}]")
    assert said[0] == "10 cells over 2 images: 10 done already"
    assert "third PSNR" in text


def test_published_figures_stand_beside(folder: Path, measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    storage.write_bytes(
        f"{tmp_path}/p.json", json.dumps({"rows": {"x1_noise3": [99.99, 88.88], "x2_noise3": [77.77]}}).encode()
    )
    text, _ = evaluated(folder, str(tmp_path), f"published={tmp_path}/p.json", "table2.scales=[]")
    assert "| 99.99 |" in text
    assert "| 88.88 |" in text
    assert "77.77" not in text, "one figure for two kernels is nobody's"


@pytest.mark.parametrize(
    ("setting", "error", "says"),
    [
        ("images=/nowhere", ConfigError, "there is no image in /nowhere"),
        ("table1.kernels=/nowhere.npz#a", ConfigError, "table1.kernels: .*nowhere"),
        ("table1.kernels={folder}/k.npz#neither", ConfigError, "neither"),
        ("table2.kernels={folder}/k.npz#x{{scale}}", ConfigError, "x2"),
        ("weights=[nowhere.pth]", WeightsError, "nowhere.pth"),
        ("weights=[{folder}/k.npz]", WeightsError, "k.npz"),
        ("published=/nowhere.json", ConfigError, "published"),
        ("table1.scales=[two]", ConfigError, "table1.scales"),
    ],
)
def test_a_wrong_setting_is_named_before_any_work(
    folder: Path, tmp_path: Path, setting: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        evaluated(folder, str(tmp_path), setting.format(folder=folder))


def test_damaged_images_are_named(folder: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(file, "PNG")
    storage.write_bytes(f"{tmp_path}/hr/cut.png", file.getvalue()[:50])
    with pytest.raises(ConfigError, match=r"cut\.png"):
        evaluated(folder, str(tmp_path), f"images={tmp_path}/hr")


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.zeros((40, 40, 3), np.uint16), "samples of uint16"),
        (np.zeros((20, 40, 3), np.uint8), "need 24 on each side"),
    ],
)
def test_images_that_the_tables_are_not_made_for_are_named(tmp_path: Path, pixels: np.ndarray, problem: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    config = EvaluateConfig.model_validate(
        {
            "images": str(tmp_path),
            "output": "out",
            "table1": {"scales": [3], "kernels": "k.npz"},
            "table2": {"scales": []},
        }
    )
    with pytest.raises(ConfigError, match=rf"a\.tif .*{problem}"):
        job._inputs(config)
