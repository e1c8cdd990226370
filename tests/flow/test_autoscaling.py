"""GPU nodes come for a run and go after it: Ray's own autoscaler, its nodes by the fake_multinode provider.

The nodes are real raylets with a pretended GPU; what starts them on Kubernetes is not tried here.
"""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from nodes import archive, autoscaled, small_weights, statuses, wait_until

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

GPUS = 2
IDLE_S = 6.0


def test_gpu_nodes_come_for_a_run_and_go_after_it(s3: str, s3_prefix: str, tmp_path: Path) -> None:
    settings = archive(s3_prefix, small_weights(tmp_path / "small.safetensors"), 60)
    with autoscaled(gpus=GPUS, idle_seconds=IDLE_S) as nodes:
        log = nodes.folder / "ray" / "session_latest" / "logs" / "monitor.log"
        wait_until(lambda: nodes.count()["cpu"] == 1, lambda: log.read_text())
        began, seen = time.monotonic(), [(0.0, nodes.count()["gpu"])]
        job = nodes.submit(*settings, f"restore.replicas.min={GPUS}", f"restore.replicas.max={GPUS}")
        while job.process.poll() is None:
            assert time.monotonic() < began + 300, job.said() + log.read_text()
            seen.append((time.monotonic() - began, nodes.count()["gpu"]))
            time.sleep(0.5)
        assert job.ended() == 0, job.said()
        took = time.monotonic() - began
        wait_until(lambda: nodes.count()["gpu"] == 0, lambda: log.read_text())
        seen.append((time.monotonic() - began, nodes.count()["gpu"]))
        assert nodes.count()["cpu"] == 1, "the group of at least one stays"
    print(
        "GPU nodes:", ", ".join(f"{count} at {at:.0f} s" for at, count in changes(seen)), f"(job ended at {took:.0f} s)"
    )
    assert statuses(s3_prefix) == ["done"] * 60
    counts = [count for _, count in seen]
    assert (counts[0], max(counts), counts[-1]) == (0, GPUS, 0)


def changes(seen: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return [pair for n, pair in enumerate(seen) if n == 0 or pair[1] != seen[n - 1][1]]
