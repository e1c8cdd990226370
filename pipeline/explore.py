"""Some items under many settings: what a person looks at to find the kernel and noise of an archive.

    choose   the named items, or a sample spread evenly over the catalog
    look     the busiest window of each, small enough to be restored many times
    try      every kernel with every sigma, in one batch; an item's own setting is among them
    rank     by evidence (pipeline.measure.evidence), each image alone and all together

No Ray: a few small windows are done sooner than a cluster has started. Knows no HTML.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data import images, kernels, storage
from pipeline.data.catalog import catalog_root, read_catalog
from pipeline.data.previews import Window, busiest
from pipeline.errors import CatalogError, ItemError
from pipeline.measure.evidence import log_evidence, periodogram
from pipeline.model.layout import BoundaryMode
from pipeline.model.restore import Restored, Restorer
from pipeline.records import KERNEL_VALUES, Degradation, Item, white
from pipeline.resolve import Defaults, Limits, item_id_of, resolve

Pixels = npt.NDArray[Any]

_GIVEN = ("catalog", "sidecar")  # sources of values that are an item's own


@dataclass(frozen=True)
class Grid:
    """What is tried: every kernel (specification or URI) with every sigma (grey levels)."""

    kernels: tuple[str, ...]
    sigmas: tuple[float, ...]


@dataclass(frozen=True)
class Trial:
    """One setting on one item. image: the restored window, (h·s, w·s[, c]).

    evidence: nats per sample, see `measure.evidence`. rank: 1 for the most probable. given: the
    catalog's own setting.
    """

    kernel: str
    sigma: float
    image: Pixels
    consistency_rms_255: float
    evidence: float
    rank: int = 0
    given: bool = False


@dataclass(frozen=True)
class Exploration:
    """One item: its window of LR pixels and its trials, in the grid's order.

    size: (height, width) of the whole LR image. troubles: settings that could not be tried, and why.
    """

    item: Item
    lr: Pixels
    window: Window
    size: tuple[int, int]
    trials: tuple[Trial, ...]
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One setting of the grid over all items. evidence: mean over the items, in nats per sample."""

    kernel: str
    sigma: float
    evidence: float
    consistency_rms_255: float
    first_three: int
    rank: int


def choose(
    catalog: str, *, root: str | None, defaults: Defaults, limits: Limits, names: Sequence[str], sample: int
) -> list[Item | ItemError]:
    """The items to look at; a row that is no item gives its error, with the item's name in it.

    names: item ids, URIs or ends of URIs; empty takes `sample` rows spread evenly over the catalog.
    Raises `CatalogError` for an unusable or empty catalog, and for a name that no row has.
    """
    below = catalog_root(catalog, root)
    rows = list(_named(catalog, below, names)) if names else list(_spread(catalog, sample))
    if not rows:
        raise CatalogError(f"catalog {catalog} holds no items, so there is nothing to look at")
    return [_item(row, number, below, defaults, limits) for number, row in rows]


def explore(
    item: Item, grid: Grid, restorer: Restorer, *, side: int, limits: Limits, boundary: BoundaryMode
) -> Exploration:
    """Try the grid on one item.

    side: of the window after restoration, HR pixels at most. Raises `ItemError` where the image
    cannot be used; a setting that cannot be tried becomes one of `troubles`.
    """
    data = storage.read_bytes(item.uri, max_bytes=limits.bytes)
    lr = images.decode(data, page=item.page, max_pixels=limits.lr_pixels).pixels_hwc
    window = busiest(lr, max(16, side // item.scale))
    part = window.of(lr)
    settings, troubles = _settings(item, grid, limits)
    results = restorer.batch([_squeezed(part)] * len(settings), [s.degradation for s in settings], boundary)
    try:
        evidence = _evidence(lr, settings)
    except ValueError as error:
        raise ItemError("bad-metadata", f"{item.uri}: {error}") from None
    tried = []
    for setting, result, nats in zip(settings, results, evidence, strict=True):
        if isinstance(result, Restored):
            rms = result.consistency_rms_255
            tried.append(Trial(setting.kernel, setting.degradation.sigma, result.image, rms, nats, given=setting.given))
        else:
            troubles.append(f"{setting.kernel}, sigma {setting.degradation.sigma:g}: {result}")
    return Exploration(item, part, window, lr.shape[:2], tuple(_ranked(tried)), tuple(troubles))


def verdicts(explorations: Sequence[Exploration]) -> list[Verdict]:
    """The settings tried on every item, the most probable for all together first.

    Images are independent, so their log-evidences add up; the mean keeps the scale of one image.
    Kernels given as numbers are one setting only where the numbers are the same.
    """
    by_setting: dict[tuple[str, str, float], list[Trial]] = {}
    for exploration in explorations:
        for trial in exploration.trials:
            numbers = str(exploration.item.kernel_values) if trial.kernel == KERNEL_VALUES else ""
            by_setting.setdefault((trial.kernel, numbers, trial.sigma), []).append(trial)
    everywhere = {key: trials for key, trials in by_setting.items() if len(trials) == len(explorations)}
    means = {key: float(np.mean([trial.evidence for trial in trials])) for key, trials in everywhere.items()}
    ordered = sorted(means, key=lambda key: -means[key])
    return [
        Verdict(
            key[0],
            key[2],
            means[key],
            float(np.mean([trial.consistency_rms_255 for trial in everywhere[key]])),
            sum(trial.rank <= 3 for trial in everywhere[key]),
            rank,
        )
        for rank, key in enumerate(ordered, start=1)
    ]


@dataclass(frozen=True)
class _Setting:
    kernel: str
    degradation: Degradation
    given: bool


def _named(catalog: str, below: str, names: Sequence[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    missing = dict.fromkeys(names)
    for number, row in enumerate(read_catalog(catalog)):
        item_id, uri = item_id_of(row, below, number), str(row.get("uri"))
        hits = [name for name in names if name == item_id or f"/{uri}".endswith(f"/{name}")]
        if hits:
            yield number, row
        for name in hits:
            missing.pop(name, None)
    if missing:
        raise CatalogError(f"catalog {catalog} has no item named {', '.join(missing)}; give ids or ends of uris")


def _spread(catalog: str, sample: int) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The middle rows of `sample` equal stretches; two passes, so any catalog fits."""
    count = sum(1 for _ in read_catalog(catalog))
    few = min(sample, count)
    wanted = {(2 * n + 1) * count // (2 * few) for n in range(few)}
    yield from ((number, row) for number, row in enumerate(read_catalog(catalog)) if number in wanted)


def _item(row: Mapping[str, object], number: int, below: str, defaults: Defaults, limits: Limits) -> Item | ItemError:
    try:
        return resolve(row, defaults=defaults, root=below, limits=limits)
    except ItemError as error:
        return ItemError(error.code, f"{item_id_of(row, below, number)}: {error}")


def _settings(item: Item, grid: Grid, limits: Limits) -> tuple[list[_Setting], list[str]]:
    """Kernels of the grid, then the item's own if it is another, each with every sigma."""
    settings: list[_Setting] = []
    troubles = []
    own = item.kernel_source in _GIVEN
    specs = dict.fromkeys([*grid.kernels, *([item.kernel] if own else [])])
    own_sigma = item.sigma if item.sigma_source in _GIVEN else None  # None as well where it says `auto`
    sigmas = sorted({*grid.sigmas, *([own_sigma] if own_sigma is not None else [])})
    for spec in specs:
        try:
            kernel = _kernel(item, spec, limits)
        except ItemError as error:
            troubles.append(f"{spec}: {error}")
            continue
        for sigma in sigmas:
            given = own and (spec, sigma) == (item.kernel, own_sigma)
            settings.append(_Setting(spec, Degradation(kernel, item.scale, sigma), given))
    return settings, troubles


def _kernel(item: Item, spec: str, limits: Limits) -> kernels.Kernel:
    if spec == KERNEL_VALUES and item.kernel_values is not None:
        return kernels.from_array(item.kernel_values, item.scale, item.phase, max_width=limits.kernel)
    return kernels.load_kernel(spec, item.scale, item.phase, max_width=limits.kernel)


def _evidence(lr: Pixels, settings: Sequence[_Setting]) -> list[float]:
    """Of each setting; a kernel's sigmas are done together, for its spectrum is most of the work."""
    seen = periodogram(lr * (255 / white(lr.dtype)))
    found: dict[tuple[str, float], float] = {}
    for spec in dict.fromkeys(setting.kernel for setting in settings):
        alike = [setting.degradation for setting in settings if setting.kernel == spec]
        nats = log_evidence(seen, alike[0].kernel, alike[0].scale, [d.sigma for d in alike])
        found.update(((spec, d.sigma), value) for d, value in zip(alike, nats, strict=True))
    return [found[setting.kernel, setting.degradation.sigma] for setting in settings]


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    best_first = sorted(range(len(trials)), key=lambda n: -trials[n].evidence)
    ranks = {n: rank for rank, n in enumerate(best_first, start=1)}
    return [replace(trial, rank=ranks[n]) for n, trial in enumerate(trials)]


def _squeezed(pixels: Pixels) -> Pixels:
    """As the network takes it: gray without its axis, and a copy, for decoded pixels are read-only."""
    return np.array(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
