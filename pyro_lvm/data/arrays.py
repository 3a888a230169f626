"""A data set of the user's own arrays, tensors or torch Dataset: converted, checked, binarised, split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from pyro_lvm.data.binarisation import (
    BINARISATIONS,
    Binarisation,
    DynamicBinarisation,
    draw,
    generator_of,
    threshold,
    to_probabilities,
)
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
from pyro_lvm.data.dataset import (
    LARGE,
    CompactDataset,
    Dataset,
    IndexedDataset,
    Split,
    StackedDataset,
    StreamedDataset,
)
from pyro_lvm.data.files import SUFFIXES, read_file
from pyro_lvm.data.mapped import MappedDataset, is_large, is_mapped

#: The fraction of a single array that goes into validation, and again into test, where nothing else is said.
FRACTION = 0.1

_SPLITS = ("train", "validation", "test")
_SHUFFLE = len(_SPLITS)  # the stream of random numbers after those that binarise the splits


def from_arrays(
    train: Any,
    validation: Any = None,
    test: Any = None,
    labels: Any = None,
    levels: int | None = None,
    name: str = "arrays",
    *,
    binarise: Binarisation | None = None,
    seed: int = 0,
    description: str = "",
    source: str = "",
) -> Dataset:
    """Make a data set of arrays.

    ``train``, ``validation`` and ``test`` are numpy arrays, tensors, nested lists or map-style torch Datasets (of
    values, or of tuples that start with value and label), of shape (N, *shape). ``validation`` and ``test`` may instead
    be a size, a count (int) or a fraction (float), that is taken from ``train`` after a shuffle that depends on
    ``seed`` and N only. With neither an array, what is left out is the fraction 0.1; with one an array, what is left
    out is absent. A size of 0 leaves a split out.

    What is not ``levels`` is inferred for boolean and integer arrays, from the values of all splits: 2 if none exceeds
    1, one more than the largest if none exceeds 16, 256 if none exceeds 255, and None (real values) beyond or below.
    Floating-point arrays are real unless ``levels`` is given.

    Values are copied to float32 on the CPU; discrete data of up to 256 levels that would take more than 512 MiB that
    way stay bytes (`CompactDataset`). Memory-mapped arrays that would are read as they are used
    (`MappedDataset`), and so are torch Datasets (`StackedDataset`, without labels); both are checked as
    they are used.

    Args:
        train: Examples to train on, of shape (N, *shape).
        validation: Examples to choose by, or a size.
        test: Examples to judge by, or a size.
        labels: Whole numbers of shape (N,) for ``train``, or a dict of such by name of array. Labels of several axes
            (characters × drawers, say) count examples over as many leading axes, and both are flattened.
        levels: Number of discrete levels; inferred if left out.
        name: The data set's name.
        binarise: ``"static"``, one Bernoulli(x / (levels - 1)) draw of every value; ``"dynamic"``, the training split
            is drawn anew at every use and the others are as for static; ``"threshold"``, one from one half upwards;
            None, as they are. Real values are to lie in [0, 1].
        seed: Seed of the shuffle and of the draws; the global generators stay untouched.
        description: One sentence on the variant.
        source: Where the data come from.

    Returns:
        A `Dataset`, named ``f"{name}-{binarise}"`` if binarised.

    Raises:
        DataError: An array is empty, not numeric, not finite, not whole numbers below ``levels``, or does not fit the
            others; labels do not fit; a size leaves nothing to train on.

    Example:
        >>> dataset = from_arrays(np.arange(60, dtype=np.uint8).reshape(20, 3), name="ramp", test=5)
        >>> dataset
        Dataset('ramp', train=13, validation=2, test=5, shape=(3,), levels=256)
        >>> dataset.train[0]
        tensor([21., 22., 23.])
    """
    if binarise is not None:
        check_choice(binarise, BINARISATIONS, "binarise")
    given = {"train": train, "validation": validation, "test": test}
    given = {key: int(value) if isinstance(value, np.integer) else value for key, value in given.items()}
    sizes = {key: value for key, value in given.items() if value is None or isinstance(value, (bool, int, float))}
    if "train" in sizes:
        raise DataError(f"'train' must be an array of examples, but is {train!r}")
    if len(sizes) == 2:
        sizes = {key: FRACTION if value is None else value for key, value in sizes.items()}
    own_labels = labels if isinstance(labels, Mapping) else {} if labels is None else {"train": labels}
    parts = {key: _read(value, own_labels.get(key), key) for key, value in given.items() if key not in sizes}
    for key in own_labels:
        check_choice(str(key), parts, "labels")
    for key, part in parts.items():
        check_not_empty(part.values[:1] if isinstance(part.values, StreamedDataset) else part.values, key)
    check_shapes({key: part.values.shape for key, part in parts.items()})

    if levels is None:
        levels = _infer_levels([part.values for part in parts.values()])
    total = sum(part.values.shape.numel() for part in parts.values())
    found = {
        key: Part(_finish(part.values, levels, key, compact=4 * total > LARGE), part.labels)
        for key, part in parts.items()
    }
    counts = {
        key: 0 if size is None else check_size(size, len(found["train"].values), key) for key, size in sizes.items()
    }
    return assemble(
        found, counts, levels=levels, name=name, binarise=binarise, seed=seed, description=description, source=source
    )


@dataclass(frozen=True)
class Part:
    """Examples of shape (N, *shape) and their labels of shape (N,), None where there are none."""

    values: Split
    labels: Tensor | None = None


def assemble(
    parts: Mapping[str, Part],
    counts: Mapping[str, int],
    *,
    levels: int | None,
    name: str,
    binarise: Binarisation | None,
    seed: int,
    description: str,
    source: str,
    shuffle: bool = True,
) -> Dataset:
    """Binarise the parts that there are and take the splits that there are not from the training part.

    Values are drawn before they are split, so that a pixel's draw depends on the seed and on nothing else: not on the
    sizes of the splits, and not on whether the binarisation is static or dynamic.

    Args:
        parts: Checked examples by name of split; ``"train"`` among them.
        counts: How many examples of the training part go into splits that are not in ``parts``.
        levels: Number of discrete levels, None for real values.
        name: The data set's name, to which the binarisation is added.
        binarise: As in `from_arrays`.
        seed: As in `from_arrays`.
        description: One sentence on the variant.
        source: Where the data come from.
        shuffle: Whether the training part is shuffled before it is split, or split in its order: train, validation,
            test.

    Returns:
        The data set.

    Raises:
        DataError: The counts leave nothing to train on, or the values cannot be binarised.

    Example:
        >>> parts = {"train": Part(torch.arange(10.0).reshape(10, 1))}
        >>> words = {"name": "ramp", "binarise": None, "seed": 0, "description": "", "source": ""}
        >>> dataset = assemble(parts, {"test": 2}, levels=None, shuffle=False, **words)
        >>> dataset.test
        tensor([[8.],
                [9.]])
    """
    size = len(parts["train"].values)
    left = size - sum(counts.values())
    if left <= 0:
        asked = " and ".join(f"{count} for {key!r}" for key, count in counts.items())
        raise DataError(f"'train' must keep some of its {size} examples, but {asked} leave none: give smaller sizes")
    order = (
        torch.randperm(size, generator=generator_of(seed, _SHUFFLE), device="cpu") if shuffle else torch.arange(size)
    )

    splits: dict[str, Split] = {}
    for stream, key in enumerate(_SPLITS):
        if key not in parts:
            continue
        values = parts[key].values
        if binarise is None:
            splits[key] = values
        elif binarise == "dynamic" and key == "train":
            splits[key] = DynamicBinarisation(to_probabilities(values, levels, key))
        else:
            splits[key] = _fix(to_probabilities(values, levels, key), binarise, seed, stream)
    labels = {key: part.labels for key, part in parts.items() if part.labels is not None}

    if any(counts.values()):
        whole, whole_labels = splits["train"], labels.get("train")
        # What is taken from dynamic data is not drawn anew: it comes from the draw that static data would have.
        drawn = draw(whole.probabilities, seed, 0, order[left:]) if isinstance(whole, DynamicBinarisation) else None
        start = 0
        for key, count in {"train": left, **counts}.items():
            if count == 0:
                continue
            where = order[start : start + count] if shuffle else slice(start, start + count)  # a slice does not copy
            if drawn is None or key == "train":
                splits[key] = _take(whole, where)
            else:
                splits[key] = _take(drawn, slice(start - left, start - left + count))
            if whole_labels is not None:
                labels[key] = whole_labels[where]
            start += count

    return Dataset(
        name=name if binarise is None else f"{name}-{binarise}",
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        labels={key: labels[key] for key in _SPLITS if key in labels},
        levels=levels if binarise is None else 2,
        description=description,
        source=source,
    )


def _fix(p: Split, binarise: Binarisation, seed: int, stream: int) -> Split:
    return threshold(p) if binarise == "threshold" else draw(p, seed, stream)


def _take(values: Split, where: slice | Tensor) -> Split:
    return values[where] if isinstance(values, Tensor) else values.subset(where)


@dataclass(frozen=True)
class _Raw:
    """Examples as given, of any numeric type: a tensor, or what is too large for one."""

    values: Tensor | StreamedDataset
    labels: Tensor | None


def _read(value: Any, labels: Any, name: str) -> _Raw:
    values: Tensor | StreamedDataset
    if isinstance(value, MappedDataset):
        values = value
    elif isinstance(value, torch_data.Dataset):
        values, found = _read_torch_dataset(value, name)
        labels = found if labels is None else labels
    elif is_mapped(value) and is_large(value.shape):
        values = MappedDataset(value, name)
    else:
        values = to_tensor(value, name)
    if labels is None:
        return _Raw(values, None)
    words = "labels" if name == "train" else f"{name} labels"
    y = to_tensor(labels, words)
    if y.dim() > 1 and isinstance(values, Tensor) and values.shape[: y.dim()] == y.shape:
        values, y = values.flatten(0, y.dim() - 1), y.flatten()
    check_labels(y, len(values), words)
    return _Raw(values, y.to(torch.int64, copy=True))


def to_tensor(value: Any, name: str) -> Tensor:
    """A tensor on the CPU of an array, tensor or nested list, of its own type and sharing its memory where possible.

    Args:
        value: What was given.
        name: The argument's name, for the error.

    Returns:
        A boolean, integer or floating-point tensor.

    Raises:
        DataError: ``value`` is not an array of real numbers.

    Example:
        >>> to_tensor([[1, 2], [3, 4]], "train").dtype
        torch.int64
        >>> to_tensor(["a", "b"], "train")
        Traceback (most recent call last):
        ...
        pyro_lvm.data.checks.DataError: 'train' must be an array of real numbers, but has dtype <U1: convert it
    """
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise DataError(
                f"{name!r} must be a dense tensor, but has layout {value.layout}: convert it with to_dense()"
            )
        if value.is_complex() or value.is_quantized:
            raise DataError(f"{name!r} must be an array of real numbers, but has dtype {value.dtype}: convert it")
        return value.detach().cpu()
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(f"{name!r} must be an array without holes, but is masked: fill in or drop the masked values")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(
            f"{name!r} must be an array, but its rows differ in length: pad or cut them ({error})"
        ) from error
    if array.dtype.kind not in "buif":
        raise DataError(f"{name!r} must be an array of real numbers, but has dtype {array.dtype}: convert it")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64 if array.dtype.itemsize < 8 else np.float64)  # torch computes little with these
    elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # PyTorch takes neither negative strides nor, without a warning, memory that is not to be written to.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _read_torch_dataset(dataset: torch_data.Dataset[Any], name: str) -> tuple[Tensor | StackedDataset, Tensor | None]:
    try:
        size = len(dataset)  # type: ignore[arg-type]  # not every torch Dataset has one
    except TypeError as error:
        raise DataError(f"{name!r} must be a map-style torch Dataset, but has no length: collect it first") from error
    if size == 0:
        raise DataError(f"{name!r} must hold at least one example, but is an empty torch Dataset")

    def value(item: Any) -> Tensor:
        return to_tensor(item[0] if isinstance(item, (tuple, list)) else item, name)

    first = dataset[0]
    if isinstance(first, Mapping):
        raise DataError(f"{name!r} must hold tensors or tuples (tensor, label), but holds dicts: convert its items")
    if 4 * size * value(first).numel() > LARGE:
        return StackedDataset(dataset, value), None
    items = [dataset[i] for i in range(size)]
    values = [value(item) for item in items]
    for i, x in enumerate(values):
        if x.shape != values[0].shape:
            raise DataError(
                f"{name!r} must hold examples of one shape, but example {i} has shape {tuple(x.shape)} "
                f"and example 0 has {tuple(values[0].shape)}: resize or pad them"
            )
    labels = None
    if isinstance(first, (tuple, list)) and len(first) > 1:
        labels = torch.stack([to_tensor(item[1], f"{name} labels") for item in items])
    return torch.stack(values), labels


def _infer_levels(values: list[Tensor | StreamedDataset]) -> int | None:
    high = 0
    for x in values:
        if isinstance(x, MappedDataset):
            levels = x.infer_levels()
            if levels is None:
                return None
            high = max(high, levels - 1)
            continue
        # Reading a whole torch Dataset for its range would take as long as an epoch.
        if isinstance(x, StreamedDataset) or x.is_floating_point():
            return None
        low, top = (int(bound) for bound in x.to(torch.uint8 if x.dtype == torch.bool else x.dtype).aminmax())
        if low < 0:
            return None
        high = max(high, top)
    if high <= 16:
        return max(2, high + 1)
    return 256 if high <= 255 else None


def _finish(x: Tensor | StreamedDataset, levels: int | None, name: str, compact: bool) -> Split:
    if isinstance(x, StreamedDataset):
        if levels is not None:
            check_levels(torch.empty(0), levels, name)
        return x.derive(levels=levels)
    check_finite(x, name)
    if levels is not None:
        check_levels(x, levels, name)
        if compact and levels <= 256:
            return CompactDataset(x.to(torch.uint8, copy=True, memory_format=torch.contiguous_format))
    values = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if x.dtype == torch.float64 and not torch.isfinite(values).all():
        raise DataError(f"{name!r} must fit into float32, but reaches {x.abs().max().item()}: rescale it")
    return values


def as_split(value: Any, name: str) -> Split:
    """Data of any accepted kind as something to index: a tensor of its own type, or a split computed as it is used.

    Args:
        value: an array, tensor, nested list, path of a file of one array, `IndexedDataset`, or torch Dataset of tensors
            or (tensor, label).
        name: the argument's name, for the error.

    Raises:
        DataError: ``value`` is no array of real numbers, is empty or not finite, or is a file that cannot be read or
            holds several splits.

    Example:
        >>> as_split([[1, 2], [3, 4]], "data")
        tensor([[1, 2],
                [3, 4]])
    """
    if isinstance(value, (str, Path)):
        value = _read_path(Path(value).expanduser(), name)
    if isinstance(value, IndexedDataset):
        return value
    if isinstance(value, torch_data.Dataset):
        return _read_torch_dataset(value, name)[0]
    if is_mapped(value) and is_large(value.shape):
        return MappedDataset(value, name)
    # Past a detour over the CPU, which data on an accelerator would not come back from.
    x = value.detach() if isinstance(value, Tensor) and value.is_floating_point() else to_tensor(value, name)
    check_not_empty(x, name)
    check_finite(x, name)
    return x


def _read_path(path: Path, name: str) -> Any:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{name!r} must be an array or the path of a file of kind {', '.join(SUFFIXES)}, but is '{path}': give "
            f"data.load('{path}').train for a data set of that name"
        )
    values, _ = read_file(path)
    if len(values) > 1:
        raise DataError(f"{name!r} must be one array, but '{path}' holds {', '.join(values)}: choose with data.load")
    return values["train"]
