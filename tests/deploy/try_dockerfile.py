"""The Dockerfile's steps, executed in a bare Debian without any container engine. Run by hand, as root.

    python tests/deploy/try_dockerfile.py --target head --root /tmp/unfold-head

A root file system made by debootstrap (Debian's package of that name) stands in for the base image, with
Debian's own Python 3.11. ENV, SHELL, WORKDIR, COPY, RUN and USER of the target and of the stages below it
are executed in order, in a chroot with mounts and processes of its own. Then, as the image's user: the
job's --help, and a picture restored. pip uses the index that is configured outside; `--without TEXT`
leaves TEXT out of the RUN steps (an index that cannot be reached), and says so. A root that is there
already is used as it is. Not covered: the base image itself, its digest, the layers and their cache.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
STAND_IN = "python3,python3-venv,python-is-python3"  # what the base image has beside Debian's least
IGNORED = shutil.ignore_patterns("__pycache__", ".env")  # as Dockerfile.dockerignore
Instruction = tuple[str, str]

RESTORE = """
import csv, glob, os, subprocess, sys, tempfile
import numpy as np, pyarrow.parquet as pq, ray, torch
from PIL import Image
os.chdir(tempfile.mkdtemp(dir=os.path.expanduser("~")))
Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)).save("lr.png")
with open("catalog.csv", "w", newline="") as file:
    csv.writer(file).writerows([("uri", "scale", "sigma", "kernel"), ("lr.png", 2, 2.55, "gaussian(1.6)")])
job = [sys.executable, "/app/jobs/upscale_archive.py", "catalog=catalog.csv", "output=out"]
subprocess.run(job, check=True)
statuses = pq.read_table("out/manifest")["status"].to_pylist()
sizes = [Image.open(path).size for path in glob.glob("out/images/**/*.png", recursive=True)]
print("user", os.getuid(), "python", sys.version.split()[0], "ray", ray.__version__, "torch", torch.__version__)
print("restored:", statuses, sizes)
assert (statuses, sizes) == (["done"], [(96, 80)])
"""


@dataclass
class Image:
    """What instructions change. user: uid:gid."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    folder: str = "/"
    user: str = "0:0"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", default="head", choices=("head", "gpu"))
    parser.add_argument("--root", type=Path, required=True, help="folder of the root file system; made if absent")
    parser.add_argument("--without", action="append", default=[], metavar="TEXT", help="left out of RUN steps")
    args = parser.parse_args(argv)
    if not (args.root / "usr/bin/python").exists():
        bootstrap(args.root)
    image = Image(args.root.resolve())
    for name, text in stage(DOCKERFILE.read_text(encoding="utf-8"), args.target):
        began = time.monotonic()
        STEPS[name](image, thinned(text, args.without) if name == "RUN" else text)
        print(f"{time.monotonic() - began:6.1f} s  {name} {text}", flush=True)
    run_as(image, ["python", "jobs/upscale_archive.py", "--help"])
    run_as(image, ["python", "-c", RESTORE])
    print(f"all steps of {args.target} executed; the job runs in the result as {image.user}")
    return 0


def bootstrap(root: Path) -> None:
    """Debian bookworm as small as it gets, and Python."""
    command = ["debootstrap", "--variant=minbase", f"--include={STAND_IN}", "bookworm", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    check = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
    dates = [line for line in check.stdout.splitlines() if line.startswith("Acquire::Check-")]
    (root / "etc/apt/apt.conf.d/99outside").write_text("\n".join(dates) + "\n", encoding="utf-8")


def stage(text: str, target: str) -> list[Instruction]:
    """The instructions of the target, those of the stages it stands on first."""
    stages: dict[str, list[Instruction]] = {}
    for name, rest in instructions(text):
        if name == "FROM":
            below, _, own = rest.split()
            stages[own] = current = list(stages.get(below, []))
        else:
            current.append((name, rest))
    return stages[target]


def instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def thinned(command: str, without: Sequence[str]) -> str:
    for text in without:
        if text in command:
            print(f"left out: {text}")
        command = command.replace(text, "")
    return command


def env(image: Image, text: str) -> None:
    for pair in shlex.split(text):
        name, _, value = pair.partition("=")
        image.env[name] = re.sub(r"\$\{?(\w+)\}?", lambda found: image.env.get(found[1], ""), value)


def shell(image: Image, text: str) -> None:
    image.shell = re.findall(r'"([^"]*)"', text)


def workdir(image: Image, text: str) -> None:
    image.folder = text
    inside(image, text).mkdir(parents=True, exist_ok=True)


def copy(image: Image, text: str) -> None:
    *sources, target = text.split()
    for source in sources:
        there = inside(image, f"{image.folder}/{target}")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, there, dirs_exist_ok=True, ignore=IGNORED)
        else:
            shutil.copy(ROOT / source, there)


def run(image: Image, command: str) -> None:
    run_as(image, [*image.shell, command], pips=pip_settings() if "pip install" in command else {})


def user(image: Image, text: str) -> None:
    image.user = text


def inside(image: Image, path: str) -> Path:
    return image.root / path.lstrip("/")


def run_as(image: Image, command: Sequence[str], pips: dict[str, str] | None = None) -> None:
    """Execute in the root. pips: settings of pip, whose files outside are lent meanwhile."""
    variables = {**image.env, "HOME": home(image), **(pips or {})}
    chroot = ["chroot", f"--userspec={image.user}", str(image.root), "/usr/bin/env", "-i"]
    chroot += [f"{name}={value}" for name, value in variables.items()]
    chroot += ["/bin/sh", "-c", 'cd "$0" && exec "$@"', image.folder, *command]
    script = " && ".join([*mounts(image, lent(pips or {})), f"exec {shlex.join(chroot)}"])
    subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script], check=True)


def mounts(image: Image, paths: Sequence[Path]) -> Iterator[str]:
    """Commands that make a container's mounts, and those of `paths` at the same place."""
    root = shlex.quote(str(image.root))
    yield f"mount -t proc proc {root}/proc"
    yield f"mount --rbind /dev {root}/dev && mount -t tmpfs -o size=2g,mode=1777 tmpfs {root}/dev/shm"
    (image.root / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
    (image.root / "etc/hosts").write_bytes(Path("/etc/hosts").read_bytes())
    for path in paths:
        there = inside(image, str(path))
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
        elif not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.touch()
        yield f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(there))}"


def home(image: Image) -> str:
    """Of the user, by the root's own /etc/passwd."""
    accounts = (image.root / "etc/passwd").read_text(encoding="utf-8").splitlines()
    return next(line.split(":")[5] for line in accounts if line.split(":")[2] == image.user.split(":")[0])


def pip_settings() -> dict[str, str]:
    """How pip is configured outside, as environment variables."""
    shown = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = [line.split("=", 1) for line in shown.stdout.splitlines()]
    named = {key.split(".", 1)[1].replace("-", "_").upper(): value.strip("'\"") for key, value in pairs}
    return {f"PIP_{name}": value.replace("\\n", " ") for name, value in named.items()}


def lent(settings: dict[str, str]) -> list[Path]:
    """Files and folders outside that pip's settings name; of a file:// index, the folder above it."""
    words = [word for value in settings.values() for word in value.split()]
    indexes = {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")}
    return sorted(indexes | {Path(word) for word in words if word.startswith("/") and os.path.exists(word)})


STEPS = {"ENV": env, "SHELL": shell, "WORKDIR": workdir, "COPY": copy, "RUN": run, "USER": user}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
