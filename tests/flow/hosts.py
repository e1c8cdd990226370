"""Two replicas on two one-core nodes against one on one, in images a second. Run by hand on a quiet machine.

    python tests/flow/hosts.py --pairs 3

A node is a raylet with one CPU whose processes may use one core only, and of it 80%: head and driver, which
would have a machine of their own, take their time from the rest of both cores and not from the replicas
(--share; a control group, which root may make). Every replica restores with one thread. Each node reads,
restores and writes for itself, to a folder. Images a second are counted in the manifest, from the row by
which as many images are written as there are replicas to the last row, so that starting is mostly apart.
Rows do not say which replica they are of: one that starts later than the other makes the figure of two hosts
lower, never higher. Ray may put both replicas on one node; such a run is told and made again. It fails
unless the median pair reaches 1.8.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from nodes import Job, Nodes, cluster, family, wait_until

from pipeline.bench.feeding import make_archive
from pipeline.data import manifest

WANTED = 1.8
TRIES = 5  # to have each replica on a node of its own
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")  # version 1's; without it, only --share 1
PERIOD_US = 20_000  # in which a host may run for its share


@dataclass(frozen=True)
class Speed:
    """One run. images: those counted, in `seconds`; wall_seconds: of the whole job. cores: used by replicas."""

    hosts: int
    images: int
    seconds: float
    images_per_second: float
    wall_seconds: float
    cores: list[list[int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--side", type=int, default=320, help="of an LR image, pixels; enlarged twice")
    parser.add_argument("--share", type=float, default=0.8, help="of a core that is one host's")
    args = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory(prefix="hosts") as folder:
        catalog = make_archive(f"{folder}/lr", args.images, ((args.side, args.side),), 2)
        for pair in range(args.pairs):
            order = (1, 2) if pair % 2 == 0 else (2, 1)
            speeds = {hosts: measured(hosts, args.share, catalog, f"{folder}/out-{pair}-{hosts}") for hosts in order}
            for hosts in order:
                print(json.dumps(asdict(speeds[hosts])), flush=True)
            ratios.append(speeds[2].images_per_second / speeds[1].images_per_second)
            print(f"pair {pair + 1}: {ratios[-1]:.3f}", flush=True)
    median = statistics.median(ratios)
    print(f"two hosts against one: median {median:.3f} of {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
    return 0 if median >= WANTED else 1


def measured(hosts: int, share: float, catalog: str, output: str) -> Speed:
    for number in range(TRIES):
        wall, cores = restored(hosts, share, catalog, f"{output}-{number}")
        if len(cores) == hosts:
            return speed(hosts, f"{output}-{number}", wall, cores)
        print(f"not counted: {hosts} replicas on the cores {cores}", flush=True)
    raise SystemExit(f"{hosts} replicas were on one node {TRIES} times")


def restored(hosts: int, share: float, catalog: str, output: str) -> tuple[float, list[list[int]]]:
    """Seconds of a job, and the cores that its replicas could use."""
    with ExitStack() as bounds, cluster({"PYTHONPATH": str(ROOT)}) as nodes:
        nodes.start_head("--include-dashboard=false")
        for core in range(hosts):
            nodes.start(f"host-{core}", "--num-cpus=1", within=bounds.enter_context(part_of(core, share)))
        began = time.perf_counter()
        job = started(nodes, hosts, catalog, output)
        cores: set[tuple[int, ...]] = set()
        while job.process.poll() is None:
            cores |= replicas_cores(nodes)
            time.sleep(2)
        if job.ended():
            raise SystemExit(f"the job ended with {job.ended()}: {job.said()}")
        return time.perf_counter() - began, sorted(map(list, cores))


@contextmanager
def part_of(core: int, share: float) -> Iterator[list[str]]:
    """The start of a command line whose process, with all its children, has only so much of one core."""
    on_core = ["taskset", "--cpu-list", str(core)]
    if share == 1:
        yield on_core
        return
    group = CPU_GROUPS / f"unfold-host-{os.getpid()}-{core}"
    group.mkdir()
    (group / "cpu.cfs_quota_us").write_text(str(round(share * PERIOD_US)))
    (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    yield ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh", *on_core]
    wait_until(lambda: not (group / "cgroup.procs").read_text(), lambda: f"{group} has processes")
    group.rmdir()


def started(nodes: Nodes, hosts: int, catalog: str, output: str) -> Job:
    replicas = [f"restore.replicas.min={hosts}", f"restore.replicas.max={hosts}", "restore.threads=1"]
    settings = [f"catalog={catalog}", f"output={output}", *replicas, "restore.gpus=0", "restore.unit_items=1"]
    command = [sys.executable, str(ROOT / "jobs" / "upscale_archive.py"), *settings]
    return Job(command, nodes.folder / "job.log", nodes.environment | {"RAY_ADDRESS": nodes.address})


def replicas_cores(nodes: Nodes) -> set[tuple[int, ...]]:
    """The cores that each replica's process may use."""
    found = set()
    for pid in (pid for node in nodes.running.values() for pid in family(node.pid)):
        with suppress(OSError):  # it may end meanwhile
            if b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(tuple(sorted(os.sched_getaffinity(pid))))
    return found


def speed(hosts: int, output: str, wall: float, cores: list[list[int]]) -> Speed:
    """From the manifest's times of writing; the first images, as many as replicas, are the start."""
    rows = manifest.current(output)
    assert set(rows["status"].to_pylist()) == {"done"}
    written = sorted(moment.timestamp() for moment in rows["written_at"].to_pylist())
    counted, seconds = len(written) - hosts, written[-1] - written[hosts - 1]
    return Speed(hosts, counted, seconds, counted / seconds, wall, cores)


if __name__ == "__main__":
    sys.exit(main())
