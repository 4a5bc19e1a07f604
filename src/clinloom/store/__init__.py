"""The only reader and writer of tables: what the manifest names, on any storage."""

from clinloom.store.commit import Store, finished, key_of
from clinloom.store.holding import replace, sweep
from clinloom.store.pending import Pending
from clinloom.store.stored import Part, Stored
from clinloom.store.writer import DICTIONARY, TableWriter, attempt, coded, disk_full

__all__ = [
    "DICTIONARY",
    "Part",
    "Pending",
    "Store",
    "Stored",
    "TableWriter",
    "attempt",
    "coded",
    "disk_full",
    "finished",
    "key_of",
    "replace",
    "sweep",
]
