"""What a cluster is asked for, and what is said when it cannot give it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import manifest
from pipeline.flow.cluster import Placement

ROOT = Path(__file__).resolve().parents[2]
HERE = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}


def placement(gpus: float, cpus: float, replicas: int) -> Placement:
    return Placement(gpus, cpus, 1, replicas, replicas, 0.5, 0.5, 1, 1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (placement(0, 1, 1), None),
        (placement(1, 1, 1), None),
        (placement(2, 1, 1), "1 replicas need 2 GPUs, the cluster has 1; lower restore.gpus"),
        (placement(0.5, 0, 3), "3 replicas need 1.5 GPUs"),
        (placement(0, 32, 1), "1 replicas need 32 CPUs, the cluster has 2; lower restore.threads"),
    ],
)
def test_what_cannot_be_met_is_told(monkeypatch: pytest.MonkeyPatch, asked: Placement, words: str | None) -> None:
    from pipeline.flow import cluster

    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    problem = cluster.unmet(asked)
    assert (problem or "").startswith(words or "")
    assert (problem is None) == (words is None)


def archive(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(rng.integers(0, 255, (24, 20 + n, 3), np.uint8)).save(folder / f"{n}.png")
    (folder / "catalog.csv").write_text("uri,scale,sigma,kernel\n" + "".join(f"{n}.png,2,0,delta\n" for n in range(3)))
    return [f"catalog={folder / 'catalog.csv'}", f"output={folder / 'out'}"]


def job(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "jobs/upscale_archive.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | HERE | environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
def test_replicas_on_gpus_get_whole_units(tmp_path: Path) -> None:
    """A pretended GPU: Ray places the replica on it, torch inside finds none and computes on the CPU."""
    script = (
        "import ray, sys; ray.init('local', num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False);"
        "from jobs.upscale_archive import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, *archive(tmp_path)]
    shown = subprocess.run(command, cwd=ROOT, env=os.environ | HERE, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert manifest.current(str(tmp_path / "out"))["status"].to_pylist() == ["done"] * 3


@pytest.mark.slow
def test_more_than_this_machine_has_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    shown = job(*archive(tmp_path), "restore.replicas.min=1000")
    assert shown.returncode == 2, shown.stdout + shown.stderr
    assert "error: 1000 replicas need" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.slow
def test_a_worker_that_waits_for_its_next_task_is_kept() -> None:
    """Beside a replica that has the node's only CPU, longer than Ray would let it wait."""
    script = (
        "import os, ray, time;"
        "from pipeline.flow.cluster import _own_cluster;"
        "ray.init('local', num_cpus=1, log_to_driver=False, **_own_cluster(None));"
        "replica = ray.remote(num_cpus=1)(type('Replica', (), {'ready': lambda self: True})).remote();"
        "ray.get(replica.ready.remote());"
        "task = ray.remote(num_cpus=0)(lambda: os.getpid());"
        "before = ray.get(task.remote());"
        "time.sleep(3);"
        "print('kept' if ray.get(task.remote()) == before else 'ended')"
    )
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, cwd=ROOT, env=os.environ | HERE, capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "kept", shown.stdout + shown.stderr


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    shown = job(*archive(tmp_path), RAY_ADDRESS="127.0.0.1:1")
    assert shown.returncode == 4, shown.stdout + shown.stderr
    assert "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1" in shown.stderr
    assert "joining the Ray cluster at 127.0.0.1:1" in shown.stdout


def test_an_output_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file lies here")
    shown = job(*archive(tmp_path))
    assert shown.returncode == 2, shown.stdout + shown.stderr
    assert f"output: {tmp_path / 'out'} cannot be written to" in shown.stderr


def nodes_with(*resources: dict[str, float]) -> dict[str, object]:
    total: dict[str, float] = {}
    for held in resources:
        total = {name: total.get(name, 0) + held.get(name, 0) for name in total | held}
    return {
        "cluster_resources": lambda: total,
        "nodes": lambda: [{"Alive": True, "Resources": held} for held in resources],
    }


def placed(
    monkeypatch: pytest.MonkeyPatch,
    *resources: dict[str, float],
    task_resource: str | None = None,
    gpus: float = 1.0,
    largest: int | None = 8,
) -> Placement:
    from pipeline.flow import cluster

    for name, answer in nodes_with(*resources).items():
        monkeypatch.setattr(cluster.ray, name, answer)
    asked = {"gpus": gpus, "threads": None, "smallest": 1, "largest": largest, "read_cpus": 0.5, "write_cpus": 0.5}
    return cluster.place(**asked, read_tasks=None, write_tasks=None, task_resource=task_resource)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cores", "gibibytes", "replicas", "threads"), [(2, 8, 2, 1), (16, 64, 16, 1), (16, 8.5, 4, 4), (2, 1, 1, 2)]
)
def test_each_core_has_a_replica_as_far_as_memory_goes(
    monkeypatch: pytest.MonkeyPatch, cores: int, gibibytes: float, replicas: int, threads: int
) -> None:
    machine = {"CPU": float(cores), "memory": gibibytes * 2**30}
    placement = placed(monkeypatch, machine, gpus=0.0, largest=None)
    assert (placement.largest, placement.threads) == (replicas, threads)
    assert placement.read_tasks >= 1
    assert placement.write_tasks >= 1


CPU_NODE, GPU_NODE = {"CPU": 8.0, "tasks": 1000.0}, {"CPU": 2.0, "GPU": 1.0}


def test_tasks_are_as_many_as_their_own_nodes_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = placed(monkeypatch, {"GPU": 0.0}, CPU_NODE, GPU_NODE, task_resource="tasks")
    assert (placement.read_tasks, placement.write_tasks, placement.largest) == (8, 8, 8)
    assert placement.task_resources.keys() == {"tasks"}
    assert placed(monkeypatch, CPU_NODE, GPU_NODE, task_resource=None).task_resources == {}


def test_a_resource_that_no_node_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.flow import cluster

    problem = cluster.unmet(placed(monkeypatch, GPU_NODE, task_resource="tasks"))
    assert problem is not None
    assert "run.task_resource: no node has the resource tasks" in problem


def test_gpu_nodes_that_go_take_their_replicas_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven of eight lost: one replica is left, and the CPU node is all the tasks'."""
    from pipeline.flow import cluster

    placement = placed(monkeypatch, {"CPU": 2.0, "tasks": 1.0}, *[GPU_NODE] * 8, task_resource="tasks")
    crowding = cluster.Crowding(placement)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    assert not crowding()
