"""Make a RayJob from a suspended one, wait for it, and end as it ended. Runs in a pod of a Job.

    create_rayjob.py TEMPLATE    the name of the suspended RayJob

The new RayJob is named after the Job, so a pod that is started again finds it instead of making another,
but not as the Job: KubeRay gives the Job that submits the RayJob's own name, and where it finds one
there already it submits nothing. It belongs to the Job, so it goes when the schedule's history forgets
the Job. Only the standard library: it runs before anything of ours is known to work.
"""

import hashlib
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("ACCOUNT_FOLDER", "/var/run/secrets/kubernetes.io/serviceaccount"))
SERVER = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
LOOK_EVERY_S = float(os.environ.get("LOOK_EVERY_SECONDS", "15"))
QUEUE = "unfold/queue"  # annotation of the template: the LocalQueue of Kueue that admits what is made of it
MOST_FAILED_LOOKS = 40  # ten minutes without an API server
LONGEST_NAME = 47  # of a RayJob, which KubeRay makes longer names of


def main(template: str) -> int:
    job = os.environ["JOB_NAME"]
    name = named_after(job)
    if call("GET", name) is None:
        call("POST", "", copy(call("GET", template) or {}, job, os.environ["JOB_UID"]))
        print(f"made RayJob {name}", flush=True)
    return wait(name)


def named_after(job: str) -> str:
    """The name of the Job's RayJob: always the same one, and never the Job's."""
    name = f"{job}-run"
    if len(name) > LONGEST_NAME:
        end = f"-{hashlib.sha256(job.encode()).hexdigest()[:8]}-run"
        name = job[: LONGEST_NAME - len(end)] + end
    return name


def copy(template: dict[str, Any], job: str, uid: str) -> dict[str, Any]:
    """A RayJob to be made: the template's spec, to run at once unless a queue is to admit it."""
    if not template:
        raise SystemExit("there is no such RayJob to copy; apply the overlay again")
    labels = {key: text for key, text in template["metadata"].get("labels", {}).items() if key != "unfold/template"}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid, "blockOwnerDeletion": False}
    made = {"name": named_after(job), "labels": labels, "ownerReferences": [owner]}
    queue = template["metadata"].get("annotations", {}).get(QUEUE)
    if queue:
        labels["kueue.x-k8s.io/queue-name"] = queue
        made["annotations"] = {"kueue.x-k8s.io/elastic-job": "true"}  # for its cluster grows
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": made,
        "spec": {**template["spec"], "suspend": queue is not None},
    }


def wait(name: str) -> int:
    """0 when the RayJob is complete, 1 when it failed or is gone."""
    failed_looks = 0
    while failed_looks < MOST_FAILED_LOOKS:
        time.sleep(LOOK_EVERY_S)
        try:
            job = call("GET", name)
        except OSError as error:
            failed_looks += 1
            print(f"the API server does not answer: {error}", flush=True)
            continue
        failed_looks = 0
        status = (job or {"status": {"jobDeploymentStatus": "Gone"}}).get("status", {})
        state = status.get("jobDeploymentStatus", "")
        if state in ("Complete", "Failed", "ValidationFailed", "Gone"):
            print(f"RayJob {name}: {state} {status.get('jobStatus', '')} {status.get('message', '')}", flush=True)
            return int(state != "Complete" or status.get("jobStatus") == "FAILED")
    return 1


def call(method: str, name: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The API server's answer; None where there is no such object, or one of that name is there already."""
    namespace = (ACCOUNT / "namespace").read_text().strip()
    request = urllib.request.Request(
        f"{SERVER}/apis/ray.io/v1/namespaces/{namespace}/rayjobs/{name}".rstrip("/"),
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"},
    )
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")) if SERVER.startswith("https") else None
    try:
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if (method, error.code) in (("GET", 404), ("POST", 409)):
            return None
        print(f"{method} {name}: {error.code} {error.read().decode(errors='replace')}", flush=True)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
