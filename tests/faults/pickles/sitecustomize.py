"""Keeps a copy of every pickle that Ray makes, in whichever process, in the folder UNFOLD_PICKLES; for tests."""

import importlib.abc
import importlib.machinery
import os
import sys
from itertools import count

MODULE = "ray.cloudpickle.cloudpickle"
NUMBERS = count()


def keep_copies(module):
    dumps = module.dumps

    def dumps_and_keep(*args, **kwargs):
        data = dumps(*args, **kwargs)
        with open(os.path.join(os.environ["UNFOLD_PICKLES"], f"{os.getpid()}-{next(NUMBERS)}.pickle"), "wb") as file:
            file.write(data)
        return data

    module.dumps = dumps_and_keep


class Finder(importlib.abc.MetaPathFinder):
    """Lets the module load as ever, and then changes it."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            keep_copies(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
