"""The schedule's script against a server that keeps objects as the API server does.

The operator is pretended: of it there is only that its submitting Job has the RayJob's name, and that where
such a Job is there already it makes none, and the RayJob never ends.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "k8s" / "components" / "cronjob" / "create_rayjob.py"
sys.path.insert(0, str(SCRIPT.parent))

from create_rayjob import named_after

PREFIX = "/apis/ray.io/v1/namespaces/unfold/rayjobs"
JOB = "unfold-nightly-29402460"
RUN = f"{JOB}-run"
TEMPLATE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "unfold-restore", "uid": "1", "labels": {"a": "b", "unfold/template": "true"}},
    "spec": {"entrypoint": "python jobs/restore_nightly.py", "suspend": True},
    "status": {"jobDeploymentStatus": "Suspended"},
}


class Api(ThreadingHTTPServer):
    """RayJobs by name, and whose the Jobs are. ends: what the operator makes of a RayJob at its second look."""

    def __init__(self, ends: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.objects: dict[str, dict[str, Any]] = {"unfold-restore": json.loads(json.dumps(TEMPLATE))}
        self.jobs = {JOB: "the schedule's"}
        self.ends, self.made, self.looks, self.down, self.refusal = ends, 0, 0, 0, ""

    def submitted(self, name: str) -> bool:
        """Whether the operator can submit the RayJob."""
        return self.jobs.setdefault(name, "the operator's") == "the operator's"


class _Answers(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        found = self.server.objects.get(self.path.removeprefix(f"{PREFIX}/"))
        if found is None:
            return self._answer(404, {})
        if found["metadata"]["name"] != "unfold-restore":
            self.server.looks += 1
            if self.server.looks <= self.server.down:
                return self._answer(503, {})
            if self.server.looks >= 2 and self.server.submitted(found["metadata"]["name"]):
                found["status"] = self.server.ends
        return self._answer(200, found)

    def do_POST(self) -> None:
        assert self.headers["Authorization"] == "Bearer token"
        assert self.path == PREFIX
        if self.server.refusal:
            return self._answer(403, {"message": self.server.refusal})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.made += 1
        self.server.objects[body["metadata"]["name"]] = body
        return self._answer(201, body)

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fire(api: Api, folder: Path) -> "subprocess.CompletedProcess[str]":
    (folder / "namespace").write_text("unfold\n")
    (folder / "token").write_text("token")
    environment = os.environ | {
        "JOB_NAME": JOB,
        "JOB_UID": "job-uid",
        "ACCOUNT_FOLDER": str(folder),
        "KUBERNETES_API": f"http://127.0.0.1:{api.server_port}",
        "LOOK_EVERY_SECONDS": "0.05",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, str(SCRIPT), "unfold-restore"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)


def test_it_copies_the_template_once_and_owns_nothing_of_it(api: Api, tmp_path: Path) -> None:
    shown = fire(api, tmp_path)
    assert shown.returncode == 0, shown.stderr
    made = api.objects[RUN]
    assert api.jobs == {JOB: "the schedule's", RUN: "the operator's"}
    assert made["spec"] == {"entrypoint": "python jobs/restore_nightly.py", "suspend": False}
    assert made["metadata"]["labels"] == {"a": "b"}
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", JOB, "job-uid")
    assert "uid" not in made["metadata"]
    assert fire(api, tmp_path).returncode == 0, "a pod that comes back finds it"
    assert api.made == 1


def test_a_queue_admits_its_jobs_and_not_their_template(api: Api, tmp_path: Path) -> None:
    api.objects["unfold-restore"]["metadata"]["annotations"] = {"unfold/queue": "unfold"}
    assert fire(api, tmp_path).returncode == 0
    made = api.objects[RUN]
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"] == {"a": "b", "kueue.x-k8s.io/queue-name": "unfold"}
    assert made["metadata"]["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}


def test_what_the_api_server_says_against_a_job_is_told(api: Api, tmp_path: Path) -> None:
    api.refusal = "only when workload slicing is enabled"
    shown = fire(api, tmp_path)
    assert shown.returncode != 0
    assert api.refusal in shown.stdout


@pytest.mark.parametrize("length", [1, 42, 43, 44, 63])
def test_a_rayjob_has_a_name_that_kuberay_takes_and_never_its_jobs(length: int) -> None:
    job = "n" * (length - 1) + "1"
    name = named_after(job)
    assert len(name) <= 47
    assert name not in (job, named_after("n" * (length - 1) + "2"))
    assert name == named_after(job)


@pytest.mark.parametrize(
    "ends",
    [
        {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "out of attempts"},
        {"jobDeploymentStatus": "ValidationFailed"},
        {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED"},
    ],
)
def test_a_failed_job_fails_the_firing(api: Api, tmp_path: Path, ends: dict[str, str]) -> None:
    api.ends = ends
    shown = fire(api, tmp_path)
    assert shown.returncode == 1
    assert ends["jobDeploymentStatus"] in shown.stdout


def test_an_api_server_that_is_away_for_a_while_is_waited_for(api: Api, tmp_path: Path) -> None:
    api.down = 3
    assert fire(api, tmp_path).returncode == 0


def test_without_a_template_it_says_so(api: Api, tmp_path: Path) -> None:
    del api.objects["unfold-restore"]
    shown = fire(api, tmp_path)
    assert shown.returncode != 0
    assert "apply the overlay again" in shown.stderr
