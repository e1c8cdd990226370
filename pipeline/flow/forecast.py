"""What a run over an archive would cost: `--plan` of jobs/upscale_archive.py. Writes nothing.

survey     catalog minus what is done, as the run itself does it, wave by wave
sizes      width and height from the headers of images where the catalog has none, in parallel
measure    a few work units of the first wave on the cluster, or the manifest's newest run
forecast   pure: pipeline.forecast
"""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic
from typing import Any

import pyarrow.compute as pc
import ray

from pipeline import uris
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import manifest, storage
from pipeline.data.peek import header_facts
from pipeline.errors import ConfigError, ItemError
from pipeline.flow import archive, cluster
from pipeline.flow.calibrate import calibrated
from pipeline.flow.cluster import Placement
from pipeline.forecast import Forecast, Machines, Measurement, Sample, Workload, bites, forecast
from pipeline.plan import cut_units
from pipeline.records import DONE, Item
from pipeline.waves import Waves

_PEEKS = 32  # at once: each waits for a few kilobytes
_BATCH_PIXELS = 2e6  # HR pixels that a replica restores at once, unless one image has more
_BITE_ON_CPU = 5e5  # HR pixels of one measurement: seconds on a core, and batches gain nothing there


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
    if not counts.todo:
        return result
    workload, first = _workload(waves, result)
    begin = monotonic()
    with cluster.joined(say) as own:
        joining = monotonic() - begin
        placement = archive.place(config, own, say)
        measurement = _measurement(config, first, weights, model_id, placement)
        machines = _machines(config, placement)
    startup = measurement.startup_seconds + planning + (joining if measurement.alone else 0.0)
    measurement = replace(measurement, startup_seconds=startup)
    return forecast(result, workload, measurement, machines, config.plan.price_per_hour)


def as_json(result: Forecast) -> str:
    return json.dumps({**vars(result), "cells": [vars(cell) for cell in result.cells]}, indent=2)


def _workload(waves: Waves, result: Forecast) -> tuple[Workload, list[Item]]:
    """All items that can be restored, summed up, and those of one wave; what headers refuse goes to `result`."""
    workload, first, unreadable, sizes = Workload(), list[Item](), Counter[str](), Counter[str]()
    for wave in range(waves.number):
        sized = _sized(waves.plan(wave).todo, unreadable, sizes)
        workload.add(sized)
        first = first or sized
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
    config: UpscaleConfig, items: list[Item], weights: bytes, model_id: str, placement: Placement
) -> Measurement:
    if config.plan.rates == "manifest":
        return _from_manifest(config.output, model_id, placement)
    units = cut_units(items, megapixels=config.restore.unit_megapixels, most_items=config.restore.unit_items)
    settings = archive.settings(config, {}, weights, run_id="plan")
    most = config.restore.unit_megapixels * 1e6 if placement.gpus else _BITE_ON_CPU
    return calibrated(bites(units, most), settings, placement, budget=config.plan.seconds)


def _from_manifest(output: str, model_id: str, placement: Placement) -> Measurement:
    """The newest run of these weights on this output."""
    table = manifest.current(output)
    table = table.filter(pc.and_(pc.equal(table["status"], DONE), pc.equal(table["model_id"], model_id)))
    if not len(table):
        raise ConfigError("plan.rates = manifest: no item was restored here with these weights; use plan.rates=measure")
    run_id = max(table["run_id"].to_pylist())
    rows = table.filter(pc.equal(table["run_id"], run_id)).to_pylist()
    samples = [_sample(row) for row in rows]
    busy = sum(sample.seconds_restore for sample in samples) / placement.largest
    overhead = max(0.0, _run_seconds(output, run_id, busy) - busy)
    return Measurement(f"run {run_id}, {len(samples)} items", samples, alone=False, startup_seconds=overhead)


def _run_seconds(output: str, run_id: str, otherwise: float) -> float:
    try:
        return float(json.loads(storage.read_bytes(uris.join(output, "run", f"{run_id}.json")))["seconds"])
    except (ItemError, ValueError, KeyError):  # the run was killed before it could write its record
        return otherwise


def _sample(row: dict[str, Any]) -> Sample:
    return Sample(
        scale=row["scale"],
        lr_pixels=float(row["lr_width"] * row["lr_height"]),
        bytes_in=row["input_bytes"],
        bytes_out=row["output_bytes"],
        seconds_read=row["seconds_read"] or 0.0,
        seconds_restore=row["seconds_restore"] or 0.0,
        seconds_write=row["seconds_write"] or 0.0,
    )


def _machines(config: UpscaleConfig, placement: Placement) -> Machines:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Machines(
        replicas=placement.largest,
        gpus=placement.gpus,
        threads=placement.threads,
        cores=resources.get("CPU", 1.0),
        batch_pixels=min(_BATCH_PIXELS, config.restore.unit_megapixels * 1e6),
        units_in_flight=2 * placement.largest + placement.read_tasks + placement.write_tasks,
        object_store_bytes=resources.get("object_store_memory", 0.0),
    )
