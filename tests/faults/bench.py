"""The bench on which faults are tried: an archive on S3 behind a fault proxy, a two-node Ray cluster, a reader.

What must hold after each trial is looked up at the store itself, never at what the runs say.
"""

import contextlib
import csv
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow.parquet as pq
import ray
from PIL import Image
from proxy import FaultProxy, Request
from ray.cluster_utils import Cluster
from s3fs import S3FileSystem

from pipeline.config.load import load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import manifest, storage
from pipeline.data.audit import Claim, damage
from pipeline.errors import LeaseHeld, UnfoldError
from pipeline.flow import oversee
from pipeline.flow.archive import restore_archive
from pipeline.model.checkpoint import save_safetensors
from pipeline.model.usrnet import Architecture
from pipeline.training.loop import initial_usrnet

ROOT = Path(__file__).resolve().parents[2]
JOB = str(ROOT / "jobs" / "upscale_archive.py")
ITEMS = 24
LEASE_S = 2.0
WORKER = r"ray::(?!IDLE|DashboardAgent|RuntimeEnvAgent)"  # its process title while it does something
ATTEMPTS = 4  # runs after the disturbed one, at most


@dataclass(frozen=True)
class Result:
    """What a trial came to.

    struck: how often the fault really happened. again: images written more than once; None where they
    are not seen, on a local disk. torn: seen by the reader.
    codes: of all runs. problem: what a run did that the fault does not excuse.
    """

    lost: int
    doubled: int
    damaged: int
    torn: int
    again: int | None
    codes: Sequence[int]
    seconds: float
    struck: int
    problem: str = ""


class Bench:
    """endpoint: of the S3 server. bucket: to work in. Needs AWS_* in the environment, but for the endpoint."""

    def __init__(self, endpoint: str, bucket: str, folder: Path) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.started: list[subprocess.Popen[str]] = []
        self.struck = 0  # beside what the proxy did
        oversee._STARVED_S = 10.0
        self.proxy = FaultProxy(int(endpoint.rpartition(":")[2]))
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{self.proxy.port}"
        S3FileSystem.clear_instance_cache()  # those there know the server itself, and those of now will know the proxy
        self.base = f"s3://{bucket}/{uuid4().hex}"
        self.weights = str(folder / "small.safetensors")
        small = Architecture(iterations=1, hidden=8, widths=(8, 8, 8, 8), blocks=1)
        save_safetensors(initial_usrnet(small, seed=0).state_dict(), self.weights, {})
        self.catalog = self._archive()
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 2**28})
        for name in ("ray.data", "ray.data._internal.progress"):
            logging.getLogger(name).setLevel(logging.ERROR)
        ray.init(address=self.cluster.address, logging_level="ERROR", log_to_driver=False)

    def close(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()
        self.proxy.close()
        S3FileSystem.clear_instance_cache()

    def _archive(self) -> str:
        table = io.StringIO()
        rows = csv.writer(table)
        rows.writerow(("uri", "id", "scale", "sigma", "kernel"))
        for number in range(ITEMS):
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            storage.write_bytes(f"{self.base}/lr/{number:03}.png", file.getvalue())
            rows.writerow((f"{number:03}.png", f"item-{number:03}", 2, 0, "gaussian(1.2)"))
        storage.write_bytes(f"{self.base}/lr/catalog.csv", table.getvalue().encode())
        return f"{self.base}/lr/catalog.csv"

    def settings(self, output: str, *more: str) -> list[str]:
        """Small units, so that a fault finds much at work, and a lease that needs no minute."""
        fixed = (f"catalog={self.catalog}", f"output={output}", f"model.weights={self.weights}")
        small = ("restore.unit_items=2", f"run.lease_seconds={LEASE_S}", "run.breaker_items=12")
        return [*fixed, *small, *more]

    def run(self, output: str, *more: str) -> int:
        """One run in this process; its exit code."""
        try:
            summary = restore_archive(load_config(UpscaleConfig, None, self.settings(output, *more)), lambda _: None)
        except LeaseHeld:
            return 5
        except UnfoldError:
            return 4
        return 3 if summary.failed else 0

    def start(self, output: str, *more: str) -> "subprocess.Popen[str]":
        """One run as a process of its own on the same cluster."""
        environment = {**os.environ, "RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(ROOT)}
        config = ["--config", str(ROOT / "conf" / "upscale_archive.yaml")]
        process = subprocess.Popen(
            [sys.executable, JOB, *config, *self.settings(output, *more)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def end_processes(self) -> None:
        """No process of a trial outlives it."""
        while self.started:
            process = self.started.pop()
            if process.poll() is None:
                process.kill()
                process.communicate()

    def finish(self, output: str, *more: str) -> list[int]:
        """Runs until one has finished; their exit codes."""
        codes: list[int] = []
        while not codes or (codes[-1] != 0 and len(codes) < ATTEMPTS):
            codes.append(self.run(output, *more))
        return codes

    def after_images(self, count: int, action: Callable[[], None]) -> threading.Event:
        """`action` in a thread, once, when so many images were written; the event tells that it is done."""
        seen, started, done = [0], threading.Event(), threading.Event()

        def act() -> None:
            action()
            done.set()

        def watch(request: Request) -> None:
            seen[0] += is_image(request)
            if seen[0] >= count and not started.is_set():
                started.set()
                threading.Thread(target=act, daemon=True).start()

        self.proxy.watchers.append(watch)
        return done

    def workers(self) -> list[int]:
        """Process ids of Ray's workers on this cluster that do something.

        Not the agents beside them: with an agent its raylet ends, and with its raylet the driver.
        """
        raylets = {pid for pid, parent, _ in processes() if parent == os.getpid()}
        return [pid for pid, parent, line in processes() if parent in raylets and re.match(WORKER, line)]

    def kill_a_worker(self, chance: np.random.Generator) -> None:
        if workers := self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(chance.choice(workers)), signal.SIGKILL)
                self.struck += 1


def is_image(request: Request) -> bool:
    return request.method == "PUT" and request.status == 200 and "/images/" in request.path


def processes() -> Iterator[tuple[int, int, str]]:
    """(process id, parent's, command line) of all."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            yield int(entry.name), int(stat.rpartition(")")[2].split()[1]), line


class Reader:
    """Somebody who looks at the output all the time: `torn` lists objects that could not be read whole."""

    def __init__(self, endpoint: str, output: str) -> None:
        direct = S3FileSystem(endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True)
        self._files = direct if output.startswith("s3://") else fsspec.filesystem("file")
        self._output = output.removeprefix("s3://")
        self._seen: dict[str, object] = {}
        self.torn: list[str] = []

    @contextmanager
    def looking(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,), daemon=True)
        thread.start()
        yield
        stop.set()
        thread.join(30)
        self.look_once()

    def _look(self, stop: threading.Event) -> None:
        while not stop.wait(0.3):
            with contextlib.suppress(OSError):  # the server is loaded; the next look sees as much
                self.look_once()

    def look_once(self) -> None:
        for kind in ("images", "manifest"):
            with contextlib.suppress(FileNotFoundError):
                for name, info in self._files.find(f"{self._output}/{kind}", detail=True).items():
                    mark = (info.get("ETag"), info.get("mtime"), info["size"])
                    if self._seen.get(name) != mark and not name.rpartition("/")[2].startswith("."):
                        self._seen[name] = mark
                        self._check(name)

    def _check(self, name: str) -> None:
        try:
            data = io.BytesIO(self._files.cat_file(name))
        except FileNotFoundError:
            return  # replaced meanwhile
        try:
            pq.read_table(data) if name.endswith(".parquet") else Image.open(data).load()
        except Exception as error:
            self.torn.append(f"{name}: {error}")


def tried(bench: Bench, fault: Callable[[Bench, str, int], Sequence[int]], number: int, local: Path | None) -> Result:
    """One trial: a run with the fault, runs until one has finished, and what is there then."""
    output = f"{local}/{uuid4().hex}" if local else f"{bench.base}/{uuid4().hex}"
    bench.proxy.heal()
    bench.proxy.log.clear()
    bench.struck = bench.proxy.applied = 0
    reader, begin = Reader(bench.endpoint, output), time.monotonic()
    codes, problem = [], ""
    with reader.looking():
        try:
            codes += fault(bench, output, number)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        bench.end_processes()
        bench.proxy.heal()
        struck = bench.struck + bench.proxy.applied
        codes += bench.finish(output)
    seconds = time.monotonic() - begin
    rows = manifest.read(output).to_pylist()
    ids = [row["item_id"] for row in rows]
    done = {row["item_id"]: row for row in rows if row["status"] == "done"}
    claims = [Claim(r["item_id"], r["sr_uri"], r["output_bytes"], r["output_sha256"]) for r in done.values()]
    return Result(
        lost=ITEMS - len(done),
        doubled=len(ids) - len(set(ids)),
        damaged=sum(damage(claim) is not None for claim in claims),
        torn=len(reader.torn),
        again=None if local else max(0, sum(map(is_image, bench.proxy.log)) - len(done)),
        codes=codes,
        seconds=seconds,
        struck=struck,
        problem=problem,
    )
