"""Submit a command to a cluster that stays, and end as it ended. Runs in a pod of a Job.

    submit.py COMMAND...    what the cluster's head is to run

Submissions are named after the Job and counted: JOB-1, JOB-2, ... A pod that comes after another watches
the last one where it is at work, done or stopped by somebody. Where it failed, or there is none because the
head was lost with all that it knew, the pod submits the next one.
"""

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Sequence

from ray.job_submission import JobStatus, JobSubmissionClient

LOOK_EVERY_S = 5.0


def main(command: Sequence[str]) -> int:
    """0 when the command succeeded, else 1; raises when the cluster does not answer."""
    client = JobSubmissionClient(os.environ["RAY_API_SERVER_ADDRESS"])
    name = submission(client, os.environ["JOB_NAME"], shlex.join(command))
    status = watched(client, name)
    print(f"submission {name}: {status}", flush=True)
    return int(status != JobStatus.SUCCEEDED)


def submission(client: JobSubmissionClient, job: str, entrypoint: str) -> str:
    """The Job's submission to watch: the last one, or a new one where that failed or is not known."""
    known = {one.submission_id: one.status for one in client.list_jobs()}
    count = 0
    while f"{job}-{count + 1}" in known:
        count += 1
    last = f"{job}-{count}"
    if known.get(last, JobStatus.FAILED) != JobStatus.FAILED:
        print(f"watching submission {last}", flush=True)
        return last
    return client.submit_job(entrypoint=entrypoint, submission_id=f"{job}-{count + 1}")


def watched(client: JobSubmissionClient, name: str) -> JobStatus:
    """How the submission ended; what it says goes to stdout meanwhile."""
    asyncio.run(say(client, name))
    while not (status := client.get_job_status(name)).is_terminal():
        time.sleep(LOOK_EVERY_S)  # its log broke off
    return status


async def say(client: JobSubmissionClient, name: str) -> None:
    async for lines in client.tail_job_logs(name):
        print(lines, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
