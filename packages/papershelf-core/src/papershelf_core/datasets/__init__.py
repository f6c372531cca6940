"""Public data sets, pinned by checksum: where they are, and how they are read.

``path`` looks in the folder that ``PAPERSHELF_DATA`` names, then in the user's cache, then downloads the public
original; whatever comes back has the SHA-256 of the catalogue.
"""

from papershelf_core.datasets.catalogue import DatasetInfo, FileInfo, catalog
from papershelf_core.datasets.loaders import BanditLog, Dataset, ShortVideoFeatures, Text, load
from papershelf_core.datasets.store import DatasetCorrupt, DatasetUnavailable, path, present

__all__ = [
    "BanditLog",
    "Dataset",
    "DatasetCorrupt",
    "DatasetInfo",
    "DatasetUnavailable",
    "FileInfo",
    "ShortVideoFeatures",
    "Text",
    "catalog",
    "load",
    "path",
    "present",
]
