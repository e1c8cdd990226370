"""Some items under many kernels and sigmas: one HTML contact sheet to choose settings by eye.

    python jobs/explore_settings.py [--config conf/NAME.yaml] [key=value ...]
    python jobs/explore_settings.py catalog=s3://in/catalog.csv page=sheet.html defaults.scale=2
    python jobs/explore_settings.py catalog=c.csv page=sheet.html 'items=[plate-01.png]' 'grid.sigmas=[0, 5]'

Settings and their meaning: conf/explore_settings.yaml. Kernel and sigma need not be known; where
the catalog names them they are tried too. Exit codes: 0 done, 2 bad config, catalog or weights, 3
no item could be shown.
"""

import io
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, TOO_MANY_FAILED, run
from pipeline import uris
from pipeline.config.explore import ExploreConfig
from pipeline.config.load import command_line, load_config
from pipeline.data import storage
from pipeline.errors import ItemError, WeightsError
from pipeline.pages.page import size
from pipeline.records import Item
from pipeline.resolve import Defaults, Limits

if TYPE_CHECKING:
    from pipeline.explore import Exploration


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__)
    config = load_config(ExploreConfig, line.config, line.overrides)

    from pipeline.explore import Grid, choose, explore, verdicts  # torch takes seconds to import
    from pipeline.model.checkpoint import load_usrnet
    from pipeline.model.restore import Restorer
    from pipeline.pages.sheet import sheet_page

    weights = None if config.model.weights is None else io.BytesIO(_weights(config.model.weights))
    engine = config.engine
    restorer = Restorer(load_usrnet(weights), precision=engine.precision, compile=engine.compile)
    limits, grid = Limits(**config.limits.model_dump()), Grid(tuple(config.grid.kernels), tuple(config.grid.sigmas))
    items = choose(
        config.catalog,
        root=config.catalog_root,
        defaults=_defaults(config),
        limits=limits,
        names=config.items,
        sample=config.sample,
    )
    found, troubles = looked_at(
        items,
        lambda item: explore(item, grid, restorer, side=config.side, limits=limits, boundary=engine.boundary),
    )
    ranking = verdicts(found)
    now = datetime.now(UTC)
    html = sheet_page(found, ranking, troubles, catalog=uris.absolute(config.catalog), now=now)
    storage.write_bytes(config.page, html)
    for verdict in ranking[:3]:
        print(f"  {verdict.rank}. {verdict.kernel}, sigma {verdict.sigma:g}")
    print(f"look at {uris.absolute(config.page)} ({size(len(html))})")
    return OK if found else TOO_MANY_FAILED


def looked_at(
    items: "Sequence[Item | ItemError]", look: "Callable[[Item], Exploration]"
) -> "tuple[list[Exploration], list[str]]":
    """What could be looked at, and for each of the others why not."""
    found, troubles = [], []
    for number, item in enumerate(items, start=1):
        try:
            if isinstance(item, ItemError):
                raise item
            print(f"{number}/{len(items)}  {item.uri}", flush=True)
            found.append(look(item))
        except ItemError as error:
            troubles.append(f"{error.code}: {error}")
            print(f"  not shown: {troubles[-1]}", file=sys.stderr)
    return found, troubles


def _weights(uri: str) -> bytes:
    try:
        return storage.read_bytes(uris.absolute(uri))
    except ItemError as error:
        raise WeightsError(f"model.weights: {error}") from None


def _defaults(config: ExploreConfig) -> Defaults:
    """What is sought need not be known: where nobody says kernel or sigma, the grid's first stand in."""
    given = config.defaults
    kernel = config.grid.kernels[0] if given.kernel is None else given.kernel
    sigma = config.grid.sigmas[0] if given.sigma is None else given.sigma
    return Defaults(kernel, sigma, given.scale, given.phase)


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
