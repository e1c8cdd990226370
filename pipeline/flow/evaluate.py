"""The paper's tables on a cluster, cell by cell, restartable. What `jobs/evaluate.py` calls.

A cell that is finished is one Parquet file under `<output>/cells/`, named by everything that decides
its figures; a second run computes the cells that have none, and the tables are made of all.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.exceptions
from ray.util import ActorPool

from pipeline import uris
from pipeline.config.evaluate import EvaluateConfig
from pipeline.data import images, kernels, storage
from pipeline.errors import ConfigError, ItemError, NotFinished, StorageError
from pipeline.flow import cluster
from pipeline.flow.archive import load_weights
from pipeline.measure.progress import duration
from pipeline.measure.tables import BICUBIC, Cell, cells, markdown

Pixels = npt.NDArray[np.uint8]
Kernel = npt.NDArray[np.float64]

_PROTOCOL = "2"  # of pipeline.measure.paper: a change there makes new cells
_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
_MOST_PIXELS = 2**26


@dataclass(frozen=True)
class Inputs:
    """What the cells are made of. weights: bytes by method. kernels: Table 1's; bicubic: Table 2's,
    by scale, None for the analytic one.
    """

    images: dict[str, Pixels]
    weights: dict[str, bytes]
    kernels: list[Kernel]
    bicubic: dict[int, Kernel | None]


def evaluate(config: EvaluateConfig, say: Callable[[str], None] = print) -> str:
    """Measure what is missing and return the tables in Markdown, which lie in `<output>` too.

    Raises ConfigError, WeightsError before any work, NotFinished when it had to stop early.
    """
    output = uris.absolute(config.output)
    inputs, methods = _inputs(config)
    wanted = cells(
        methods,
        kernels=len(inputs.kernels),
        scales=config.table1.scales,
        sigmas=config.table1.sigmas,
        bicubic_scales=config.table2.scales,
    )
    if not wanted:
        raise ConfigError("there is no table to measure; set table1.kernels, or table2.scales")
    published = _published(config.published)
    names = _names(wanted, inputs)
    there = {uri.rsplit("/", 1)[-1] for uri in storage.list_files(uris.join(output, "cells"), (".parquet",))}
    todo = [cell for cell in wanted if names[cell] not in there]
    say(f"{len(wanted)} cells over {len(inputs.images)} images: {len(wanted) - len(todo)} done already")
    if todo:
        _measure(config, inputs, todo, lambda cell: uris.join(output, "cells", names[cell]), say)
    rows = [
        {**row, "method": cell.method}  # the weights may have had another name when they were measured
        for cell in wanted
        for row in _read(uris.join(output, "cells", names[cell]))
    ]
    text = markdown(rows, list(methods), published, uris.absolute(config.images).rsplit("/", 1)[-1])
    storage.write_bytes(uris.join(output, "tables.md"), text.encode())
    return text


def _inputs(config: EvaluateConfig) -> tuple[Inputs, dict[str, str]]:
    """Everything read and checked, and the model id of each method."""
    weights: dict[str, bytes] = {}
    methods = {BICUBIC: ""} if config.baseline == "bicubic" else {}
    for uri in config.weights or (None,):
        data, model = load_weights(uri, "weights")
        name = "packaged" if uri is None else uri.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        name = str(uri) if name in methods else name  # two files of one name in two folders
        weights[name], methods[name] = data, model
    return Inputs(_images(config.images, _least_side(config)), weights, _kernels(config), _bicubic(config)), methods


def _images(folder: str, least: int) -> dict[str, Pixels]:
    """RGB, by name; gray ones are repeated. least: pixels that each side must have."""
    found: dict[str, Pixels] = {}
    root = uris.absolute(folder)
    for uri in storage.list_files(root, _ENDINGS):
        try:
            pixels = images.decode(storage.read_bytes(uri), max_pixels=_MOST_PIXELS).pixels_hwc
        except ItemError as error:
            raise ConfigError(f"images: {uri}: {error}") from None
        if pixels.dtype != np.uint8:
            raise ConfigError(f"images: {uri} has samples of {pixels.dtype}; the tables are of 8 bits, convert it")
        if min(pixels.shape[:2]) < least:
            size = f"{pixels.shape[1]}×{pixels.shape[0]}"
            raise ConfigError(f"images: {uri} is {size} pixels; these scales need {least} on each side")
        found[uri[len(root) + 1 :]] = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels  # type: ignore[assignment]
    if not found:
        raise ConfigError(f"images: there is no image in {folder}")
    return found


def _least_side(config: EvaluateConfig) -> int:
    """Cropped to what scales and the network's halvings divide, and by the border Table 2 leaves out, some is left."""
    cropped = [math.lcm(scale, 8) for scale in config.table1.scales if config.table1.kernels]
    return max([1, *cropped, *(2 * scale**2 + scale for scale in config.table2.scales)])


def _kernels(config: EvaluateConfig) -> list[Kernel]:
    try:
        return kernels.load_stack(config.table1.kernels) if config.table1.kernels else []
    except ItemError as error:
        raise ConfigError(f"table1.kernels: {error}") from None


def _bicubic(config: EvaluateConfig) -> dict[int, Kernel | None]:
    spec = config.table2.kernels
    try:
        return {
            scale: None if spec is None else kernels.load_kernel(spec.replace("{scale}", str(scale)), phase="corner")
            for scale in config.table2.scales
        }
    except ItemError as error:
        raise ConfigError(f"table2.kernels: {error}") from None


def _published(uri: str | None) -> Mapping[str, Any] | None:
    if uri is None:
        return None
    try:
        found: Mapping[str, Any] = json.loads(storage.read_bytes(uris.absolute(uri)))
    except (ItemError, ValueError) as error:
        raise ConfigError(f"published: {uri}: {error}") from None
    return found


def _names(wanted: Sequence[Cell], inputs: Inputs) -> dict[Cell, str]:
    """A file name for each cell, that changes with what decides its figures."""
    pictures = hashlib.sha256()
    for name, pixels in inputs.images.items():
        pictures.update(f"{name}{pixels.shape}".encode() + pixels.tobytes())

    def name_of(cell: Cell) -> str:
        kernel = inputs.kernels[cell.kernel - 1] if cell.table == 1 else inputs.bicubic[cell.scale]
        told = b"" if kernel is None else np.ascontiguousarray(kernel).tobytes()
        text = f"{_PROTOCOL} {cell.table} {cell.method if not cell.model_id else cell.model_id} {cell.scale}"
        whole = hashlib.sha256(pictures.digest() + told + f"{text} {cell.sigma_255!r}".encode()).hexdigest()
        return f"table{cell.table}-x{cell.scale}-{whole[:24]}.parquet"

    return {cell: name_of(cell) for cell in wanted}


def _read(uri: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(io.BytesIO(storage.read_bytes(uri))).read().to_pylist()
    return rows


def _write(uri: str, rows: list[dict[str, Any]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    storage.write_bytes(uri, bytes(sink.getvalue()))


def _measure(
    config: EvaluateConfig,
    inputs: Inputs,
    todo: Sequence[Cell],
    uri_of: Callable[[Cell], str],
    say: Callable[[str], None],
) -> None:
    begin = last = monotonic()
    try:
        with cluster.joined(say):
            for number, (cell, rows) in enumerate(_results(config, inputs, todo), start=1):
                _write(uri_of(cell), rows)
                if monotonic() - last >= config.progress_seconds or number == len(todo):
                    last = monotonic()
                    left = duration((last - begin) / number * (len(todo) - number))
                    say(f"{number:>6}/{len(todo)} cells  ETA {left}")
    except ray.exceptions.RayTaskError:
        raise
    except (ray.exceptions.RayError, StorageError) as error:
        raise NotFinished(f"stopped early; run again to go on with the cells that are missing: {error}") from error


def _results(
    config: EvaluateConfig, inputs: Inputs, todo: Sequence[Cell]
) -> Iterator[tuple[Cell, list[dict[str, Any]]]]:
    place = cluster.place(
        gpus=config.gpus,
        threads=config.threads,
        smallest=1,
        largest=config.workers,
        read_cpus=0.5,
        write_cpus=0.5,
        read_tasks=None,
        write_tasks=None,
    )
    remote: Any = ray.remote(Evaluator)
    # Cells are repeatable, so an actor that died is started again and its cell measured again.
    options = {"num_cpus": place.cpus, "num_gpus": place.gpus or None, "max_restarts": 3, "max_task_retries": 3}
    shared = ray.put(inputs)
    workers = [remote.options(**options).remote(place.threads) for _ in range(min(place.largest, len(todo)))]
    pool: Any = ActorPool(workers)
    try:
        yield from pool.map_unordered(lambda worker, cell: worker.measure.remote(cell, shared), list(todo))
    finally:
        for worker in workers:
            ray.kill(worker)


class Evaluator:
    """Measures cells, one at a time. The networks in use stay loaded."""

    def __init__(self, threads: int) -> None:
        self._threads, self._nets = threads, dict[str, Any]()

    def measure(self, cell: Cell, inputs: Inputs) -> tuple[Cell, list[dict[str, Any]]]:
        """The cell and its rows, one an image."""
        from pipeline.measure.paper import table1_scores, table2_scores

        net, rows = self._net(cell, inputs), []
        for name, hr in inputs.images.items():
            begin = monotonic()
            if cell.table == 1:
                kernel = inputs.kernels[cell.kernel - 1]
                scores = table1_scores(net, hr, kernel, cell.scale, cell.sigma_255)
            else:
                scores = table2_scores(net, hr, cell.scale, inputs.bicubic[cell.scale])
            rows.append({**asdict(cell), "image": name, **asdict(scores), "seconds": monotonic() - begin})
        return cell, rows

    def _net(self, cell: Cell, inputs: Inputs) -> Any:
        import torch

        from pipeline.model.checkpoint import load_usrnet

        torch.set_num_threads(self._threads)
        if cell.method == BICUBIC:
            return None
        if cell.method not in self._nets:
            net = load_usrnet(io.BytesIO(inputs.weights[cell.method]))
            self._nets[cell.method] = net.to("cuda" if torch.cuda.is_available() else "cpu")
        return self._nets[cell.method]
