"""The Ray cluster a job runs on, and what it gives to each stage. Every number has its reason.

Imports neither torch nor the stages.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Set before Ray is imported: a local cluster of our own needs no token, and Ray would otherwise
# write one into the home folder that later clusters trip over.
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a CPU replica may still see no GPU

import ray

from pipeline.errors import NotFinished

# Ray ends a worker that was idle for a second where all CPUs of its node are taken, and starting another costs
# seconds of CPU: with units of more than a second, reads and writes took a third of a core so (docs/cluster.md).
KEEP_IDLE_MS = 60_000
_ANSWERS_WITHIN_S = 10.0
_TASK_SHARE = 0.001  # of a node's task resource: it says where, never how many
# One CPU replica a core, as far as memory goes: two threads of one replica would both wait when one of their
# cores is wanted elsewhere (docs/engine.md, "Feeding").
_MEMORY_PER_REPLICA = 2 * 2**30  # 0.6 GiB of process, up to 1 GiB of batch, pictures on their way


@dataclass(frozen=True)
class Placement:
    """Where the stages run.

    gpus, cpus: of one replica as Ray counts them. threads: torch threads of a replica.
    smallest, largest: replicas in the pool. read_cpus, write_cpus: of one task.
    read_tasks, write_tasks: at most so many at once. task_resources: custom resources of Ray that a
    read or write task asks for, so that it runs only where they are; empty: anywhere.
    """

    gpus: float
    cpus: float
    threads: int
    smallest: int
    largest: int
    read_cpus: float
    write_cpus: float
    read_tasks: int
    write_tasks: int
    task_resources: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def joined(say: Callable[[str], None] = print, metrics_port: int | None = None) -> Iterator[bool]:
    """Inside: the cluster at RAY_ADDRESS (as `ray job submit` sets it), or one on this machine.

    Gives whether the cluster is this process's own: then it never grows, and ends on the way out.
    metrics_port: where a cluster of our own shows its metrics. Raises `NotFinished` when no cluster
    answers at RAY_ADDRESS.
    """
    if ray.is_initialized():
        yield False
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # its plans and notices are not for users
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # tells that we show our own
    address = os.environ.get("RAY_ADDRESS")
    if address:
        say(f"joining the Ray cluster at {address}")
        _knock(address)
    own = {} if address else _own_cluster(metrics_port)
    ray.init(address or "local", logging_level=logging.WARNING, log_to_driver=False, **own)
    try:
        yield not address
    finally:
        ray.shutdown()


def _own_cluster(metrics_port: int | None) -> dict[str, Any]:
    """What a cluster of our own is started with."""
    return {
        "include_dashboard": False,
        "_metrics_export_port": metrics_port,
        "_system_config": {"idle_worker_killing_time_threshold_ms": KEEP_IDLE_MS},
    }


def _knock(address: str) -> None:
    """Where nobody listens, Ray itself would wait for minutes without a word and then end the process."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit() and "/" not in host):
        return  # `auto` and the like: Ray knows where
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN_S).close()
    except OSError as error:
        reason = f"no Ray cluster answers at RAY_ADDRESS={address}: {error}"
        raise NotFinished(f"{reason}; start the cluster, or unset RAY_ADDRESS to work on this machine") from None


def unmet(placement: Placement) -> str | None:
    """What the replicas need at least and the cluster does not have now; None when they fit."""
    resources = totals()
    for name, each, keys in (
        ("GPU", placement.gpus, "restore.gpus or restore.replicas.min"),
        ("CPU", placement.cpus, "restore.threads or restore.replicas.min"),
    ):
        needed, there = each * placement.smallest, resources.get(name, 0.0)
        if needed > there:
            return f"{placement.smallest} replicas need {needed:g} {name}s, the cluster has {there:g}; lower {keys}"
    for name in placement.task_resources:
        if name not in resources:
            wanted = f"start the CPU nodes with it (ray start --resources '{{\"{name}\": 1}}')"
            return f"run.task_resource: no node has the resource {name}, so nothing can be read or written; {wanted}"
    return None


def place(
    *,
    gpus: float | None,
    threads: int | None,
    smallest: int,
    largest: int | None,
    read_cpus: float,
    write_cpus: float,
    read_tasks: int | None,
    write_tasks: int | None,
    task_resource: str | None = None,
) -> Placement:
    """Fill in what the config leaves open from what the cluster has now.

    task_resource: custom resource that marks the nodes that read and write; None takes them all.
    """
    resources = totals()
    cores = max(1, int(resources.get("CPU", 1)))
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    if gpus:
        fitting = max(1, int(resources.get("GPU", 0) / gpus))
    else:
        fitting = max(1, min(cores, int(resources.get("memory", 0) / _MEMORY_PER_REPLICA)))
    largest = max(smallest, largest or fitting)
    threads = threads or (1 if gpus else max(1, cores // largest))
    # Reads and writes mostly wait, so they overlap with restoring: a CPU replica books half of the
    # cores it computes on and the tasks the rest. A GPU replica's Python needs most of one core.
    cpus = 0.5 if cores == 1 else (1.0 if gpus else threads / 2)
    spare = max(1.0, cores - largest * cpus if task_resource is None else _cpus_beside(task_resource))
    return Placement(
        gpus,
        cpus,
        threads,
        smallest,
        largest,
        min(read_cpus, spare / 2),
        min(write_cpus, spare / 2),
        read_tasks or max(1, int(spare / 2 / read_cpus)),
        write_tasks or max(1, int(spare / 2 / write_cpus)),
        task_resources(task_resource),
    )


def task_resources(name: str | None) -> dict[str, float]:
    """What a task asks for to run only where the custom resource `name` is; None: anywhere."""
    return {} if name is None else {name: _TASK_SHARE}


def _cpus_beside(resource: str) -> float:
    """CPUs of the nodes that have `resource`."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return float(sum(held.get("CPU", 0.0) for held in nodes if held.get(resource)))


class Crowding:
    """Whether the cluster has shrunk so far that the replicas, started again, leave no CPU to a task.

    Ray starts lost actors again wherever there is room, before the tasks that feed them.
    """

    def __init__(self, placement: Placement) -> None:
        self._task = max(placement.read_cpus, placement.write_cpus)
        self._placement = placement
        self._most = _cpus()

    def __call__(self) -> bool:
        now = _cpus()
        self._most = max(self._most, now)
        return now < self._most and now - self._replicas() * self._placement.cpus < self._task

    def _replicas(self) -> float:
        """Replicas that there can be: those on GPUs come back only where GPUs are left."""
        each = self._placement.gpus
        return min(self._placement.largest, totals().get("GPU", 0.0) / each) if each else self._placement.largest


def _cpus() -> float:
    return totals().get("CPU", 0.0)


def gpus_for(workers: int, asked: int | None) -> int:
    """GPUs of one training worker: as asked, else 1 where the cluster has one for each, else 0."""
    if asked is not None:
        return asked
    return int(totals().get("GPU", 0) >= workers)


def threads_for(workers: int) -> int:
    """CPU threads of one training worker: they share the cores, and none is larger than its machine."""
    machines = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cores = int(totals().get("CPU", 1))
    return max(1, min(cores // workers, int(max(machines, default=1))))


def too_many(workers: int, cpus: float, gpus: int) -> str | None:
    """What training workers need and the cluster does not have; None when they fit."""
    for name, each, keys in (("GPU", gpus, "workers.gpus"), ("CPU", cpus, "workers.threads")):
        needed, there = each * workers, totals().get(name, 0.0)
        if needed > there:
            return (
                f"{workers} workers need {needed:g} {name}s, the cluster has {there:g}; lower workers.count or {keys}"
            )
    return None


def totals() -> dict[str, float]:
    """What the nodes that are there now have together, by Ray's names."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources
