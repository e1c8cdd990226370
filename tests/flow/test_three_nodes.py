"""A cluster of three nodes as on Kubernetes: a head without work, a CPU node, a node with a (pretended) GPU.

Each node is a raylet of its own, started by `ray start`; jobs go through the real job server, to S3.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import manifest, storage
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).parent / "ray")
TASKS = '{"unfold_tasks": 1000}'


def free_ports(count: int) -> list[str]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def node_ip() -> str:
    """The address that Ray gives this machine, which is not loopback's."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def wait_until(there: Callable[[], bool], log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            pytest.fail(f"{log.name} came to nothing: {log.read_text()}")
        time.sleep(0.2)


class Nodes:
    """`ray start` a node; every node ends by its own process group."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, dict[str, "subprocess.Popen[bytes]"]()
        self.environment = {key: text for key, text in os.environ.items() if not key.startswith("RAY_")} | {
            "HOME": str(folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": "",
        }
        self.gcs, self.board, client = free_ports(3)
        self.url = f"http://127.0.0.1:{self.board}"
        ports = (f"--port={self.gcs}", f"--dashboard-port={self.board}", f"--ray-client-server-port={client}")
        self._head = ("--head", *ports, f"--temp-dir={folder / 'ray'}", "--num-cpus=0")

    def start_head(self) -> None:
        self.start("head", *self._head)

    def start(self, name: str, *options: str) -> None:
        listen, grpc, metrics, env = free_ports(4)
        join = () if "--head" in options else (f"--address={node_ip()}:{self.gcs}",)
        own = (f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={grpc}")
        own += (f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={env}")
        command = [RAY, "start", "--block", "--object-store-memory=100000000", *own, *join, *options]
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            self.running[name] = subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=file, start_new_session=True, cwd=self.folder
            )
        wait_until(lambda: "block forever" in log.read_text(), log)  # two that start at once get in each other's way

    def kill(self, name: str) -> None:
        """As a machine goes: everything at once, without a word."""
        process = self.running.pop(name)
        for pid in reversed(family(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for name in list(self.running):
            self.kill(name)

    def submit(self, *settings: str) -> "subprocess.Popen[str]":
        job = ("python", "jobs/restore_nightly.py", *settings)
        command = [RAY, "job", "submit", f"--address={self.url}", f"--working-dir={ROOT}", "--", *job]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder
        )

    def listed(self, what: str) -> list[dict[str, str]]:
        command = [RAY, "list", what, f"--address={self.url}", "--format=json", "--limit=10000", "--detail"]
        shown = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        found: list[dict[str, str]] = json.loads(shown.stdout[shown.stdout.index("[") :])
        return found


def family(pid: int) -> list[int]:
    """The process and all below it, while they are still each other's children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


@pytest.fixture
def nodes(s3: str) -> Iterator[Nodes]:
    with three_nodes() as made:
        yield made


@contextmanager
def three_nodes() -> Iterator[Nodes]:
    # A short path of its own: Ray keeps sockets below it, whose names may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="u", ignore_cleanup_errors=True) as folder:
        made = Nodes(Path(folder))
        try:
            made.start_head()
            made.start("cpu", "--num-cpus=2", f"--resources={TASKS}")
            made.start("gpu", "--num-cpus=2", "--num-gpus=1")
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("weights") / "small.safetensors")
    small = Architecture(iterations=1, hidden=8, widths=(8, 8, 8, 8), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), path, {})
    return path


def archive(prefix: str, weights: str, count: int) -> list[str]:
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (24, 24, 3), np.uint8)).save(file, "PNG")
        storage.write_bytes(f"{prefix}/lr/{number:03}.png", file.getvalue())
    places = [f"index.prefix={prefix}/lr", f"catalog={prefix}/catalog", f"output={prefix}/out"]
    defaults = ["defaults.scale=2", "defaults.sigma=0", "defaults.kernel=delta", f"model.weights={weights}"]
    small = ["restore.unit_items=2", "restore.gpus=1", "restore.replicas.max=1", "run.task_resource=unfold_tasks"]
    return [*places, *defaults, *small, "run.lease_seconds=4"]


def wait_for_parts(output: str, count: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(list(storage.list_files(f"{output}/manifest", (".parquet",)))) >= count:
            return
        time.sleep(0.2)
    pytest.fail("the run wrote nothing")


def statuses(prefix: str) -> list[str]:
    found: list[str] = manifest.current(f"{prefix}/out")["status"].to_pylist()
    return found


def test_stages_stay_where_they_belong(nodes: Nodes, s3_prefix: str, weights: str) -> None:
    job = nodes.submit(*archive(s3_prefix, weights, 8))
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said
    assert statuses(s3_prefix) == ["done"] * 8

    kinds = {}
    for node in nodes.listed("nodes"):
        total = node["resources_total"]
        kinds[node["node_id"]] = "gpu" if "GPU" in total else "cpu" if "unfold_tasks" in total else "head"
    assert sorted(kinds.values()) == ["cpu", "gpu", "head"]
    ran: dict[str, set[str]] = {}
    for task in nodes.listed("tasks"):
        for stage in ("_read_unit", "Replica", "_write_unit"):
            if stage in task["name"] and task["node_id"]:
                ran.setdefault(stage, set()).add(kinds[task["node_id"]])
    for actor in nodes.listed("actors"):
        if "MapWorker" in actor["class_name"] or "Replica" in actor["class_name"]:
            ran.setdefault("Replica", set()).add(kinds[actor["node_id"]])
    assert ran == {"_read_unit": {"cpu"}, "Replica": {"gpu"}, "_write_unit": {"cpu"}}


def test_a_run_survives_its_gpu_node_and_goes_on_where_there_is_another(
    nodes: Nodes, s3_prefix: str, weights: str
) -> None:
    job = nodes.submit(*archive(s3_prefix, weights, 60))
    wait_for_parts(f"{s3_prefix}/out", 2)
    nodes.kill("gpu")
    assert len(statuses(s3_prefix)) < 60, "in the middle of the run"
    nodes.start("gpu-2", "--num-cpus=2", "--num-gpus=1")
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said
    assert statuses(s3_prefix) == ["done"] * 60


def test_after_the_head_is_lost_the_job_submitted_again_finishes_the_rest(
    nodes: Nodes, s3_prefix: str, weights: str
) -> None:
    settings = archive(s3_prefix, weights, 60)
    job = nodes.submit(*settings)
    wait_for_parts(f"{s3_prefix}/out", 2)
    nodes.close()
    assert job.wait(120) != 0
    before = statuses(s3_prefix)
    assert 0 < len(before) < 60
    with three_nodes() as again:
        job = again.submit(*settings)
        said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said
    assert f"{60 - len(before)} to restore, {len(before)} done already" in said
    assert statuses(s3_prefix) == ["done"] * 60
