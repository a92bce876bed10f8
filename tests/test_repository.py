"""The repository itself: floors, light imports, formats, agreement of files that say one thing twice."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from checkout import ROOT

FLOORS = {  # the longest prefix counts
    "l2dyn": 0,
    "l2dyn.errors": 0,
    "l2dyn.runs": 0,
    "l2dyn.derivation": 1,
    "l2dyn.metrics": 1,
    "l2dyn.prediction": 1,
    "l2dyn.summary": 1,
    "l2dyn.theory": 1,
    "l2dyn.auto_l2": 2,
    "l2dyn.augmentation": 2,
    "l2dyn.data": 2,
    "l2dyn.nets": 2,
    "l2dyn.theory_curves": 2,
    "l2dyn.theory_of_runs": 2,
    "l2dyn.training": 3,
    "l2dyn.plotting": 4,
    "l2dyn.cli": 5,
    "l2dyn.__main__": 5,
}


def floor_of(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in FLOORS:
            if length == 1 and len(parts) > 1:
                break
            return FLOORS[".".join(parts[:length])]
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


def modules() -> list:
    """Every module of the package with its path."""
    found = []
    for path in sorted((ROOT / "src" / "l2dyn").rglob("*.py")):
        if "tests" not in path.parts:
            name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
            found.append(pytest.param(name, path, id=name))
    return found


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module and node.module.startswith("l2dyn"):
                yield from (f"{node.module}.{a.name}" for a in node.names if is_module(f"{node.module}.{a.name}"))


def is_module(name: str) -> bool:
    path = ROOT / "src" / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize(("name", "path"), modules())
def test_a_file_imports_from_its_own_floor_or_below(name, path):
    for imported in imports_of(path):
        if imported and imported.split(".")[0] == "l2dyn":
            assert floor_of(imported) <= floor_of(name), f"{name} imports {imported}"
        if floor_of(name) <= 1:
            assert imported.split(".")[0] not in ("torch", "torchvision"), f"{name} imports {imported}"


def test_what_the_snakefile_imports_is_light():
    code = (
        "import sys; sys.path.insert(0, 'src')\n"
        "from l2dyn.errors import UserError\n"
        "from l2dyn.runs.dag import Dag\n"
        "Dag({'scale': 'paper'}).targets()\n"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'pyarrow', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_exports_its_names_lazily():
    code = (
        "import sys; sys.path.insert(0, 'src'); import l2dyn\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "assert l2dyn.time_to_peak([1, 2], [0.1, 0.2]) == 2.0\n"
        "assert l2dyn.theory.mode_evolution(0.0, 1.0, 0.1, 2.0, 1.0) == 0.0\n"
        "assert 'torch' not in sys.modules\n"
        "assert set(l2dyn.__all__) <= set(dir(l2dyn))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_snakemake_lint():
    done = run(sys.executable, "-m", "snakemake", "--lint")
    assert done.returncode == 0, done.stderr


def test_formats():
    for command in (
        ("snakefmt", "--check", "Snakefile", "workflow"),
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
    ):
        done = run(sys.executable, "-m", *command)
        assert done.returncode == 0, done.stdout + done.stderr


def requirements(lines):
    for line in lines:
        name, bound = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(.*)", line).groups()
        yield name.lower(), bound.replace(" ", "")


CONDA_NAMES = {
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "seaborn-base": "seaborn",
    "snakemake-minimal": "snakemake",
}


def test_environment_yml_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(requirements(project["dependencies"]))
    for extra in project["optional-dependencies"].values():
        wanted |= dict(requirements(extra))
    wanted["python"] = project["requires-python"].replace(" ", "")
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    found = {CONDA_NAMES.get(name, name): bound for name, bound in requirements(listed)}
    assert found.pop("pip") == ""
    assert found == wanted


def test_the_lock_satisfies_pyproject_and_pins_no_cuda():
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    locked = {name.lower().replace("_", "-"): version for name, version in locked.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (line for lines in project["optional-dependencies"].values() for line in lines)
    for line in (*project["dependencies"], *extras):
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[requirement.name.lower()]), line
    assert not [name for name in locked if name.startswith(("nvidia", "cuda", "triton"))]
    assert "+" not in locked["torch"]


def test_the_schema_is_that_of_the_configuration():
    from l2dyn.runs.schema import PATH, schema_text

    assert PATH.read_text() == schema_text(), "write it anew with: python -m l2dyn.runs.schema"


def test_every_claim_is_there():
    claims = yaml.safe_load((ROOT / "paper_results" / "claims.yaml").read_text())["claims"]
    assert [claim["id"] for claim in claims] == [f"C{i}" for i in range(1, 21)]
    for claim in claims:
        assert {"claim", "where", "figures", "judged_by", "criterion", "paper"} <= claim.keys()


def test_versions_agree():
    import l2dyn

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert l2dyn.__version__ == project["version"] == citation["version"]


def test_the_smoke_scale_draws_whatever_another_scale_draws():
    smoke, *others = (
        yaml.safe_load((ROOT / "config" / f"{scale}.yaml").read_text())["figures"]
        for scale in ("smoke", "quick", "gpu", "paper")
    )
    for figures in others:
        for name, section in figures.items():
            assert set(section.get("experiments", [])) <= set(smoke[name].get("experiments", []))
            assert set(section.get("theory", [])) <= set(smoke[name].get("theory", []))


def test_notebooks_run_in_jupyter(finished, tmp_path):
    """With jupytext --execute, from the figures folder, without a rule; they read results/quick."""
    checkout = finished.copy_to(tmp_path / "notebooks")
    (checkout.path / "results" / "smoke").rename(checkout.path / "results" / "quick")
    (checkout.path / "config" / "smoke.yaml").replace(checkout.path / "config" / "quick.yaml")
    for name in ("fig1", "fig2", "fig3", "fig4", "fig5"):
        command = (
            "-m",
            "jupytext",
            "--to",
            "ipynb",
            "--execute",
            f"figures/{name}.py",
            "-o",
            str(tmp_path / f"{name}.ipynb"),
        )
        checkout.run(sys.executable, *command, PYTHONPATH=str(checkout.path / "src"))
        assert "image/png" in (tmp_path / f"{name}.ipynb").read_text()
