"""What a training was begun with, kept in its output: who goes on with it goes on with the same."""

import json
from dataclasses import asdict, dataclass

from pipeline.errors import ConfigError, StorageError
from pipeline.training.output import Store

_NAME = "begun.json"


@dataclass(frozen=True)
class Begun:
    """weights: model id of the network at step 0. held_out: names of the photographs that are not trained on."""

    weights: str
    held_out: tuple[str, ...]


def recalled(store: Store) -> Begun | None:
    """What the training in this output was begun with; None where there is none yet. Raises `ConfigError`."""
    if not store.names("state"):
        return None
    try:
        known = json.loads(store.read(_NAME))
        return Begun(str(known["weights"]), tuple(map(str, known["held_out"])))
    except FileNotFoundError:
        return None  # begun by a version that did not write it
    except StorageError as error:
        if error.code != "input-missing":
            raise
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"output: {_NAME} is damaged ({error}); delete it, or choose another output") from None


def remember(store: Store, begun: Begun) -> None:
    store.write(_NAME, json.dumps(asdict(begun), indent=1).encode())


def refuse_other_weights(before: Begun | None, now: Begun) -> None:
    """Raises `ConfigError` where a training of other weights is under way: these would not be looked at."""
    if before is not None and before.weights != now.weights:
        raise ConfigError(
            f"weights: the output holds a training that began from others (model id {before.weights}, "
            f"these are {now.weights}); go on with those, or choose another output"
        )
