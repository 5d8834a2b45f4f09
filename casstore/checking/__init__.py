"""Looking whether a store is what it should be, and mending what is not.

findings      what can be found, by how bad it is
asis          the store as it is, before anything derived follows: names, markers, index.json; `catalogfile` the catalog
census        which blobs the names need, and which names need which blob
check         all of it: what the names need, `litter` around it, and by `rereading` the bytes of blobs
repair        good blobs in the place of bad ones
"""

from casstore.checking.check import CheckReport
from casstore.checking.findings import Finding, Kind, Severity
from casstore.checking.rereading import ReadData

__all__ = ["CheckReport", "Finding", "Kind", "ReadData", "Severity"]
