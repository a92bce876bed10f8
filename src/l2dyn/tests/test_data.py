"""Data sets: one canonical order, verified at every turn, and one clear line for every fault."""

import functools
import gzip
import hashlib
import http.server
import io
import re
import shutil
import struct
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from l2dyn.data import arrays as data
from l2dyn.data import cifar10
from l2dyn.data.arrays import facts
from l2dyn.data.samples import inputs, parity, samples
from l2dyn.errors import UserError
from l2dyn.specs.data_sets import DATA_SETS, DataSpec


@pytest.fixture(scope="module")
def digits(arrays):
    return arrays, data.load("digits", arrays)


def spec(**fields):
    return DataSpec(**({"name": "digits", "train_samples": 30, "test_samples": 20} | fields))


def test_embedded_digits(digits):
    _, arrays = digits
    info = DATA_SETS["digits"]
    assert arrays["train_images"].shape == (info.train_samples, *info.shape)
    assert arrays["test_images"].shape == (info.test_samples, *info.shape)
    assert arrays["train_images"].dtype == np.uint8
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    assert np.bincount(labels).tolist() == [500] * 10
    assert data.checksum(arrays) == info.checksum


def test_canonical_order_does_not_depend_on_the_source_order(digits):
    _, arrays = digits
    images, labels = arrays["train_images"], arrays["train_labels"]
    shuffled = np.random.default_rng(0).permutation(len(images))
    again_images, again_labels = data.canonical_order(images[shuffled], labels[shuffled])
    np.testing.assert_array_equal(again_images, images)
    np.testing.assert_array_equal(again_labels, labels)
    keys = [
        hashlib.sha256(i.tobytes() + bytes([label, 0])).hexdigest() for i, label in zip(images, labels, strict=True)
    ]
    assert keys == sorted(keys)


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "text"])
def test_a_damaged_prepared_file_is_set_aside_and_prepared_again(digits, tmp_path, caplog, damage):
    path = tmp_path / "digits.npz"
    content = bytearray(digits[0].read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"bit": content, "cut": content[:1000], "empty": b"", "text": b"not a zip"}[damage])
    with caplog.at_level("WARNING"):
        arrays = data.load("digits", path)
    assert data.checksum(arrays) == DATA_SETS["digits"].checksum
    assert (tmp_path / "digits.npz.corrupt").exists()
    assert any("damaged data file" in message and str(path) in message for message in caplog.messages)


def test_samples_are_the_first_in_canonical_order(digits):
    _, arrays = digits
    chosen = samples(spec(), arrays)
    np.testing.assert_array_equal(chosen.train_images, arrays["train_images"][:30])
    np.testing.assert_array_equal(chosen.test_labels, arrays["test_labels"][:20])


def test_inputs(digits):
    images = digits[1]["train_images"][:7]
    plain = images.reshape(7, -1) / 255.0
    np.testing.assert_allclose(inputs(spec(), images), (plain - 0.1307) / 0.3081, rtol=1e-12)
    unit = inputs(spec(scaling="unit"), images)
    np.testing.assert_allclose((unit**2).sum(axis=1), 784)
    np.testing.assert_allclose(
        unit / plain.clip(1e-300), (unit / plain.clip(1e-300)).max(axis=1, keepdims=True) * (plain > 0)
    )
    np.testing.assert_array_equal(parity(np.array([0, 1, 2, 7])), [[1], [-1], [1], [-1]])


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder in torchvision's layout with a few made-up digits, and DATA_SETS told about them."""
    raw = tmp_path / "source" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(1)
    arrays = {}
    for stem, split, count in (("train", "train", 12), ("t10k", "test", 5)):
        images = generator.integers(0, 256, size=(count, 28, 28)).astype(np.uint8)
        labels = generator.integers(0, 10, size=count).astype(np.uint8)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
        ordered = data.canonical_order(images[..., None], labels)
        arrays |= {f"{split}_images": ordered[0], f"{split}_labels": ordered[1]}
    info = DATA_SETS["mnist"]
    known = type(info)(**{**vars(info), "checksum": data.checksum(arrays), "train_samples": 12, "test_samples": 5})
    monkeypatch.setitem(DATA_SETS, "mnist", known)
    return tmp_path / "source", arrays


def test_mnist_from_a_folder(small_mnist, tmp_path):
    folder, expected = small_mnist
    arrays = data.load("mnist", tmp_path / "mnist.npz", str(folder))
    for key in data.ARRAYS:
        np.testing.assert_array_equal(arrays[key], expected[key])


@pytest.mark.parametrize("layout", ["MNIST/raw", "MNIST", "mnist", "raw", "."])
@pytest.mark.parametrize("named", ["{}", "{}.gz", "dotted", "dotted.gz"])
def test_mnist_lies_as_people_have_it(small_mnist, tmp_path, layout, named):
    """Packed or not, in torchvision's folders or flat, as train-images-idx3-ubyte or train-images.idx3-ubyte."""
    folder, expected = small_mnist
    target = tmp_path / "own" / layout
    target.mkdir(parents=True)
    for path in (folder / "MNIST" / "raw").iterdir():
        name = path.name.replace("-idx", ".idx") if "dotted" in named else path.name
        content = path.read_bytes()
        if named.endswith(".gz"):
            (target / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (target / name).write_bytes(content)
    arrays = data.load("mnist", tmp_path / "mnist.npz", str(tmp_path / "own"))
    for key in data.ARRAYS:
        np.testing.assert_array_equal(arrays[key], expected[key])


def test_a_damaged_packed_file_of_mnist(small_mnist, tmp_path):
    folder, _ = small_mnist
    path = folder / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    for harmed in (packed[:-9], packed[:30], b"no gzip"):
        path.with_name(path.name + ".gz").write_bytes(harmed)
        with pytest.raises(UserError, match=r"labels-idx1-ubyte\.gz: a file of MNIST is damaged"):
            data.prepare("mnist", tmp_path / "x.npz", str(folder))


def test_facts_are_what_an_entry_of_data_sets_says(digits, small_mnist):
    """Of a data set as its source gives it, whatever its checksum is said to be."""
    known = DATA_SETS["digits"]
    found = facts("digits")
    assert {k: v for k, v in found.items() if k not in ("mean", "std")} == {
        k: getattr(known, k) for k in ("checksum", "train_samples", "test_samples", "shape", "classes")
    }
    scaled = digits[1]["train_images"] / 255.0
    np.testing.assert_allclose(found["mean"], [scaled.mean()], rtol=1e-12)
    np.testing.assert_allclose(found["std"], [scaled.std()], rtol=1e-12)
    folder, expected = small_mnist
    other = facts("mnist", str(folder))
    assert (other["checksum"], other["train_samples"]) == (data.checksum(expected), 12)


def test_a_folder_without_mnist(tmp_path):
    with pytest.raises(UserError, match="MNIST/raw") as caught:
        data.prepare("mnist", tmp_path / "x.npz", str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_a_missing_file_of_mnist(small_mnist, tmp_path):
    folder, _ = small_mnist
    (folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="holds no t10k-labels-idx1-ubyte"):
        data.prepare("mnist", tmp_path / "x.npz", str(folder))


def test_a_damaged_file_of_mnist(small_mnist, tmp_path):
    folder, _ = small_mnist
    path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum") as caught:
        data.prepare("mnist", tmp_path / "x.npz", str(folder))
    assert str(folder) in str(caught.value)
    for harmed in (content[:900], b"", content[:2], b"<html>" + content, content[:3] + b"\xff"):
        path.write_bytes(harmed)
        with pytest.raises(UserError, match="damaged") as caught:
            data.prepare("mnist", tmp_path / "x.npz", str(folder))
        assert str(path) in str(caught.value)
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("stem", ["train", "t10k"])
def test_mnist_with_a_label_too_few(small_mnist, tmp_path, stem):
    """Two files of different downloads, each whole."""
    folder, _ = small_mnist
    (folder / "MNIST" / "raw" / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, np.uint8)))
    count, split = (12, "training") if stem == "train" else (5, "test")
    found = re.escape(f"images [{count}, 28, 28, 1] and labels [4]")
    with pytest.raises(UserError, match=f"{folder}: the {split} split of mnist has {found}"):
        data.prepare("mnist", tmp_path / "x.npz", str(folder))


@pytest.fixture
def parquet(tmp_path):
    """parquet(split, images, labels) writes a file in the layout of uoft-cs/cifar10; an image is [height, width, …]."""

    def write(split, images, labels):
        cells = []
        for image in images:
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "PNG")
            cells.append({"bytes": stream.getvalue()})
        kind = pa.struct([("bytes", pa.binary())])
        path = tmp_path / "cifar10" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"img": pa.array(cells, kind), "label": pa.array(labels)}), path)
        return path

    return write


def test_cifar10_from_parquet_files(parquet, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(5, 32, 32, 3)).astype(np.uint8)
    parquet("test", images[3:], [7, 1])
    path = parquet("train", images[1:3], [3, 4])
    path.rename(path.with_name("train-00001-of-00002.parquet"))
    parquet("train", images[:1], [9])
    (train, train_labels), (test, test_labels) = cifar10.read(str(tmp_path))
    np.testing.assert_array_equal(np.concatenate([train, test]), images)
    assert [*train_labels, *test_labels] == [9, 3, 4, 7, 1]


BLACK = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels"),
    [([], []), ([BLACK, BLACK[:16]], [0, 1]), ([BLACK[:16]], [0]), ([BLACK[..., 0]], [0]), ([BLACK], ["cat"])],
    ids=["empty", "two sizes", "another size", "no colours", "labels in words"],
)
def test_a_parquet_file_that_is_not_of_cifar10_is_named(parquet, tmp_path, images, labels):
    path = parquet("train", images, labels)
    with pytest.raises(UserError, match=f"{path}: a damaged file of CIFAR-10"):
        data.prepare("cifar10", tmp_path / "x.npz", str(tmp_path))


def test_no_network_for_a_download(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setenv("L2DYN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        data.prepare("mnist", tmp_path / "x.npz")
    assert "L2DYN_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_is_verified_and_read(small_mnist, tmp_path, monkeypatch):
    """From a real HTTP server on this machine that stands in for torchvision's mirror."""
    from torchvision.datasets import MNIST

    folder, expected = small_mnist
    served = tmp_path / "served"
    served.mkdir()
    resources = []
    for path in sorted((folder / "MNIST" / "raw").iterdir()):
        with open(path, "rb") as source, gzip.open(served / f"{path.name}.gz", "wb") as packed:
            shutil.copyfileobj(source, packed)
        resources.append((f"{path.name}.gz", hashlib.md5((served / f"{path.name}.gz").read_bytes()).hexdigest()))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("L2DYN_RESULTS", str(tmp_path / "results"))
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(MNIST, "resources", resources)
        arrays = data.load("mnist", tmp_path / "mnist.npz")
    finally:
        server.shutdown()
        server.server_close()
    for key in data.ARRAYS:
        np.testing.assert_array_equal(arrays[key], expected[key])
