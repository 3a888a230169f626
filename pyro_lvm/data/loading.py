"""One function for all data: by name, by path, or as they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pyro_lvm.data.arrays import assemble, from_arrays
from pyro_lvm.data.binarisation import BINARISATIONS, Binarisation
from pyro_lvm.data.checks import DataError, check_choice, check_size
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.data.files import SUFFIXES, read_file
from pyro_lvm.data.named import ALIASES, NAMED, data_root, names


def load(
    data: Any,
    *,
    root: str | Path | None = None,
    download: bool = False,
    binarise: Binarisation | None = None,
    seed: int = 0,
    validation: float | None = None,
    test: float | None = None,
    levels: int | None = None,
) -> Dataset:
    r"""Load a data set by name, from a file, or from an array, tensor or torch Dataset.

    | name | examples | train | validation | test | levels |
    |---|---|---|---|---|---|
    | digits | 8×8, comes with scikit-learn | 1,000 (the first) | 350 | 447 | 17 |
    | mnist | 28×28 | 50,000 (dynamic 60,000) | 10,000 | 10,000 | 256 |
    | fashion-mnist | 28×28 | 50,000 | 10,000 | 10,000 | 256 |
    | omniglot-28 | 28×28 (own resize); also ``omniglot`` | 17,352 | 1,928 | 13,180 | 256 |
    | cifar10 | 3×32×32 | 45,000 | 5,000 | 10,000 | 256 |

    Validation examples are the last of the official training part (a seeded choice for Omniglot, which is in order of
    characters). As published for dynamically binarised MNIST, its 60,000 are all for training unless ``validation`` is
    given. Numbers on different variants do not compare, so the data set's name says which one it is: the name, the
    binarisation, and the number of training examples where it is not the usual one (``"mnist-dynamic-50000"``).

    Values are whole numbers 0, 1, ..., levels - 1 in float32 tensors of shape (N, *shape), whatever the default dtype
    is: convert with ``.double()`` where a model is in float64. Sets that would take more than 512 MiB that way
    (CIFAR10) are `CompactDataset`, which convert as they are indexed; your own ``.npy`` files of that size stay
    on disk, and are read as they are indexed (`MappedDataset`).

    Args:
        data: A name of `names`, perhaps followed by ``-static``, ``-dynamic`` or ``-threshold``; a path to a
            ``.npy``, ``.npz`` or ``.csv`` file (see `read_file`), looked for in the current folder and then in
            the data root; or examples, as in `from_arrays`.
        root: The data root; else the environment variable ``PYRO_LVM_DATA``; else a folder in the user's cache.
        download: Whether a named set whose files are missing is fetched into the data root.
        binarise: ``"static"``, one draw $x \sim \mathrm{Bernoulli}(\text{value} / (\text{levels} - 1))$ of every
            pixel of every split; ``"dynamic"``, training pixels are drawn anew at every use by PyTorch's global
            generator (`DynamicBinarisation`), the other splits are those of ``"static"``; ``"threshold"``, one
            from one half upwards; None, as they are.
        seed: Seed of draws and shuffles; the global generators stay untouched.
        validation: Size of the validation split, a count or a fraction of the training part; 0 for none.
        test: Size of the test split, likewise; for your own data only.
        levels: Number of discrete levels; for your own data only, where it is else inferred as in `from_arrays`.

    Returns:
        A `Dataset`.

    Raises:
        DataError: The name is unknown, a file is missing or malformed, or the data or arguments do not fit.

    Example:
        >>> load("digits")
        Dataset('digits', train=1000, validation=350, test=447, shape=(8, 8), levels=17)
        >>> load("digits", binarise="static").test.unique()
        tensor([0., 1.])
    """
    if binarise is not None:
        check_choice(binarise, BINARISATIONS, "binarise")
    if not isinstance(data, (str, Path)):
        return from_arrays(data, validation, test, levels=levels, binarise=binarise, seed=seed)
    if isinstance(data, Path) or Path(data).suffix.lower() in SUFFIXES:
        return _load_file(_find(Path(data).expanduser(), data_root(root)), binarise, seed, validation, test, levels)
    if test is not None or levels is not None:
        raise DataError(f"'test' and 'levels' must be left out for {data!r}, where they are settled: drop them")
    return _load_named(data, data_root(root), download, binarise, seed, validation)


def _load_named(
    data: str, root: Path, download: bool, binarise: Binarisation | None, seed: int, validation: float | None
) -> Dataset:
    name = data
    for variant in BINARISATIONS:
        if data.endswith(f"-{variant}"):
            name = data.removesuffix(f"-{variant}")
            if binarise not in (None, variant):
                raise DataError(
                    f"'binarise' must agree with the name {data!r}, but is {binarise!r}: drop one of the two"
                )
            binarise = variant
    name = ALIASES.get(name, name)
    check_choice(name, names(), "data", otherwise=f" or a path that ends in {', '.join(SUFFIXES)}")
    known = NAMED[name]
    parts = known.read(root, download)
    size = len(parts["train"].values)
    usual = known.dynamic_validation if binarise == "dynamic" else known.validation
    count = usual if validation is None else check_size(validation, size, "validation")
    dataset = assemble(
        parts,
        {"validation": count},
        levels=known.levels,
        name=name,
        binarise=binarise,
        seed=seed,
        description=known.description + _words(binarise, known.levels, seed),
        source=known.source,
        shuffle=known.shuffle,
    )
    # Otherwise numbers on 50,000 and on 60,000 training images would go by one name.
    return dataset if count == usual else replace(dataset, name=f"{dataset.name}-{size - count}")


def _words(binarise: Binarisation | None, levels: int, seed: int) -> str:
    if binarise is None:
        return ""
    return (
        "; "
        + {
            "static": f"pixels are one draw of Bernoulli(x/{levels - 1}) with seed {seed} (own draw)",
            "dynamic": f"training pixels are drawn Bernoulli(x/{levels - 1}) at every use, others once, seed {seed}",
            "threshold": f"pixels are 1 where x/{levels - 1} is at least one half",
        }[binarise]
    )


def _find(path: Path, root: Path) -> Path:
    for candidate in (path, root / path):
        if candidate.is_file():
            return candidate
    if path.is_absolute():
        raise DataError(f"'{path}' must be a file, but there is none: check the path")
    raise DataError(
        f"'{path}' must be a file, but there is none in the current folder or in the data root '{root}': "
        "check the path, or set 'root' or the environment variable PYRO_LVM_DATA"
    )


def _load_file(
    path: Path,
    binarise: Binarisation | None,
    seed: int,
    validation: float | None,
    test: float | None,
    levels: int | None,
) -> Dataset:
    arrays, labels = read_file(path)
    for key, size in (("validation", validation), ("test", test)):
        if key in arrays and size is not None:
            raise DataError(f"{key!r} must be left out for '{path}', which holds that split: drop it")
    return from_arrays(
        arrays["train"],
        arrays.get("validation", validation),
        arrays.get("test", test),
        labels,
        levels,
        name=path.stem,
        binarise=binarise,
        seed=seed,
        source=str(path),
    )
