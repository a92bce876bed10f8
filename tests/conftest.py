"""The project as a whole, from outside: copies of the checkout, real Snakemake, real processes."""

import os
import shutil
import subprocess

import pytest
from checkout import ROOT, Checkout
from filelock import FileLock


def pytest_collection_modifyitems(items):
    """Long tests run where nothing may be skipped, as in CI; the longer come first, so that short ones fill the end."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, not item.path.is_relative_to(ROOT / "tests")))
    if os.environ.get("L2DYN_REQUIRE_ALL") != "1":
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow; L2DYN_REQUIRE_ALL=1 runs it"))


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """once(name, make): a folder that make(path) fills, once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def made(name, make):
        path = base / f"once-{name}"
        with FileLock(str(path) + ".lock"):
            if not path.exists():
                partly = path.with_name(path.name + ".partly")
                shutil.rmtree(partly, ignore_errors=True)
                make(partly)
                partly.rename(path)
        return path

    return made


@pytest.fixture(scope="session")
def pristine(once) -> Checkout:
    """The files that git tracks or would track, without results, and the scale of the workflow's tests."""

    def copy(target):
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)
        shutil.copy2(ROOT / "tests" / "tiny.yaml", target / "config" / "tiny.yaml")

    return Checkout(once("pristine", copy))


@pytest.fixture(scope="session")
def finished(pristine, once) -> Checkout:
    """A checkout in which the smoke scale has been run to its end; not to be changed."""

    def run(target):
        pristine.copy_to(target).snakemake("all")

    return Checkout(once("smoke", run), "smoke")


@pytest.fixture(scope="session")
def finished_tiny(pristine, once) -> Checkout:
    """The same for the scale of the workflow's tests."""

    def run(target):
        Checkout(pristine.copy_to(target).path, "tiny").snakemake("all")

    return Checkout(once("tiny", run), "tiny")


@pytest.fixture
def fresh(pristine, tmp_path) -> Checkout:
    """A fresh copy without results, at the scale of the workflow's tests."""
    return Checkout(pristine.copy_to(tmp_path / "fresh").path, "tiny")


@pytest.fixture
def smoke(finished, tmp_path) -> Checkout:
    """A copy of the finished smoke scale, to be tampered with."""
    return finished.copy_to(tmp_path / "smoke")


@pytest.fixture
def tiny(finished_tiny, tmp_path) -> Checkout:
    """A copy of the finished tiny scale, to be tampered with."""
    return finished_tiny.copy_to(tmp_path / "tiny")
