"""Our metrics as Prometheus sees them, by its own parser."""

import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from pipeline.flow import cluster, metrics
from pipeline.flow.metrics import Metrics
from pipeline.records import DONE, FAILED, Outcome

PLACEMENT = cluster.Placement(0.5, 1.0, 1, 1, 2, 0.5, 0.5, 1, 1)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A Ray of its own: where its metrics are shown is decided when it starts."""
    if ray.is_initialized():
        ray.shutdown()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with cluster.joined(print, port):
        yield port


def scraped(port: int, name: str, seconds: float = 60) -> dict[tuple[str, ...], float]:
    """The samples of one metric by the values of their own labels, once there are any."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        found = {
            tuple(v for k, v in sorted(sample.labels.items()) if k in ("outcome", "code", "stage")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{name} was not shown within {seconds} s")


def test_outcomes_become_counters_and_gauges_that_prometheus_reads(port: int) -> None:
    now = iter([0.0, 20.0])
    told = Metrics(10, PLACEMENT, clock=now.__next__)
    restored = Outcome(
        "a", status=DONE, sr_width=1000, sr_height=500, seconds_read=0.5, seconds_restore=6.0, seconds_write=1.0
    )
    lost = Outcome("c", status=FAILED, error_code="corrupt-image", seconds_read=0.5)
    told.add([restored, restored, lost])
    assert scraped(port, "ray_unfold_items_total") == {("", "done"): 2, ("corrupt-image", "failed"): 1}
    assert scraped(port, "ray_unfold_hr_megapixels_total") == {(): 1.0}
    assert scraped(port, "ray_unfold_stage_seconds_total") == {("read",): 1.5, ("restore",): 12.0, ("write",): 2.0}
    assert scraped(port, "ray_unfold_queue_items") == {(): 7}
    assert scraped(port, "ray_unfold_replicas") == {(): 2}
    assert scraped(port, "ray_unfold_busy_share") == {(): pytest.approx(0.3)}, "12 s of two replicas' 20 s each"
    assert scraped(port, "ray_unfold_gpu_busy_share") == {(): pytest.approx(0.3)}


def busy_shares(port: int, wanted: float, seconds: float = 60) -> set[float]:
    """Both shares as they are shown, once they are the wanted one or the time is over: they are sent now and then."""
    end = time.monotonic() + seconds
    while True:
        found = {scraped(port, f"ray_unfold_{name}_share")[()] for name in ("busy", "gpu_busy")}
        if found == {wanted} or time.monotonic() > end:
            return found
        time.sleep(0.5)


@pytest.mark.slow
def test_the_busy_share_falls_to_nothing_when_nothing_was_restored_lately(port: int) -> None:
    now = 0.0
    told = Metrics(10, PLACEMENT, clock=lambda: now)
    assert told.busy_share is None
    restored = [Outcome("a", status=DONE, sr_width=10, sr_height=10, seconds_restore=10.0)]
    now = 20.0
    told.add(restored)
    now = 49.0
    told.look()
    assert told.busy_share == 0.25, "a unit may be at work three times as long as the last was"
    assert busy_shares(port, 0.25) == {0.25}
    now = 50.0
    told.look()
    assert busy_shares(port, 0.0) == {0.0}
    now = 70.0
    told.add(restored)
    assert told.busy_share == 0.25, "10 s of two replicas' 20 s each since it was idle"
    told.end()
    assert told.busy_share == 0.0


@pytest.mark.slow
def test_what_is_told_once_does_not_vanish_while_nothing_comes(port: int) -> None:
    """Ray forgets a gauge that is not set for 20 s."""
    told = Metrics(77, PLACEMENT)
    end = time.monotonic() + 35
    while time.monotonic() < end:
        told.look()
        time.sleep(0.2)
    assert scraped(port, "ray_unfold_queue_items", 1) == {(): 77}
    assert scraped(port, "ray_unfold_replicas", 1) == {(): 2}


def test_the_list_of_metrics_is_the_truth(port: int) -> None:
    now = iter([0.0, 20.0])
    told = Metrics(2, PLACEMENT, clock=now.__next__)
    told.add([Outcome("a", status=DONE, sr_width=10, sr_height=10, seconds_restore=7.0)])
    assert busy_shares(port, 0.175) == {0.175}
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    shown = {s.name for family in text_string_to_metric_families(text) for s in family.samples}
    documented = {word.split("{")[0] for word in (metrics.__doc__ or "").split() if word.startswith("ray_unfold_")}
    assert documented == {name for name in shown if name.startswith("ray_unfold_")}
