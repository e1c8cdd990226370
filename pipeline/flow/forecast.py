"""What a run over an archive would cost: `--plan` of jobs/upscale_archive.py. Writes nothing.

survey     catalog minus what is done, as the run itself does it, wave by wave
sizes      width and height from the headers of images where the catalog has none, in parallel
units      what the run will cut of the items, and the images that it will restore by windows
measure    parts of a few of the first wave's on the cluster, or the manifest's newest run
forecast   pure: pipeline.forecast
"""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from time import monotonic
from typing import Any

import pyarrow.compute as pc

from pipeline import uris
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import manifest, storage
from pipeline.data.peek import header_facts
from pipeline.errors import ConfigError, ItemError
from pipeline.flow import archive, cluster
from pipeline.flow.calibrate import calibrated
from pipeline.flow.cluster import Placement
from pipeline.forecast import Forecast, Machines, Measurement, Sample, Workload, bites, forecast
from pipeline.plan import split_by_size
from pipeline.records import DONE, Item
from pipeline.waves import Waves

_PEEKS = 32  # at once: each waits for a few kilobytes
_BATCH_PIXELS = 2e6  # HR pixels that a replica restores at once, unless one image has more
_BITE_ON_CPU = 5e5  # HR pixels of one measurement: seconds on a core, and batches gain nothing there
_MOST_AT_ONCE = 8  # replicas measured side by side: enough to see what neighbours cost


def forecast_archive(config: UpscaleConfig, say: Callable[[str], None] = print) -> Forecast:
    """Count, measure and estimate. Raises what `archive.restore_archive` raises before any work."""
    config = config.model_copy(update={"output": uris.absolute(config.output)})
    begin = monotonic()
    weights, model_id = archive.load_weights(config.model.weights)
    waves = archive.plan_waves(config, model_id, say)
    planning = monotonic() - begin
    counts = waves.counts
    invalid = dict(counts.invalid.most_common())
    result = Forecast(counts.items, counts.done, counts.waiting, counts.todo, invalid=invalid)
    result.whole_megapixels = config.restore.whole_megapixels
    if not counts.todo:
        return result
    begin = monotonic()
    with cluster.joined(say) as own:
        joining = monotonic() - begin
        placement = archive.place(config, own, say)
        workload, first = _workload(config, waves, placement.largest, result)
        measurement = _measurement(config, first, weights, model_id, placement)
        machines = _machines(config, placement)
    startup = measurement.startup_seconds + planning + (joining if measurement.alone else 0.0)
    measurement = replace(measurement, startup_seconds=startup)
    return forecast(result, workload, measurement, machines, config.plan.price_per_hour)


def as_json(result: Forecast) -> str:
    return json.dumps({**vars(result), "cells": [vars(cell) for cell in result.cells]}, indent=2)


@dataclass(frozen=True)
class _Wave:
    """What a wave restores: work units as the run cuts them at first, and images that go by windows."""

    units: list[list[Item]]
    large: list[Item]


def _workload(config: UpscaleConfig, waves: Waves, replicas: int, result: Forecast) -> tuple[Workload, _Wave]:
    """All items that can be restored, summed up, and the first wave; what headers refuse goes to `result`."""
    workload, first = Workload(), _Wave([], [])
    unreadable, sizes = Counter[str](), Counter[str]()
    for wave in range(waves.number):
        todo = waves.plan(wave).todo
        found = _cut(config, todo, _sized(todo, unreadable, sizes))
        workload.add(found.units, found.large, replicas)
        if not (first.units or first.large):
            first = found
    result.unreadable = dict(unreadable.most_common())
    result.sizes = {name: sizes[name] for name in ("from the catalog", "from headers", "guessed")}
    return workload, first


def _sized(items: list[Item], unreadable: Counter[str], sizes: Counter[str]) -> list[Item]:
    """The items that can be restored, with their sizes; the others are counted by their error's code."""
    with ThreadPoolExecutor(_PEEKS) as pool:
        found = list(pool.map(_peeked, items))
    unreadable.update(entry.code for entry in found if isinstance(entry, ItemError))
    sound = [entry for entry in found if isinstance(entry, Item)]
    known = sum(1 for item in items if item.width and item.height)
    sized = sum(1 for item in sound if item.width and item.height)
    sizes.update({"from the catalog": known, "from headers": sized - known, "guessed": len(sound) - sized})
    return sound


def _cut(config: UpscaleConfig, todo: list[Item], sound: list[Item]) -> _Wave:
    """The run cuts units knowing the catalog's sizes only.

    sound: those of `todo` that can be restored, with their sizes; a large one leaves its unit when it is read.
    """
    most = config.restore.whole_megapixels * 1e6
    whole, large = split_by_size(sound, most)
    known = {item.item_id: item for item in whole}
    planned = archive.units_of(config, split_by_size(todo, most)[0])
    units = [[known[item.item_id] for item in unit if item.item_id in known] for unit in planned]
    return _Wave([unit for unit in units if unit], large)


def _peeked(item: Item) -> Item | ItemError:
    """A storage that does not answer is no property of the item: then the size stays unknown."""
    if item.width and item.height:
        return item
    try:
        size = item.size if item.size is not None else storage.stat(item.uri).size
        facts = header_facts(item.uri, size) if item.page == 0 else None
    except ItemError as error:
        return item if error.code == "storage-transient" else error
    if facts is None:
        return replace(item, size=size)
    return replace(item, width=facts.width, height=facts.height, size=size)


def _measurement(
    config: UpscaleConfig, wave: _Wave, weights: bytes, model_id: str, placement: Placement
) -> Measurement:
    if config.plan.rates == "manifest":
        return _from_manifest(config.output, model_id, placement, config.restore.whole_megapixels * 1e6)
    settings = archive.settings(config, {}, weights, run_id="plan")
    most = config.restore.unit_megapixels * 1e6 if placement.gpus else _BITE_ON_CPU
    at_once = min(_neighbours(placement), max(len(wave.units), len(wave.large)))
    alike = archive.units_of(
        config, list(chain.from_iterable(wave.units))
    )  # where sizes are unknown, the run's hold few
    wanted = bites(alike, most, wave.large)
    return calibrated(wanted, settings, placement, at_once=at_once, part=most, budget=config.plan.seconds)


def _neighbours(placement: Placement) -> int:
    """Replicas that slow each other down: those of one GPU, or of a machine's cores and memory; this many are there."""
    if placement.gpus:
        return max(1, int(1 / placement.gpus))
    cores = cluster.totals().get("CPU", 1.0)
    return max(1, min(placement.largest, int(cores / placement.cpus), _MOST_AT_ONCE))


def _from_manifest(output: str, model_id: str, placement: Placement, whole_pixels: float) -> Measurement:
    """The newest run of these weights on this output."""
    table = manifest.current(output)
    table = table.filter(pc.and_(pc.equal(table["status"], DONE), pc.equal(table["model_id"], model_id)))
    if not len(table):
        raise ConfigError("plan.rates = manifest: no item was restored here with these weights; use plan.rates=measure")
    run_id = max(table["run_id"].to_pylist())
    rows = table.filter(pc.equal(table["run_id"], run_id)).to_pylist()
    samples = [_sample(row, whole_pixels) for row in rows]
    busy = sum(sample.seconds_restore for sample in samples) / placement.largest
    overhead = max(0.0, _run_seconds(output, run_id, busy) - busy)
    return Measurement(f"run {run_id}, {len(samples)} items", samples, alone=False, startup_seconds=overhead)


def _run_seconds(output: str, run_id: str, otherwise: float) -> float:
    try:
        return float(json.loads(storage.read_bytes(uris.join(output, "run", f"{run_id}.json")))["seconds"])
    except (ItemError, ValueError, KeyError):  # the run was killed before it could write its record
        return otherwise


def _sample(row: dict[str, Any], whole_pixels: float) -> Sample:
    channels = 4 if "A" in (row["mode"] or "") else 3
    return Sample(
        scale=row["scale"],
        lr_pixels=float(row["lr_width"] * row["lr_height"]),
        bytes_in=row["input_bytes"],
        bytes_out=row["output_bytes"],
        seconds_read=row["seconds_read"] or 0.0,
        seconds_restore=row["seconds_restore"] or 0.0,
        seconds_write=row["seconds_write"] or 0.0,
        pixel_bytes=channels * (row["bits"] or 8) / 8,
        windows=row["sr_width"] * row["sr_height"] > whole_pixels,
    )


def _machines(config: UpscaleConfig, placement: Placement) -> Machines:
    resources = cluster.totals()
    return Machines(
        replicas=placement.largest,
        gpus=placement.gpus,
        threads=placement.threads,
        cores=resources.get("CPU", 1.0),
        batch_pixels=min(_BATCH_PIXELS, config.restore.unit_megapixels * 1e6),
        units_in_flight=2 * placement.largest + placement.read_tasks + placement.write_tasks,
        object_store_bytes=resources.get("object_store_memory", 0.0),
    )
