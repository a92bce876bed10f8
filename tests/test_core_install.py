"""The wheel alone, outside a checkout, in an environment that has torch, NumPy, SciPy and what these need, no more."""

import importlib.metadata
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT
from packaging.requirements import Requirement

CORE = ("numpy", "scipy", "torch")


PRACTITIONER = """
import importlib.resources, torch
import l2dyn
from l2dyn import AutoL2, measure_c, module_ntk, predict_l2, predict_l2_from_C, theory, time_to_peak
assert "site" in l2dyn.__file__, l2dyn.__file__
assert importlib.resources.files("l2dyn").joinpath("py.typed").is_file()
torch.manual_seed(0)
x = torch.randn(200, 5); y = (x[:, 0] > 0).long()
net = torch.nn.Sequential(torch.nn.Linear(5, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
def train(steps):
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[:50]), y[:50]).backward()
        optimizer.step()
def accuracy():
    with torch.no_grad():
        return (net(x[50:]).argmax(1) == y[50:]).float().mean()
c = measure_c(optimizer, train, accuracy, steps_per_epoch=1, l2=0.3, interval=1, max_epochs=400, chance=0.5)
assert 0 < predict_l2(c.c_argmax, 1000) < 0.3 and predict_l2_from_C(c.C_argmax, 0.1, 1000, 0.9) > 0
assert AutoL2(optimizer).step(1.0) is False
assert time_to_peak(c.t, c.values) > 0
kernel = module_ntk(torch.nn.Linear(5, 1), x[:8]).numpy()
assert theory.evolve(kernel, y[:8].numpy() * 2.0 - 1, l2=0.1, k=2, t=1.0).shape == (8,)
assert theory.relu_ntk(x[:3].numpy(), x[:2].numpy())[1].shape == (3, 2)
print("fine")
"""


@pytest.fixture(scope="module")
def wheel(once, pristine) -> Path:
    """The wheel of this checkout."""

    def build(target):
        copy = pristine.copy_to(target.with_name("wheel-source"))
        copy.run(
            *(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet"),
            *("--disable-pip-version-check", "--wheel-dir", str(target)),
        )

    (built,) = once("wheel", build).glob("*.whl")
    return built


def closure(*names: str) -> list[importlib.metadata.Distribution]:
    """The installed distributions of these names and of all that they require here, extras included."""
    found, waiting = set(), [Requirement(name) for name in names]
    while waiting:
        one = waiting.pop()
        for extra in ("", *one.extras):
            if (one.name, extra) not in found:
                found.add((one.name, extra))
                needed = map(Requirement, importlib.metadata.requires(one.name) or ())
                waiting += [n for n in needed if n.marker is None or n.marker.evaluate({"extra": extra})]
    return [importlib.metadata.distribution(name) for name in {name for name, _ in found}]


@pytest.fixture(scope="module")
def environment(once, wheel) -> Path:
    """Python in a new environment: the wheel installed by pip, its requirements linked from this one."""

    def install(target):
        venv.create(target, symlinks=True)
        needed, links = closure(*CORE), target / "requirements"
        links.mkdir()
        places = {(file.parts[0], one.locate_file(file.parts[0])) for one in needed for file in one.files}
        for name, place in places:
            if name not in ("..", "__pycache__"):
                (links / name).symlink_to(place)
        (packages,) = target.glob("lib/python*/site-packages")
        (packages / "requirements.pth").write_text(f"{target.with_name('once-core-environment') / links.name}\n")
        pip(target, "install", "--no-deps", "--no-index", "--quiet", str(wheel))  # nothing is written through the links

    return once("core-environment", install)


def pip(environment: Path, *words: str) -> str:
    """What pip says of that environment; it must not fail."""
    command = (sys.executable, "-I", "-m", "pip", "--isolated", "--python", str(environment / "bin" / "python"))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [*command, "--disable-pip-version-check", *words]
    done = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tools_work_without_the_extras(environment, tmp_path):
    python = str(environment / "bin" / "python")
    done = subprocess.run([python, "-I", "-c", PRACTITIONER], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
    for extra in ("pandas", "pydantic", "snakemake", "matplotlib", "lightning"):
        assert (
            subprocess.run([python, "-I", "-c", f"import {extra}"], cwd=tmp_path, capture_output=True).returncode == 1
        )


def test_pip_finds_every_requirement_there(environment):
    assert "No broken requirements found" in pip(environment, "check")


def test_the_wheel_holds_the_package_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "l2dyn/cli/main.py" in names
    assert not [name for name in names if name.startswith("l2dyn/tests/")]


def test_the_core_dependencies_are_three():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(line.split(">")[0] for line in listed) == sorted(CORE)
