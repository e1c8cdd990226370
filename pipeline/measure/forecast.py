"""A forecast in words, for a person who decides whether to run."""

from pipeline.errors import ERROR_CODES
from pipeline.forecast import Cell, Forecast
from pipeline.measure.progress import duration


def forecast_words(forecast: Forecast) -> str:
    """One page: counts that are exact, then estimates, each with where it comes from."""
    lines = [*_counts(forecast)]
    if forecast.todo:
        lines += ["", *_workload(forecast), "", *_costs(forecast)]
    return "\n".join([*lines, "", "Nothing was written."])


def size(count: float) -> str:
    """`3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"


def _counts(forecast: Forecast) -> list[str]:
    return [
        f"items       {forecast.catalog_items} in the catalog",
        f"  done      {forecast.done}",
        f"  waiting   {forecast.waiting}" + ("  failed earlier; see run.retry_failed" if forecast.waiting else ""),
        f"  to do     {forecast.todo}",
        f"  invalid   {sum(forecast.invalid.values())}",
        *(_reason(code, count) for code, count in forecast.invalid.items()),
        *_unreadable(forecast),
    ]


def _unreadable(forecast: Forecast) -> list[str]:
    if not forecast.unreadable:
        return []
    total = sum(forecast.unreadable.values())
    return [
        f"  of those to do, {total} will fail, by what was found at their uri",
        *(_reason(code, count) for code, count in forecast.unreadable.items()),
    ]


def _reason(code: str, count: int) -> str:
    return f"    {count:>6} {code} ({ERROR_CODES[code].error_class}): {ERROR_CODES[code].mend}"


def _workload(forecast: Forecast) -> list[str]:
    head = f"{'scale':>5} {'HR size of one':>15} {'items':>8} {'LR MP':>10} {'HR MP':>10} {'out':>10} {'restore':>10}"
    total = f"{'all':>5} {'':>15} {sum(cell.items for cell in forecast.cells):>8}"
    total += f" {forecast.lr_megapixels:>10.2f} {forecast.hr_megapixels:>10.2f} {size(forecast.bytes_out):>10}"
    sizes = ", ".join(f"{count} {source}" for source, count in forecast.sizes.items() if count)
    return [
        head,
        *map(_cell, forecast.cells),
        f"{total} {duration(forecast.seconds_restore):>10}",
        f"sizes: {sizes}",
        *_large(forecast),
    ]


def _large(forecast: Forecast) -> list[str]:
    if not forecast.large:
        return []
    what = f"{forecast.large} of {forecast.large_hr_megapixels:.0f} HR MP exceed {forecast.whole_megapixels:g} each"
    return [f"large: {what} (restore.whole_megapixels): restored by windows, as tiled TIFFs, after the others"]


def _cell(cell: Cell) -> str:
    return (
        f"{cell.scale:>5} {cell.bucket:>15} {cell.items:>8} {cell.lr_megapixels:>10.2f} {cell.hr_megapixels:>10.2f}"
        f" {size(cell.bytes_out):>10} {duration(cell.seconds):>10}"
    )


def _costs(forecast: Forecast) -> list[str]:
    rate = forecast.hr_megapixels_per_second
    if rate is None:
        return [
            f"measured    {forecast.measured}",
            "none of the items tried could be restored: time and bytes are unknown",
        ]
    return [
        f"measured    {forecast.measured}",
        f"bytes       {size(forecast.bytes_in)} in, about {size(forecast.bytes_out)} out",
        f"speed       {rate:.3f} HR MP/s a replica, {_replicas(forecast)}",
        f"time        about {duration(forecast.seconds)}, of it {duration(forecast.seconds_startup)} start and end",
        f"hours       {forecast.device_hours:.3g} {forecast.device} hours",
        *([] if forecast.cost is None else [_cost(forecast, forecast.cost)]),
        *_memory(forecast),
    ]


def _replicas(forecast: Forecast) -> str:
    """Few or unequal work units leave some without work."""
    return f"{forecast.replicas} replicas, {forecast.replicas_busy:.1f} of them at work in the mean"


def _cost(forecast: Forecast, cost: float) -> str:
    return f"cost        {cost:.2f} at {forecast.price_per_hour:g} a {forecast.device} hour (plan.price_per_hour)"


def _memory(forecast: Forecast) -> list[str]:
    known = {"replica": forecast.replica_memory_bytes, "GPU": forecast.gpu_memory_bytes}
    parts = [f"{size(count)} of {name} memory" for name, count in known.items() if count is not None]
    parts.append(f"{size(forecast.object_store_bytes)} of object store")
    scratch = f"{size(forecast.spilled_bytes)} spilled to disk" if forecast.spilled_bytes else "nothing spilled to disk"
    if forecast.scratch_bytes:
        scratch += f", {size(forecast.scratch_bytes)} of restore.scratch for each replica with a large image"
    return [f"memory      {', '.join(parts)} at most, about", f"scratch     {scratch}"]
