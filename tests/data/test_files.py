"""A user's own files, whole and broken."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_lvm import data

TABLE = np.arange(60.0).reshape(20, 3) / 7


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", TABLE)
    dataset = data.load(tmp_path / "table.npy", validation=3, test=0)
    assert repr(dataset) == "Dataset('table', train=17, validation=3, test=None, shape=(3,), levels=None)"
    assert dataset.source == str(tmp_path / "table.npy")
    assert dataset.train[:].dtype == torch.float32


def test_npz_of_splits(tmp_path: Path) -> None:
    splits = {"train": TABLE[:15], "validation": TABLE[15:18], "test": TABLE[18:]}
    np.savez(tmp_path / "splits.npz", allow_pickle=False, **splits, test_labels=np.array([1, 0]), unrelated=np.zeros(3))
    dataset = data.load(str(tmp_path / "splits.npz"))
    for key, values in splits.items():
        assert torch.equal(dataset.splits[key][:], torch.from_numpy(values).float())
    assert {key: y.tolist() for key, y in dataset.labels.items()} == {"test": [1, 0]}
    with pytest.raises(data.DataError, match=r"'test' must be left out for .* which holds that split"):
        data.load(tmp_path / "splits.npz", test=0.1)


def test_npz_of_images_and_labels(tmp_path: Path) -> None:
    images = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 5), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=np.arange(20))
    dataset = data.load(tmp_path / "a.npz", levels=20)
    assert (dataset.shape, dataset.levels) == ((4, 5), 20)
    for key, split in dataset.splits.items():
        assert torch.equal(split[:].amax((1, 2)).long(), dataset.labels[key])


def test_npz_of_one_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.NPZ.npz", whatever=TABLE)
    assert data.load(tmp_path / "a.NPZ.npz", validation=0, test=0).train.shape == (20, 3)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("header", ["", "height, weight,Größe\n", '"a","b, c",""\n'], ids=["none", "plain", "quoted"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "BOM"])
def test_csv(tmp_path: Path, header: str, newline: str, mark: str) -> None:
    text = mark + header + "".join(",".join(map(repr, map(float, row))) + "\n" for row in TABLE) + "\n"
    (tmp_path / "t.csv").write_bytes(text.replace("\n", newline).encode())
    dataset = data.load(tmp_path / "t.csv", validation=0, test=0)
    assert torch.equal(dataset.train[:], torch.from_numpy(TABLE).float())
    assert dataset.levels is None


def test_csv_of_whole_numbers_is_real_unless_said_otherwise(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("0,1\n1,0\n0,0\n1,1\n")
    assert data.load(tmp_path / "t.csv").levels is None
    assert data.load(tmp_path / "t.csv", levels=2).levels == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3,x\n", r"row 3, column 2 \('b'\) is the text 'x': encode it as a number"),
        ("1,2\nnan,4\n", r"row 2, column 1 is 'nan': fill it in"),
        ("a,b\n1,-inf\n", r"row 2, column 2 \('b'\) is '-inf'"),
        ("1,2\n3,\n", r"row 2, column 2 is '': fill it in"),
        ("1,x\n3,4\n", r"row 1, column 2 is the text 'x'"),
        ("1;2\n3;4\n", r"row 2, column 1 \('1;2'\) is the text '3;4'"),
        ("1,2\n3,4,5\n", "must have 2 cells in every row, as its first has, but row 2 has 3"),
        ("a,b,c\n1,2\n", "must have 3 cells in every row, as its first has, but row 2 has 2"),
        ("a,b\n", "at least one row of numbers"),
        ("", "at least one row of numbers"),
        ('1,2\n"3,4\n', "malformed"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(data.DataError, match=words) as caught:
        data.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("Größe\n1\n".encode("latin-1"))
    with pytest.raises(data.DataError, match="must be text in UTF-8"):
        data.load(tmp_path / "t.csv")


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == ".npy":
        np.save(file, TABLE)
    else:
        np.savez_compressed(file, train=TABLE)
    return file.getvalue()


@pytest.mark.parametrize("kind", [".npy", ".npz"])
@pytest.mark.parametrize("keep", [0, 1, 5, 60, 0.5, 0.9, -1])
def test_truncated(tmp_path: Path, kind: str, keep: float) -> None:
    content = saved(kind)
    stop = int(keep * len(content)) if isinstance(keep, float) else keep
    (tmp_path / f"t{kind}").write_bytes(content[:stop])
    with pytest.raises(data.DataError, match=f"must be a whole {kind} file, but is malformed"):
        data.load(tmp_path / f"t{kind}")


def test_damaged_inside(tmp_path: Path) -> None:
    content = bytearray(saved(".npz"))
    content[120:160] = bytes(40)
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(data.DataError, match="malformed"):
        data.load(tmp_path / "t.npz")


@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_garbage(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"t{kind}").write_bytes(b"<html>404 Not Found</html>")
    with pytest.raises(data.DataError, match="malformed"):
        data.load(tmp_path / f"t{kind}")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    array = np.array([Trap()], dtype=object)
    np.save(tmp_path / "t.npy", array, allow_pickle=True)
    np.savez(tmp_path / "t.npz", allow_pickle=True, train=array)
    for kind in (".npy", ".npz"):
        with pytest.raises(data.DataError, match="holds Python objects: save arrays of a numeric dtype"):
            data.load(tmp_path / f"t{kind}")
    assert not (tmp_path / "sprung").exists()


def test_npz_without_known_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=TABLE, b=TABLE)
    with pytest.raises(
        data.DataError, match=r"must hold an array 'train' or 'images', or a single one, but holds \['a', 'b'\]"
    ):
        data.load(tmp_path / "two.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(data.DataError, match="but holds none"):
        data.load(tmp_path / "none.npz")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match=r"'.*absent\.npy' must be a file, but there is none: check the path"):
        data.load(tmp_path / "absent.npy")
    with pytest.raises(data.DataError, match=r"none in the current folder or in the data root '.*': .*PYRO_LVM_DATA"):
        data.load("absent.npy", root=tmp_path)
    (tmp_path / "t.mat").write_text("")
    with pytest.raises(data.DataError, match=r"must be a file of kind \.npy, \.npz, \.csv, but ends in '\.mat'"):
        data.load(tmp_path / "t.mat")
    with pytest.raises(data.DataError, match="must be a file, but there is none"):
        data.read_file(tmp_path / "absent.csv")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read every file")
def test_unreadable_file(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", TABLE)
    (tmp_path / "t.npy").chmod(0)
    with pytest.raises(data.DataError, match="must be readable, but is not"):
        data.load(tmp_path / "t.npy")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, root = tmp_path / "here", tmp_path / "root"
    for folder, size in ((here, 4), (root, 5)):
        folder.mkdir()
        np.save(folder / "t.npy", TABLE[:size])
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYRO_LVM_DATA", str(root))
    assert len(data.load("t.npy", validation=0, test=0).train) == 4  # the current folder goes first
    (here / "t.npy").unlink()
    assert len(data.load("t.npy", validation=0, test=0).train) == 5
