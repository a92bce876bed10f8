"""The project as a whole, from outside: copies of the checkout, real Snakemake, real processes."""

import shutil
import subprocess

import pytest
from checkout import ROOT, Checkout


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Checkout:
    """The files that git tracks or would track, without results."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    target = tmp_path_factory.mktemp("pristine") / "l2dyn"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return Checkout(target)


@pytest.fixture(scope="session")
def finished(pristine, tmp_path_factory) -> Checkout:
    """A checkout in which the smoke scale has been run to its end."""
    checkout = pristine.copy_to(tmp_path_factory.mktemp("finished") / "l2dyn")
    checkout.snakemake("all")
    return checkout


@pytest.fixture
def fresh(pristine, tmp_path) -> Checkout:
    """A fresh copy without results."""
    return pristine.copy_to(tmp_path / "fresh")


@pytest.fixture
def smoke(finished, tmp_path) -> Checkout:
    """A copy of the finished smoke scale, to be tampered with."""
    return finished.copy_to(tmp_path / "smoke")
