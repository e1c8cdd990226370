"""A secret of the environment is in nothing that a run leaves behind."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data import storage
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def left_behind(prefix: str, folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    for uri in storage.list_files(prefix):
        yield uri, storage.read_bytes(uri)
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()


def test_no_log_manifest_record_or_pickle_holds_the_secret(s3_prefix: str, tmp_path: Path) -> None:
    """Ray's session folder, with the logs of all workers and the pickled graph's traces, is searched too."""
    from PIL import Image

    Image.new("RGB", (20, 20), (9, 90, 200)).save(tmp_path / "a.png")
    storage.write_bytes(f"{s3_prefix}/a.png", (tmp_path / "a.png").read_bytes())
    rows = "uri,scale,sigma,kernel\na.png,2,0,delta\ngone.png,2,0,delta\ns3://no-such-bucket/x.png,2,0,delta\n"
    storage.write_bytes(f"{s3_prefix}/catalog.csv", rows.encode())
    small = Architecture(iterations=1, hidden=8, widths=(8, 8, 8, 8), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), tmp_path / "w.safetensors", {})
    session = Path(tempfile.mkdtemp(prefix="rs-"))  # a socket's path has at most 107 characters
    places = [f"catalog={s3_prefix}/catalog.csv", f"output={s3_prefix}/out"]
    settings = [*places, f"model.weights={tmp_path}/w.safetensors"]
    try:
        shown = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "upscale_archive.py"), *settings],
            env={**os.environ, "RAY_TMPDIR": str(session)},
            capture_output=True,
            timeout=200,
            check=False,
        )
        assert shown.returncode == 3, shown.stderr.decode()
        secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
        found = list(left_behind(s3_prefix, [session, tmp_path]))
        assert len(found) > 20, "the session's logs are among them"
        assert [name for name, data in found if secret in data] == []
        assert secret not in shown.stdout + shown.stderr
    finally:
        shutil.rmtree(session, ignore_errors=True)
