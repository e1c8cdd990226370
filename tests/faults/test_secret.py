"""A secret of the environment is in nothing that a run, its plan and its report leave behind."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data import manifest, storage
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.records import Outcome
from pipeline.training.loop import initial_usrnet

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

pytestmark = pytest.mark.slow


def objects(prefix: str) -> dict[str, bytes]:
    return {uri: readable(uri, storage.read_bytes(uri)) for uri in storage.list_files(prefix)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def readable(uri: str, data: bytes) -> bytes:
    """What a person would read of an object: a Parquet file is compressed, and hides what it holds from a search."""
    if not uri.endswith(".parquet"):
        return data
    file = pq.ParquetFile(io.BytesIO(data))
    return data + repr((file.schema_arrow, file.metadata.metadata, file.read().to_pylist())).encode()


@pytest.fixture
def session() -> Iterator[Path]:
    """A folder for Ray: a socket's path has at most 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="rs-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def archive(prefix: str, folder: Path) -> list[str]:
    """The settings of a run with one sound item, one without an object, and one in a bucket that is not there."""
    image, weights = io.BytesIO(), folder / "w.safetensors"
    Image.new("RGB", (20, 20), (9, 90, 200)).save(image, "PNG")
    storage.write_bytes(f"{prefix}/a.png", image.getvalue())
    rows = "uri,scale,sigma,kernel\na.png,2,0,delta\ngone.png,2,0,delta\ns3://no-such-bucket/x.png,2,0,delta\n"
    storage.write_bytes(f"{prefix}/catalog.csv", rows.encode())
    small = Architecture(iterations=1, hidden=8, widths=(8, 8, 8, 8), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), weights, {})
    return [f"catalog={prefix}/catalog.csv", f"output={prefix}/out", f"model.weights={weights}"]


def test_a_search_finds_a_secret_in_a_compressed_part_of_the_manifest(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "r", [Outcome(f"i{n}", error="told: hush") for n in range(500)])
    (data,) = objects(str(tmp_path)).values()
    assert b"told: hush" in data


def test_no_log_plan_manifest_report_or_pickle_holds_the_secret(s3_prefix: str, session: Path, tmp_path: Path) -> None:
    """Ray's session folder, with the logs of all workers, and a copy of each of its pickles are searched too.

    What is searched for is the secret, and, so that the search is known to look at the right places, the
    archive's own name.
    """
    settings, shown = archive(s3_prefix, tmp_path), dict[str, bytes]()
    pickles = tmp_path / "pickles"
    pickles.mkdir()
    environment = {
        **os.environ,
        "RAY_TMPDIR": str(session),
        "PYTHONPATH": f"{HERE / 'pickles'}:{ROOT}",
        "UNFOLD_PICKLES": str(pickles),
    }

    def job(name: str, program: str, *words: str, code: int = 0) -> None:
        command = [sys.executable, str(ROOT / "jobs" / program), *words]
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=200, check=False)
        shown[name] = ended.stdout + ended.stderr
        assert ended.returncode == code, shown[name].decode()

    job("plan as JSON", "upscale_archive.py", "--plan", "--json", *settings, "plan.seconds=1")
    job("run", "upscale_archive.py", *settings, "run.log=json", "run.report=true", code=3)
    again = ["run.retry_failed=all", "plan.rates=manifest"]
    job("plan", "upscale_archive.py", "--plan", *settings, *again)
    job("report", "report.py", settings[1], f"page={tmp_path}/page.html")

    assert b'"todo": 3' in shown["plan as JSON"]
    assert b'"event": "summary"' in shown["run"]
    assert b"to do     2" in shown["plan"]
    logs, kept, stored, local = files(session), files(pickles), objects(s3_prefix), files(tmp_path)
    name = s3_prefix.encode()
    for place in (kept, stored, shown, {n: data for n, data in local.items() if n.endswith(".html")}):
        assert any(name in data for data in place.values())
    assert {"report.html"} <= {uri.rpartition("/")[2] for uri in stored}
    assert sum(".log" in path or ".out" in path or ".err" in path for path in logs) > 20
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    everything = {**logs, **kept, **stored, **local, **shown}
    assert [where for where, data in everything.items() if secret in data] == []
