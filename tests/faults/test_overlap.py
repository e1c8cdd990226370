"""Two processes that start on one prefix in the same second, on twenty prefixes: exactly one gets each lease."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PREFIXES = 20
SCRIPT = """
import json, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pipeline.data import lease
from pipeline.errors import LeaseHeld

root, start, count = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
lease._TRIED[root.rpartition("/")[0]] = True  # the probe is tested elsewhere
all_tried = threading.Barrier(count)

def attempt(number):
    time.sleep(max(0, start - time.time()))
    try:
        held = lease.acquire(f"{root}/{number}", "run", seconds=3, say=lambda _: None)
    except LeaseHeld as error:
        all_tried.wait()
        return str(error)
    all_tried.wait()
    time.sleep(4)  # the other one watches for three seconds
    held.release()
    return None

with ThreadPoolExecutor(count) as pool:
    print(json.dumps(list(pool.map(attempt, range(count)))))
"""


@pytest.mark.parametrize("place", ["file", "s3"])
def test_exactly_one_of_two_gets_the_lease_twenty_times(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path) if place == "file" else request.getfixturevalue("s3_prefix")
    command = [sys.executable, "-c", SCRIPT, root, str(time.time() + 5), str(PREFIXES)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) for _ in range(2)]
    refusals = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
    for one, two in zip(*refusals, strict=True):
        assert (one is None) != (two is None), "one works, the other does not"
        assert "works on this output" in (one or two)
