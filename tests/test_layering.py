"""The rules of the house: which room may import which, and what no room may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A room may import the rooms named here (and itself). Files directly in pipeline/ are rooms too.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "credentials": set(),
    "records": {"errors"},
    "uris": {"errors"},
    "keys": {"errors"},
    "physics": {"errors", "records"},
    "plan": {"errors", "records"},
    "forecast": {"errors", "records", "plan"},
    "resolve": {"errors", "records", "physics", "uris", "keys", "credentials"},
    "config": {"errors", "records", "keys", "credentials", "resolve"},
    "model": {"errors", "records", "physics"},
    "training": {"errors", "records", "physics", "model"},
    "measure": {"errors", "records", "physics", "model", "forecast"},
    "data": {"errors", "records", "physics", "uris"},
    "audit": {"records", "uris", "data", "resolve"},
    "index": {"errors", "records", "uris", "data"},
    "waves": {"records", "data", "plan"},
    "survey": {"errors", "records", "uris", "physics", "data", "plan", "resolve", "waves"},
    "review": {"errors", "records", "uris", "data", "measure"},
    "explore": {"errors", "records", "data", "measure", "model", "resolve"},
    "pages": {"errors", "uris", "data", "measure", "review", "explore"},
    "stages": {"errors", "records", "uris", "physics", "model", "data", "measure", "plan"},
    "flow": {
        *("errors", "records", "uris", "config", "plan", "forecast", "resolve", "survey", "waves"),
        *("physics", "model", "training", "data", "stages", "measure"),
    },
    "bench": {
        *("errors", "records", "uris", "config", "physics", "plan", "model", "data", "measure", "stages", "flow"),
        *("resolve", "survey", "waves"),
    },
}
# Only these rooms may import these packages.
ONLY_IN = {
    "ray": {"flow"},
    "torch": {"bench", "physics", "model", "training", "measure", "flow"},
    "fsspec": {"data", "model"},
    "s3fs": {"data"},
    "PIL": {"bench", "data"},
    "tifffile": {"data"},
    "imagecodecs": {"data"},
    "pyarrow": {"bench", "data", "flow", "review"},
    "jinja2": {"pages"},
    "markupsafe": {"pages"},
    "pydantic": {"config"},
}
# Modules a read or write worker loads: no torch, not even by way of something else.
CPU_WORKER = (
    "pipeline.stages.read",
    "pipeline.stages.write",
    "pipeline.stages.windows",
    "pipeline.flow.graph",
    "pipeline.survey",
    "pipeline.audit",
    "pipeline.pages.report",
    "pipeline.index",
)

# Modules that run where nothing but torch and numpy is installed.
BARE = (
    "pipeline.model.restore",
    "pipeline.model.checkpoint",
    "pipeline.training.pack",
    "jobs.train_packed",
    "jobs.benchmark",
)

SOURCES = sorted((ROOT / "pipeline").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Every module named by an import anywhere in the file, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    rooms = {name.split(".")[1] for name in imported_modules(path) if name.startswith("pipeline.")}
    assert rooms - {room} <= MAY_IMPORT[room], f"{path} reaches into rooms it must not know"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_package_is_used_only_in_its_rooms(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported_modules(path)}
    astray = {package for package in packages & ONLY_IN.keys() if room_of(path) not in ONLY_IN[package]}
    assert not astray


def test_only_one_module_names_ray_data() -> None:
    users = {p.name for p in SOURCES if any(n.startswith("ray.data") for n in imported_modules(p))}
    assert users == {"graph.py"}


def test_pipeline_imports_nothing_from_jobs() -> None:
    assert not [p for p in SOURCES if any(n.split(".")[0] == "jobs" for n in imported_modules(p))]


def test_package_inits_are_empty() -> None:
    assert not [p for p in SOURCES if p.name == "__init__.py" and p.read_text(encoding="utf-8").strip()]


def test_cpu_workers_modules_do_not_load_torch() -> None:
    """One after the other in one process: the first that loads it is named."""
    each = f"for name in {CPU_WORKER}: importlib.import_module(name); 'torch' in sys.modules and sys.exit(name)"
    shown = subprocess.run(
        [sys.executable, "-c", f"import importlib, sys\n{each}"], capture_output=True, text=True, cwd=ROOT
    )
    assert shown.returncode == 0, shown.stderr


def test_model_and_training_need_only_torch_and_numpy() -> None:
    others = ("ray", "pyarrow", "fsspec", "PIL", "scipy", "pydantic", "yaml", "tqdm", "safetensors")
    script = f"import sys; sys.modules.update(dict.fromkeys({others})); import {', '.join(BARE)}"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr


def test_errors_knows_only_dataclasses() -> None:
    assert imported_modules(ROOT / "pipeline" / "errors.py") == {"dataclasses.dataclass"}
