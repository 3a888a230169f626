"""Data: known sets by name, your own arrays and files, binarisation, and checks of what comes in."""

from pyro_lvm.data.arrays import from_arrays
from pyro_lvm.data.binarisation import DynamicBinarisation
from pyro_lvm.data.checks import (
    DataError,
    check_choice,
    check_finite,
    check_labels,
    check_levels,
    check_not_empty,
    check_shapes,
    check_size,
)
from pyro_lvm.data.dataset import CompactDataset, Dataset, IndexedDataset, Split, StackedDataset
from pyro_lvm.data.files import read_file
from pyro_lvm.data.fingerprint import fingerprint
from pyro_lvm.data.labelled import LabelledDataset, with_labels
from pyro_lvm.data.loading import load
from pyro_lvm.data.mapped import MappedDataset
from pyro_lvm.data.named import data_root, downsample, names
from pyro_lvm.data.prefetch import batches
from pyro_lvm.data.torchvision_ops import declare_missing_operators

__all__ = [
    "CompactDataset",
    "DataError",
    "Dataset",
    "DynamicBinarisation",
    "IndexedDataset",
    "LabelledDataset",
    "MappedDataset",
    "Split",
    "StackedDataset",
    "batches",
    "check_choice",
    "check_finite",
    "check_labels",
    "check_levels",
    "check_not_empty",
    "check_shapes",
    "check_size",
    "data_root",
    "declare_missing_operators",
    "downsample",
    "fingerprint",
    "from_arrays",
    "load",
    "names",
    "read_file",
    "with_labels",
]
