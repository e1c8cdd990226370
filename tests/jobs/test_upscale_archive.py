"""The main job as a person runs it: a process of its own, real storage, real Ray."""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from jobs import program
from jobs.upscale_archive import main
from pipeline import uris
from pipeline.data import manifest, storage
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.plan import bucket_of
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]
JOB = str(ROOT / "jobs" / "upscale_archive.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    architecture = Architecture(iterations=2, hidden=8, widths=(8, 8, 8, 8), blocks=1)
    save_safetensors(initial_usrnet(architecture, seed=0).state_dict(), path, {})
    return str(path)


def job(*arguments: str, limit: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, JOB, *arguments], capture_output=True, text=True, timeout=limit, check=False)


def png(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_archive(root: str, count: int, bad: list[tuple[str, ...]] = (), **size: int) -> str:
    """`count` sound images with mixed settings and the rows of `bad`; returns the catalog's URI."""
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(("uri", "scale", "sigma", "kernel", "id"))
    kernels = ("gaussian(1.2)", "disk(2)", "motion(7, 30)", "delta")
    for n in range(count):
        name = f"{'abc'[n % 3]}/{n:03}.png"
        storage.write_bytes(
            uris.join(root, name), png(size.get("width", 16 + n % 9), size.get("height", 14 + n % 7), n)
        )
        rows.writerow((name, 1 + n % 4, n % 3, kernels[n % 4], f"good-{n}"))
    rows.writerows(bad)
    catalog = uris.join(root, "catalog.csv")
    storage.write_bytes(catalog, table.getvalue().encode())
    return catalog


TEN_BAD = [
    ("gone.png", "2", "0", "delta", "bad-0"),
    ("empty.png", "2", "0", "delta", "bad-1"),
    ("text.png", "2", "0", "delta", "bad-2"),
    ("cut.png", "2", "0", "delta", "bad-3"),
    ("ink.jpg", "2", "0", "delta", "bad-4"),
    ("a/000.png", "1.5", "0", "delta", "bad-5"),
    ("a/000.png", "2", "nan", "delta", "bad-6"),
    ("a/000.png", "2", "0", "box(3)", "bad-7"),
    ("a/000.png", "99", "0", "delta", "bad-8"),
    ("a/000.png", "2", "0", "gone.npy", "bad-9"),
]
CODES = [
    "input-missing",
    "input-empty",
    "not-an-image",
    "corrupt-image",
    "unsupported-mode",
    "bad-scale",
    "bad-sigma",
    "bad-kernel",
    "over-limit",
    "bad-kernel",
]


def test_seventy_items_on_s3_ten_of_them_bad_each_have_one_row(s3: str, s3_prefix: str, weights: str) -> None:
    for name, data in {
        "empty.png": b"",
        "text.png": b"<html>not found</html>",
        "cut.png": png(40, 40, 0)[:900],
    }.items():
        storage.write_bytes(uris.join(s3_prefix, name), data)
    ink = io.BytesIO()
    Image.new("CMYK", (9, 9)).save(ink, "JPEG")  # without a profile, nobody knows its colours
    storage.write_bytes(uris.join(s3_prefix, "ink.jpg"), ink.getvalue())
    catalog = write_archive(s3_prefix, 60, TEN_BAD)
    output = f"s3://unfold-out/{s3_prefix.rsplit('/', 1)[-1]}"
    shown = job(f"catalog={catalog}", f"output={output}", f"model.weights={weights}")
    assert shown.returncode == 3, shown.stderr
    assert "70 in the catalog = 0 done before + 0 failed before + 60 done now + 10 failed now" in shown.stdout
    rows = read_with_duckdb(output)
    assert len(rows) == 70
    assert {row[0] for row in rows if row[1] == "done"} == {f"good-{n}" for n in range(60)}
    assert {row[0]: row[2] for row in rows if row[1] == "failed"} == {f"bad-{n}": c for n, c in enumerate(CODES)}
    assert all(storage.exists(row[3]) for row in rows if row[1] == "done")
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in shown.stdout + shown.stderr


def read_with_duckdb(output: str) -> list[tuple[str, str, str | None, str]]:
    """Item, status, error code and result, read from S3 the way a user would: fsspec below DuckDB."""
    import fsspec

    connection = duckdb.connect()
    connection.register_filesystem(fsspec.filesystem("s3", use_listings_cache=False))
    query = f"select item_id, status, error_code, sr_uri from read_parquet('{output}/manifest/*.parquet')"
    return connection.sql(query).fetchall()


@pytest.mark.slow
@pytest.mark.parametrize(("wave_items", "parts"), [(10**6, 4), (14, 17)], ids=["one wave", "in the second of three"])
def test_killed_half_way_the_next_run_restores_only_what_was_missing(
    tmp_path: Path, weights: str, wave_items: int, parts: int
) -> None:
    catalog, output = write_archive(str(tmp_path / "lr"), 40, width=40, height=40), str(tmp_path / "out")
    settings = (f"catalog={catalog}", f"output={output}", f"model.weights={weights}")
    settings += ("restore.unit_items=1", "run.lease_seconds=3", f"run.wave_items={wave_items}")
    process = subprocess.Popen(
        [sys.executable, JOB, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_parts(output, parts)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kill_leftovers(process.pid)
    before = manifest.read(output).to_pylist()
    assert 0 < len(before) < 40
    if wave_items < 40:
        first = {f"good-{n}" for n in range(40) if bucket_of(f"good-{n}", 3) == 0}
        assert first < {row["item_id"] for row in before}, "the first wave is through and the second is not"
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").rglob("*.png")}
    shown = job(*settings)
    assert shown.returncode == 0, shown.stderr
    assert f"= {len(before)} done before + 0 failed before + {40 - len(before)} done now" in shown.stdout
    rows = manifest.read(output).to_pylist()
    assert sorted(row["item_id"] for row in rows) == sorted(f"good-{n}" for n in range(40))
    assert {row["status"] for row in rows} == {"done"}
    for row in before:
        path = Path(row["sr_uri"])
        assert path.stat().st_mtime_ns == times[path], "what was done is not written again"


def wait_for_parts(output: str, count: int) -> None:
    end = time.monotonic() + 120
    while len(manifest.parts(output)) < count:
        assert time.monotonic() < end, "the job wrote no manifest parts"
        time.sleep(0.1)


def kill_leftovers(group: int) -> None:
    """Ray's workers leave their driver's group; the raylet ends them when the driver is gone. Wait for that."""
    time.sleep(3)


@pytest.mark.slow
def test_ray_job_submit_runs_the_same_file(tmp_path: Path, weights: str) -> None:
    catalog, output = write_archive(str(tmp_path / "lr"), 6), str(tmp_path / "out")
    scripts = Path(sys.executable).parent
    port, dashboard = "46379", "48265"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    environment |= {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}", "PATH": f"{scripts}:{os.environ['PATH']}"}
    sockets = tempfile.mkdtemp(prefix="ray-")  # a socket's path has at most 107 characters
    head = subprocess.Popen(
        [scripts / "ray", "start", "--head", "--block", f"--temp-dir={sockets}", f"--port={port}",
         f"--dashboard-port={dashboard}", "--include-dashboard=true", "--num-cpus=2"],
        env={k: v for k, v in environment.items() if k != "RAY_ADDRESS"},
        stdout=(tmp_path / "head.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_dashboard(int(dashboard), tmp_path / "head.log")
        settings = (f"catalog={catalog}", f"output={output}", f"model.weights={weights}")
        for _ in range(60):  # the dashboard answers before the agent that takes jobs is known to it
            shown = subprocess.run(
                [scripts / "ray", "job", "submit", "--working-dir", ".", "--", "python", "jobs/upscale_archive.py",
                 *settings],
                cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False,
            )  # fmt: skip
            if "No available agent to submit job" not in shown.stderr + shown.stdout:
                break
            time.sleep(1)
    finally:
        end_cluster(head, sockets)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert len(manifest.current(output)) == 6


def end_cluster(head: "subprocess.Popen[bytes]", sockets: str) -> None:
    """End this head's processes, each known by the folder of its sockets; `ray stop` would end every Ray here."""
    for _ in range(2):  # a parent may start another child while the first are ended
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if sockets.encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
    head.kill()
    head.wait(30)
    shutil.rmtree(sockets, ignore_errors=True)


def wait_for_dashboard(port: int, log: Path) -> None:
    import urllib.request

    end = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=2).read()
        except OSError:
            assert time.monotonic() < end, f"the dashboard did not start: {log.read_text()[-2000:]}"
            time.sleep(0.5)
        else:
            return


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["output=/x"], 2, ["catalog"]),
        (["catalog=/nowhere/c.csv", "output=/x"], 2, ["/nowhere/c.csv", "correct `catalog`"]),
        (["catalog=c.csv", "output=/x", "defaults.sclae=2"], 2, ["defaults.sclae", "defaults.scale"]),
        (["catalog=c.csv", "output=/x", "model.weights=gone.pth"], 2, ["model.weights", "gone.pth"]),
        (["--config", "gone.yaml"], 2, ["gone.yaml"]),
    ],
)
def test_wrong_arguments_end_in_two_with_the_mend_and_no_traceback(
    arguments: list[str], code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run(lambda: main(arguments)) == code
    told = capsys.readouterr().err
    assert "error: " in told
    for word in words:
        assert word in told


@pytest.mark.slow
def test_as_json_every_line_of_a_run_is_an_object(tmp_path: Path, weights: str) -> None:
    catalog, output = write_archive(str(tmp_path / "lr"), 6), str(tmp_path / "out")
    settings = (f"catalog={catalog}", f"output={output}", f"model.weights={weights}", "run.log=json", "run.report=true")
    shown = job(*settings)
    assert shown.returncode == 0, shown.stderr
    said = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["event"] for line in said] == ["message", "summary", "report"]
    assert (said[1]["done"], said[1]["failures"]) == (6, {})
    assert Path(said[2]["uri"]).read_text().startswith("<!doctype html>")
    ours = [line for line in shown.stderr.splitlines() if line.startswith("{")]
    last = json.loads(ours[-1])
    assert (last["event"], last["items"], last["bottleneck"] is not None) == ("progress", 6, True)
