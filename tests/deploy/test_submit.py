"""The standing cluster's submitting pod, against a real job server that asks for a token."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "k8s" / "components" / "standing" / "submit.py"
sys.path.insert(0, str(ROOT / "tests" / "flow"))

from nodes import RAY, Job, Nodes, cluster, wait_until

pytestmark = pytest.mark.slow

FAILS_ONCE = """
import pathlib, sys
began = pathlib.Path(sys.argv[1])
again = began.exists()
with began.open("a") as file:
    file.write("began\\n")
print("it is again" if again else "it is the first time")
sys.exit(0 if again else 4)
"""
WAITS = """
import pathlib, sys, time
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write("began\\n")
while not pathlib.Path(sys.argv[1] + ".end").exists():
    time.sleep(0.2)
print("it waited to the end")
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Nodes]:
    with cluster({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex}) as nodes:
        nodes.start_head()
        yield nodes


def pod(head: Nodes, job: str, program: str, began: Path) -> Job:
    """A pod of the Job, whose command appends a line to `began` each time that it runs."""
    named = {"RAY_API_SERVER_ADDRESS": head.url, "JOB_NAME": job}
    command = [sys.executable, str(SCRIPT), "python", "-c", program, str(began)]
    return Job(command, began.parent / f"{uuid4().hex}.log", head.environment | named)


def runs(began: Path) -> int:
    return len(began.read_text().splitlines()) if began.exists() else 0


def test_a_run_that_failed_is_submitted_again_and_one_that_succeeded_is_not(head: Nodes, tmp_path: Path) -> None:
    began = tmp_path / "began"
    first, second, third = (pod_ended(pod(head, "night-1", FAILS_ONCE, began)) for _ in range(3))
    assert first == (1, "it is the first time")
    assert second == (0, "it is again")
    assert third == (0, "it is again")
    assert runs(began) == 2


def pod_ended(pod: Job) -> tuple[int, str]:
    """Its exit code, and what the command said."""
    code = pod.ended(60)
    return code, next((line for line in pod.said().splitlines() if line.startswith("it ")), pod.said())


def test_a_pod_that_comes_after_a_lost_one_watches_the_same_run(head: Nodes, tmp_path: Path) -> None:
    began = tmp_path / "began"
    lost = pod(head, "night-2", WAITS, began)
    wait_until(lambda: runs(began) == 1, lost.said, 60)
    lost.process.send_signal(signal.SIGKILL)
    lost.process.wait()
    after = pod(head, "night-2", WAITS, began)
    wait_until(lambda: "watching submission night-2-1" in after.said(), after.said, 60)
    Path(f"{began}.end").touch()
    assert pod_ended(after) == (0, "it waited to the end")
    assert runs(began) == 1


def test_a_run_that_somebody_stopped_stays_stopped(head: Nodes, tmp_path: Path) -> None:
    began = tmp_path / "began"
    first = pod(head, "night-3", WAITS, began)
    wait_until(lambda: runs(began) == 1, first.said, 60)
    stop = [RAY, "job", "stop", f"--address={head.url}", "night-3-1"]
    subprocess.run(stop, env=head.environment, check=True, capture_output=True, timeout=60)
    assert first.ended(60) == 1
    assert pod(head, "night-3", WAITS, began).ended(60) == 1
    assert runs(began) == 1


def test_where_no_cluster_answers_the_pod_fails_and_is_tried_again(head: Nodes, tmp_path: Path) -> None:
    began = tmp_path / "began"
    named = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9", "JOB_NAME": "night-4"}
    command = [sys.executable, str(SCRIPT), "python", "-c", WAITS, str(began)]
    assert Job(command, tmp_path / "pod.log", head.environment | named).ended(60) != 0
    assert runs(began) == 0
