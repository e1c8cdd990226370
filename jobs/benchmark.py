"""How fast the engine is, what the pipeline adds, and how much memory a worker takes.

    python jobs/benchmark.py engine                  packaged weights, a quick set (minutes)
    python jobs/benchmark.py engine --full --weights usrnet_tiny.pth --kernels k.npz#table1 --images FOLDER
    python jobs/benchmark.py pipeline overhead --root s3://bucket/prefix    (pipeline: also each file format)
    python jobs/benchmark.py prior context memory    what one pass costs, how far windows see, what they take
    python jobs/benchmark.py planning                what the driver of a large archive takes, in one wave and in more
    python -m jobs.benchmark device                  speed, exactness and memory on this machine's GPU
    python -m jobs.benchmark engine                  from a checkout where only torch and numpy are

Every speed is a ratio against a baseline measured in the same run (pipeline/bench/baseline.py).
`--out FILE` writes everything as JSON, with machine, versions, commit and arguments.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import torch

from jobs.program import run
from pipeline.bench import context, device, engine, memory, prior
from pipeline.bench.machine import facts
from pipeline.bench.pictures import drawn
from pipeline.errors import ConfigError
from pipeline.model.checkpoint import load_usrnet
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation

Pixels = npt.NDArray[np.uint8]

LARGE = 20  # pictures of about a megapixel
QUICK_KERNELS = ("gaussian(1.6)", "gaussian(2.0, 0.8, 30)", "motion(15, 30)")


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"machine": facts(), "arguments": arguments(args)}
    for part in args.parts:
        found[part] = PARTS[part](args)
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=tuple(PARTS), help="what to measure")
    parser.add_argument("--weights", help="checkpoint (default: the packaged weights)")
    parser.add_argument("--images", type=Path, help="folder of HR images (default: drawn here)")
    parser.add_argument("--kernels", help="FILE.npz#NAME, an array (n, kh, kw) (default: three analytic ones)")
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--compile", default="auto", choices=["auto", "off", "on"])
    parser.add_argument("--turns", type=int, default=3, help="how often what is compared takes turns")
    parser.add_argument("--full", action="store_true", help="add 20 pictures of about 1 HR megapixel")
    parser.add_argument("--root", default="benchmark", help="folder or s3:// prefix for pipeline and overhead")
    parser.add_argument("--items", type=int, help="items of pipeline (200) and overhead (5000)")
    parser.add_argument("--settings", nargs="+", default=[], help="of upscale_archive, for pipeline and overhead")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    return parser.parse_args(list(argv))


def arguments(args: argparse.Namespace) -> dict[str, Any]:
    """All of them, the defaults too, as JSON has them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def measure_engine(args: argparse.Namespace) -> dict[str, Any]:
    net = load_usrnet(args.weights)
    turns: list[engine.Turn] = []
    print(f"{'pictures':22} {'prior':6} {'baseline':>10} {'engine':>10} {'ratio':>7} {'HR MP/s':>8} {'dB lost':>8}")
    for cases in groups(args):
        for precision in args.precisions:
            for turn in engine.compare(net, cases, precision, args.compile, args.turns):
                turns.append(turn)
                print(line(turn), flush=True)
    found = engine.summary(turns)
    print(json.dumps(found))
    return found | {"turns": [vars(turn) | {"ratio": turn.ratio} for turn in turns]}


def groups(args: argparse.Namespace) -> Iterator[list[engine.Case]]:
    """Every small picture under every kernel at each scale; each large one once, scales and kernels in turn."""
    kernels = [parse_kernel(spec) for spec in QUICK_KERNELS] if args.kernels is None else stack(args.kernels)
    small = [drawn(256, 256, n) for n in range(4)] if args.images is None else photographs(args.images)
    for scale in args.scales:
        yield list(engine.cases(small, kernels, [scale], f"small x{scale}"))
    if args.full:
        turns = zip(range(LARGE), itertools.cycle(args.scales), itertools.cycle(kernels))
        yield [
            case
            for n, scale, kernel in turns
            for case in engine.cases([drawn(1008, 1008, n)], [kernel], [scale], "1 MP")
        ]


def line(turn: engine.Turn) -> str:
    return (
        f"{turn.group:22} {turn.precision:6} {turn.images / turn.baseline_seconds:6.2f} i/s"
        f" {turn.images / turn.engine_seconds:6.2f} i/s {turn.ratio:6.2f}x"
        f" {turn.hr_megapixels / turn.engine_seconds:8.2f} {turn.db_loss:8.4f}"
    )


def photographs(folder: Path) -> list[Pixels]:
    from PIL import Image

    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".png", ".jpg", ".webp", ".bmp"))
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def stack(spec: str) -> list[npt.NDArray[np.float64]]:
    path, _, name = spec.partition("#")
    return [np.asarray(kernel, np.float64) for kernel in np.load(path)[name]]


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    found = {f"{mode} {mp} MP": memory.peak_rss_mib(mode, mp) for mode, mp in memory.SIZES}
    for name, mib in found.items():
        print(f"{name:16} {mib:8.0f} MiB above the imports", flush=True)
    return {"peak_rss_mib": found}


def measure_planning(args: argparse.Namespace) -> dict[str, Any]:
    """In a temporary folder; `--items` in one wave and in ten instead of the usual sizes."""
    from pipeline.bench import planning

    cases = [(args.items, 1), (args.items, 10)] if args.items else planning.CASES
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for items, waves in cases:
            for done in (0.0, 1.0):
                found.append(planning.measured(Path(folder), items, waves, done))
                print(json.dumps(found[-1]), flush=True)
    return {"planning": found}


def measure_device(args: argparse.Namespace) -> dict[str, Any]:
    """All that a GPU has to tell, in one call; on a CPU the same with small pictures."""
    gpu = torch.cuda.is_available()
    where, side = torch.device("cuda" if gpu else "cpu"), 256 if gpu else 24
    parts = {
        "speed": device.speeds(where, side, (1, 4, 16) if gpu else (1,), ("bf16",) if gpu else ()),
        "memory": device.gpu_memory(where, (1, 4, 16, 64)),
        "profile": device.profile(where, side, 4 if gpu else 1),
        "exactness_db": [device.exactness(where, 64)],
    }
    found: dict[str, Any] = {name: [] for name in parts}
    for name, rows in parts.items():
        for row in rows:
            found[name].append(row)
            print(name, json.dumps(row), flush=True)
    return found


def measure_prior(args: argparse.Namespace) -> dict[str, Any]:
    """Of the CPU; `--threads 1` gives one core's."""
    net = load_usrnet(args.weights)
    found: dict[str, Any] = {"costs": [], "batch": prior.batch_costs(net), "peaks": prior.peaks()}
    for row in prior.costs(net):
        found["costs"].append(row)
        print(json.dumps({name: round(value, 3) for name, value in row.items()}), flush=True)
    print(json.dumps(found["batch"]), json.dumps(found["peaks"]), flush=True)
    return found


def measure_context(args: argparse.Namespace) -> dict[str, Any]:
    """PSNR between whole and cut pictures by distance from the cut, without noise and with."""
    net = load_usrnet(args.weights)
    kernels = [parse_kernel(spec) for spec in QUICK_KERNELS] if args.kernels is None else stack(args.kernels)
    pictures = [drawn(288, 512, n) for n in range(4)] if args.images is None else photographs(args.images)
    print("kernel, scale, sigma", *context.DISTANCES, sep=" | ")
    found = []
    for number, scale, sigma in itertools.product(range(len(kernels)), args.scales, (0.0, 2.55)):
        decibels = context.agreement(net, [hr / 255 for hr in pictures], Degradation(kernels[number], scale, sigma))
        shown = ("" if value is None else f"{value:.0f}" for value in decibels)
        print(f"{number + 1}, x{scale}, {sigma:g}", *shown, sep=" | ", flush=True)
        found.append({"kernel": number + 1, "scale": scale, "sigma": sigma, "decibels": decibels})
    return {"distances": context.DISTANCES, "agreement": found}


def measure_pipeline(args: argparse.Namespace) -> dict[str, Any]:
    """Needs Ray and the storage at --root. A flow counts against the bare engine before and after it."""
    from pipeline.bench import feeding

    root = f"{args.root}/pipeline-{time.time_ns()}"
    catalog = feeding.make_archive(root, args.items or 200, feeding.SIZES, scale=2)
    weights = [f"model.weights={args.weights}"] if args.weights else []
    bare, flows = [], []
    for turn in range(args.turns):
        prepared = feeding.prepare(catalog, f"{root}/out-{turn}", *weights, *args.settings)
        bare.append(feeding.bare_engine_seconds(prepared))
        flows.append(feeding.run(prepared))
        print(f"bare engine {bare[-1]:.1f} s, flow {flows[-1].restoring_seconds:.1f} s", flush=True)
    bare.append(feeding.bare_engine_seconds(prepared))
    seconds = [flow.restoring_seconds for flow in flows]
    ratios = [(a + b) / 2 / flow for a, b, flow in zip(bare, bare[1:], seconds, strict=False)]
    found = {
        "items": sum(map(len, prepared.units)),
        "units": len(prepared.units),
        "start_seconds": round(median(flow.start_seconds for flow in flows), 2),
        "flow_seconds": [round(one, 2) for one in seconds],
        "bare_engine_seconds": [round(one, 2) for one in bare],
        "speed_of_light": round(median(ratios), 3),
    }
    print(json.dumps(found), flush=True)
    return found | {"formats": measure_formats(args, f"{root}/formats")}


def measure_formats(args: argparse.Namespace, root: str) -> list[dict[str, Any]]:
    """Reading and writing beside restoring, for archives of one format each; a table, and its figures."""
    from pipeline.bench import formats
    from pipeline.model.restore import Restorer

    restorer = Restorer(load_usrnet(args.weights))
    mosaic = formats.photographs(0.4).pixels_hwc[:200]
    restorer.batch([mosaic[:32, :32]], [Degradation(parse_kernel("delta"), 2, 2.55)])
    print("| in | bits | out | read, ms/MP | restore, ms/MP | write, ms/MP | read, share | write, share |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    found = []
    pictures = [np.asarray(part, np.uint16) for part in np.split(mosaic, 3, axis=1)]
    for cost in formats.stage_costs(root, restorer, pictures):
        milliseconds = (f"{1000 * seconds:.0f}" for seconds in (cost.read, cost.restore, cost.write))
        shares = (f"{part / cost.restore:.2%}" for part in (cost.read, cost.write))
        print("|", " | ".join([cost.format, str(cost.bits), cost.written, *milliseconds, *shares]), "|", flush=True)
        found.append(vars(cost))
    return found


def measure_overhead(args: argparse.Namespace) -> dict[str, Any]:
    from pipeline.bench import feeding

    root = f"{args.root}/overhead-{time.time_ns()}"
    catalog = feeding.make_archive(root, args.items or 5000, ((64, 64),), scale=2)
    flow = feeding.run(feeding.prepare(catalog, f"{root}/out", *args.settings), feeding.PassThrough)
    if not flow.items:
        raise ConfigError("--items: too few for more than one work unit, so there is no steady state to measure")
    found: dict[str, Any] = {
        "items": flow.items,
        "start_seconds": round(flow.start_seconds, 2),
        "items_per_second": round(flow.items / flow.steady_seconds, 1),
        "cpu_ms_per_item": round(1000 * flow.cpu_seconds / flow.items, 2),
    }
    if args.root.startswith("s3://"):
        from pipeline.bench import clients

        found["client_cpu_ms"] = clients.cpu_ms_per_item(f"{root}/clients")
    print(json.dumps(found), flush=True)
    return found


PARTS = {
    "engine": measure_engine,
    "prior": measure_prior,
    "context": measure_context,
    "pipeline": measure_pipeline,
    "overhead": measure_overhead,
    "memory": measure_memory,
    "planning": measure_planning,
    "device": measure_device,
}


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
