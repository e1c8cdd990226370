"""Clusters of several Ray nodes on this machine: every node a raylet of its own, started by `ray start`.

The GPUs of these nodes are pretended: Ray counts them, torch sees none.
"""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import manifest, storage
from pipeline.flow.cluster import KEEP_IDLE_MS
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).parent / "ray")
TASKS = '{"unfold_tasks": 1000}'
HEAD_ID = "f" * 51 + "00000"  # what Ray's fake_multinode provider takes the head for


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


def wait_until(there: Callable[[], Any], words: Callable[[], str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {words()}")
        time.sleep(0.2)


class Job:
    """A command whose output goes to a file: a pipe that nobody reads would stop it."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=log.parent)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ended(self, seconds: float = 240) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return pytest.fail(f"the job did not end within {seconds:g} s: {self.said()}")


class Nodes:
    """`ray start` a node; every node ends by its own process group. more: environment of all nodes."""

    def __init__(self, folder: Path, more: dict[str, str] | None = None) -> None:
        self.folder, self.running = folder, dict[str, "subprocess.Popen[bytes]"]()
        self.environment = {key: text for key, text in os.environ.items() if not key.startswith("RAY_")} | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the job server starts `python`
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_idle_worker_killing_time_threshold_ms": str(KEEP_IDLE_MS),
            "PYTHONPATH": "",
            **(more or {}),
        }
        self.gcs, self.board, client = free_ports(3)
        self.address, self.url = f"{node_ip()}:{self.gcs}", f"http://127.0.0.1:{self.board}"
        ports = (f"--port={self.gcs}", f"--dashboard-port={self.board}", f"--ray-client-server-port={client}")
        self._head = ("--head", *ports, f"--temp-dir={folder / 'ray'}", "--num-cpus=0")

    def start_head(self, *options: str) -> None:
        self.start("head", *self._head, *options)

    def start(self, name: str, *options: str, within: Sequence[str] = ()) -> None:
        """within: a command that starts another one in some bounds, such as `taskset`."""
        listen, grpc, metrics, env = free_ports(4)
        join = () if "--head" in options else (f"--address={self.address}",)
        own = (f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={grpc}")
        own += (f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={env}")
        command = [*within, RAY, "start", "--block", "--object-store-memory=100000000", *own, *join, *options]
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            self.running[name] = subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=file, start_new_session=True, cwd=self.folder
            )
        # Two that start at once get in each other's way.
        wait_until(lambda: "block forever" in log.read_text(), lambda: f"{name}: {log.read_text()}")

    def kill(self, name: str) -> None:
        """As a machine goes: everything at once, without a word."""
        process = self.running.pop(name)
        for pid in frozen(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for name in list(self.running):
            self.kill(name)

    def submit(self, *settings: str) -> Job:
        job = ("python", "jobs/restore_nightly.py", *settings)
        command = [RAY, "job", "submit", f"--address={self.url}", f"--working-dir={ROOT}", "--", *job]
        return Job(command, self.folder / f"job-{time.monotonic_ns()}.log", self.environment)

    def listed(self, what: str) -> list[dict[str, Any]]:
        """What Ray's state server knows: nodes, actors, tasks."""
        with urllib.request.urlopen(f"{self.url}/api/v0/{what}?limit=10000&detail=true", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
        return found

    def kinds(self) -> dict[str, str]:
        """By node id: what each node that is alive is for."""
        alive = [node for node in self.listed("nodes") if node["state"] == "ALIVE"]
        return {node["node_id"]: kind(node["resources_total"]) for node in alive}

    def count(self) -> Counter[str]:
        """How many nodes are alive of each kind."""
        return Counter(self.kinds().values())


def kind(resources: dict[str, float]) -> str:
    return "gpu" if "GPU" in resources else "cpu" if "unfold_tasks" in resources else "head"


def frozen(root: int) -> list[int]:
    """The process and all below it, stopped, so that none of them starts another or says goodbye."""
    found: list[int] = []
    while new := [pid for pid in family(root) if pid not in found]:
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        found += new
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


def is_running(pid: int) -> bool:
    """Not so when it has ended and its parent has not yet looked."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def cluster(more: dict[str, str] | None = None) -> Iterator[Nodes]:
    """No node yet; all of them end with the block."""
    # A short path of its own: Ray keeps sockets below it, whose names may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="u", ignore_cleanup_errors=True) as folder:
        made = Nodes(Path(folder), more)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def three_nodes(more: dict[str, str] | None = None) -> Iterator[Nodes]:
    """A head without work, a CPU node, a node with a GPU."""
    with cluster(more) as made:
        made.start_head()
        made.start("cpu", "--num-cpus=2", f"--resources={TASKS}")
        made.start("gpu", "--num-cpus=2", "--num-gpus=1")
        yield made


@contextmanager
def autoscaled(*, gpus: int, idle_seconds: float) -> Iterator[Nodes]:
    """A head without work whose autoscaler starts a CPU node, and up to `gpus` nodes with a GPU.

    The autoscaler's first version: with the second, Ray's fake_multinode provider does not work.
    """
    more = {"RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_enable_autoscaler_v2": "0"}
    with cluster({**more, "AUTOSCALER_UPDATE_INTERVAL_S": "1"}) as made:
        small = {"CPU": 2, "object_store_memory": 100_000_000}
        task_nodes = {"resources": {**small, "unfold_tasks": 1000}, "min_workers": 1, "max_workers": 1}
        gpu_nodes = {"resources": {**small, "GPU": 1}, "min_workers": 0, "max_workers": gpus}
        types = {"ray.head.default": {"resources": {"CPU": 0}, "max_workers": 0}, "tasks": task_nodes, "gpu": gpu_nodes}
        provider: dict[str, Any] = {"type": "fake_multinode", "gcs_address": made.address, "launch_multiple": True}
        provider |= {
            "head_node_id": HEAD_ID,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
        }  # for all nodes have one address
        config = {
            "cluster_name": "unfold",
            "provider": provider,
            "max_workers": gpus + 1,
            "idle_timeout_minutes": idle_seconds / 60,
            "available_node_types": {name: {**group, "node_config": {}} for name, group in types.items()},
            "head_node_type": "ray.head.default",
            "upscaling_speed": 1.0,
            **{key: [] for key in ("cluster_synced_files", "initialization_commands", "setup_commands")},
            **{f"{node}_{key}": [] for node in ("head", "worker") for key in ("setup_commands", "start_ray_commands")},
            **{key: {} for key in ("auth", "docker", "file_mounts")},
        }
        path = made.folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        made.start_head(f"--autoscaling-config={path}")
        yield made


def small_weights(path: Path) -> str:
    small = Architecture(iterations=1, hidden=8, widths=(8, 8, 8, 8), blocks=1)
    save_safetensors(initial_usrnet(small, seed=0).state_dict(), path, {})
    return str(path)


def archive(prefix: str, weights: str, count: int) -> list[str]:
    """`count` small images at the prefix, and the settings that restore them on a cluster with GPUs."""
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (24, 24, 3), np.uint8)).save(file, "PNG")
        storage.write_bytes(f"{prefix}/lr/{number:03}.png", file.getvalue())
    places = [f"index.prefix={prefix}/lr", f"catalog={prefix}/catalog", f"output={prefix}/out"]
    defaults = ["defaults.scale=2", "defaults.sigma=0", "defaults.kernel=delta", f"model.weights={weights}"]
    small = ["restore.unit_items=2", "restore.gpus=1", "restore.replicas.max=1", "run.task_resource=unfold_tasks"]
    return [*places, *defaults, *small, "run.lease_seconds=4"]


def wait_for_parts(output: str, count: int, job: Job) -> None:
    """Until the manifest has so many parts, while the job is still at work."""

    def there() -> bool:
        assert job.process.poll() is None, job.said()
        return len(list(storage.list_files(f"{output}/manifest", (".parquet",)))) >= count

    wait_until(there, job.said)


def statuses(prefix: str) -> list[str]:
    found: list[str] = manifest.current(f"{prefix}/out")["status"].to_pylist()
    return found


def done_before(said: str) -> int:
    """How many items the job found done already."""
    found = re.search(r"(\d+) done already", said)
    return int(found[1]) if found else 0
