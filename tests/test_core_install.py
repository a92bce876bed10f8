"""The wheel alone, outside a checkout, with torch, NumPy and SciPy and nothing else of ours to import."""

import subprocess
import sys
import zipfile

import pytest
from checkout import ROOT

# Whatever the extras bring is not to be found, as in an environment where they were not installed.
ABSENT = (
    *("jupytext", "matplotlib", "mlxtend", "pandas", "pyarrow", "pydantic", "ruamel", "seaborn", "snakemake"),
    *("torchvision", "tqdm", "yaml", "lightning", "pytorch_lightning", "filelock", "hypothesis"),
)
BLOCKED = f"""
import sys
from importlib.machinery import PathFinder
class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT!r} else PathFinder.find_spec(name, path, target)
    invalidate_caches = PathFinder.invalidate_caches
sys.meta_path[:] = [Without if f is PathFinder else f for f in sys.meta_path if "editable" not in repr(f).lower()]
"""

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
def site(once, pristine):
    """A folder with what the wheel installs."""

    def install(target):
        copy = pristine.copy_to(target.with_name("wheel-source"))
        wheels = target.with_name("wheels")
        copy.run(
            *(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet"),
            *("--disable-pip-version-check", "--wheel-dir", str(wheels)),
        )
        (wheel,) = wheels.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(target)

    return once("site-packages", install)


def test_the_tools_work_without_the_extras(site, tmp_path):
    code = BLOCKED + f"sys.path.insert(0, {str(site)!r})\n" + PRACTITIONER
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_the_wheel_holds_the_package_and_no_tests(site):
    assert (site / "l2dyn" / "cli" / "main.py").is_file()
    assert not (site / "l2dyn" / "tests").exists()


def test_the_core_dependencies_are_three():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(line.split(">")[0] for line in listed) == ["numpy", "scipy", "torch"]
