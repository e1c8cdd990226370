"""The Ray cluster a job runs on, and what it gives to each stage. Every number has its reason.

Imports neither torch nor the stages.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Set before Ray is imported: a local cluster of our own needs no token, and Ray would otherwise
# write one into the home folder that later clusters trip over.
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a CPU replica may still see no GPU

import ray

_CORES_PER_REPLICA = 4  # convolutions of one batch stop gaining from more threads about there


@dataclass(frozen=True)
class Placement:
    """Where the stages run.

    gpus, cpus: of one replica as Ray counts them. threads: torch threads of a replica.
    smallest, largest: replicas in the pool. read_cpus, write_cpus: of one task.
    read_tasks, write_tasks: at most so many at once.
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


@contextmanager
def joined() -> Iterator[None]:
    """Inside: the cluster at RAY_ADDRESS (as `ray job submit` sets it), or one on this machine.

    A cluster started here ends on the way out; one that was joined before is left as it is.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # its plans and notices are not for users
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # tells that we show our own
    address = os.environ.get("RAY_ADDRESS")
    dashboard = None if address else False
    ray.init(address or "local", include_dashboard=dashboard, logging_level=logging.WARNING, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def gpus_for(workers: int, asked: int | None) -> int:
    """GPUs of one training worker: as asked, else 1 where the cluster has one for each, else 0."""
    if asked is not None:
        return asked
    return int(_resources().get("GPU", 0) >= workers)


def threads_for(workers: int) -> int:
    """CPU threads of one training worker: they share the cores, and none is larger than its machine."""
    machines = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cores = int(_resources().get("CPU", 1))
    return max(1, min(cores // workers, int(max(machines, default=1))))


def _resources() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


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
) -> Placement:
    """Fill in what the config leaves open from what the cluster has now."""
    resources = _resources()
    cores = max(1, int(resources.get("CPU", 1)))
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    if gpus:
        fitting = max(1, int(resources.get("GPU", 0) / gpus))
    else:
        fitting = max(1, cores // _CORES_PER_REPLICA)
    largest = max(smallest, largest or fitting)
    threads = threads or (1 if gpus else max(1, cores // largest))
    # Reads and writes mostly wait, so they overlap with restoring: a CPU replica books half of the
    # cores it computes on and the tasks the rest. A GPU replica's Python needs most of one core.
    cpus = 0.5 if cores == 1 else (1.0 if gpus else threads / 2)
    spare = max(1.0, cores - largest * cpus)
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
    )
