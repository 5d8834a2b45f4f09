"""Why something does not work here: a store, the file system under it, this Python, and the registries that are used.

diagnosis   all checks, one after the other
findings    what a check found, and what to do about it
machine     Python and its packages, the umask, what microsandbox has here
disks       the file system of a store: locks, reflinks, holes, space, what it outlives
stored      the store itself, and whether the clock is past its newest snapshot
registries  whether a registry answers, takes the credentials and has the same time; credential helpers

Nothing is changed; what files are made to try something out are removed again.
"""

from casstore.doctor.diagnosis import Surroundings, diagnose, diagnose_registries
from casstore.doctor.findings import Finding, Level

__all__ = ["Finding", "Level", "Surroundings", "diagnose", "diagnose_registries"]
