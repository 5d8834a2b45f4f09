"""A store for what is on its way to or from a path: what has no name in the store of the calls never gets into it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from casstore import durable
from casstore.durable import Durability
from casstore.store import Store
from casstore.storedir import StoreOptions


@contextmanager
def scratch_store(path: str) -> Iterator[Store]:
    """An empty store on the file system of `path`, beside it or beside the folder that it is going to be in. It does
    not outlive the block.
    """
    beside = os.path.abspath(path)
    while not os.path.isdir(os.path.dirname(beside)):
        beside = os.path.dirname(beside)
    folder = durable.temporary_beside(beside)
    try:
        with Store.init(folder, options=StoreOptions(durability=Durability.NONE)) as store:
            yield store
    finally:
        shutil.rmtree(folder, ignore_errors=True)
