"""A cluster of three nodes as on Kubernetes: a head without work, a CPU node, a node with a (pretended) GPU.

Each node is a raylet of its own, started by `ray start`; jobs go through the real job server, to S3.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from nodes import (
    Nodes,
    archive,
    done_before,
    family,
    is_running,
    small_weights,
    statuses,
    three_nodes,
    wait_for_parts,
    wait_until,
)

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

# What a head without CPUs still runs: the job's driver, our accounts of crashes, Ray Data's own book-keeping.
ON_HEAD = {"JobSupervisor", "Ledger", "ActorLocationTracker", "_StatsActor", "_AutoscalingCoordinatorActor"}


@pytest.fixture
def nodes(s3: str) -> Iterator[Nodes]:
    with three_nodes() as made:
        yield made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


def test_stages_stay_where_they_belong(nodes: Nodes, s3_prefix: str, weights: str) -> None:
    job = nodes.submit(*archive(s3_prefix, weights, 8))
    assert job.ended() == 0, job.said()
    assert statuses(s3_prefix) == ["done"] * 8

    kinds = nodes.kinds()
    assert sorted(kinds.values()) == ["cpu", "gpu", "head"]
    ran: dict[str, set[str]] = {}
    for task in nodes.listed("tasks"):
        for stage in ("_read_unit", "Replica", "_write_unit"):
            if stage in task["name"] and task["node_id"]:
                ran.setdefault(stage, set()).add(kinds[task["node_id"]])
    for actor in nodes.listed("actors"):
        if "MapWorker" in actor["class_name"] or "Replica" in actor["class_name"]:
            ran.setdefault("Replica", set()).add(kinds[actor["node_id"]])
    assert ran == {"_read_unit": {"cpu"}, "Replica": {"gpu"}, "_write_unit": {"cpu"}}
    assert on_the_head(nodes) <= ON_HEAD


def on_the_head(nodes: Nodes) -> set[str]:
    """The classes of all actors, and the names of all tasks that are no actor's, that ran on the head."""
    kinds = nodes.kinds()
    actors = {actor["class_name"] for actor in nodes.listed("actors") if kinds.get(actor["node_id"]) == "head"}
    tasks = [task for task in nodes.listed("tasks") if kinds.get(task["node_id"]) == "head"]
    return actors | {task["name"] for task in tasks if task["type"] == "NORMAL_TASK"}


def test_a_run_survives_its_gpu_node_and_goes_on_where_there_is_another(
    nodes: Nodes, s3_prefix: str, weights: str
) -> None:
    job = nodes.submit(*archive(s3_prefix, weights, 60))
    wait_for_parts(f"{s3_prefix}/out", 2, job)
    nodes.kill("gpu")
    assert len(statuses(s3_prefix)) < 60, "in the middle of the run"
    nodes.start("gpu-2", "--num-cpus=2", "--num-gpus=1")
    assert job.ended() == 0, job.said()
    assert statuses(s3_prefix) == ["done"] * 60


def test_after_the_head_is_lost_the_job_submitted_again_finishes_the_rest(
    s3: str, s3_prefix: str, weights: str
) -> None:
    """As on KubeRay: without its head the cluster goes, and the RayJob submits again to a new one."""
    settings = archive(s3_prefix, weights, 60)
    with three_nodes({"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}) as nodes:  # of 60: workers give up sooner
        job = nodes.submit(*settings)
        wait_for_parts(f"{s3_prefix}/out", 2, job)
        workers = [pid for name in ("cpu", "gpu") for pid in family(nodes.running[name].pid)]
        nodes.kill("head")
        assert job.ended(60) != 0, "as a RayJob's submitter, which is then started again"
        wait_until(lambda: not any(map(is_running, workers)), lambda: "a worker outlives its head")
    before = statuses(s3_prefix)
    assert 0 < len(before) < 60
    assert set(before) == {"done"}, "no item fails because the head went"
    with three_nodes() as again:
        job = again.submit(*settings)
        assert job.ended() == 0, job.said()
        assert done_before(job.said()) == len(before)
    assert statuses(s3_prefix) == ["done"] * 60
