"""The only reader and writer of tables."""

from clinloom.store.commit import Pending, Store, Stored, key_of
from clinloom.store.writer import DICTIONARY, TableWriter, disk_full

__all__ = ["DICTIONARY", "Pending", "Store", "Stored", "TableWriter", "disk_full", "key_of"]
