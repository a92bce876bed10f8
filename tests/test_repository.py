"""The repository itself: the house, light imports, formats, pages, files that say one thing twice."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from checkout import ROOT

from l2dyn.tables.pages import BEGIN, END, figures_page
from l2dyn.tables.remarks import findings_of_figures

TRACKED = (
    subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
)


def run(*command, **how):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **how)


def test_a_package_imports_only_from_those_below_it():
    """import-linter, with the layers of pyproject.toml; CONTRIBUTING.md lists them in the same order."""
    done = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", env=None)
    assert done.returncode == 0, done.stdout
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [name for layer in contracts[0]["layers"] for name in layer.split(" | ")]
    page = (ROOT / "CONTRIBUTING.md").read_text().split("## The house")[1].split("```")[1]
    listed = re.findall(r"([a-z]\w*)(?:/|\.py)", "\n".join(line[:24] for line in page.splitlines()))
    assert listed == layers


def test_no_file_of_the_package_is_longer_than_400_lines():
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in TRACKED
        if name.startswith("src/l2dyn/") and name.endswith(".py") and (ROOT / name).exists()
    }
    assert {name: n for name, n in lengths.items() if n > 400 and "/tests/" not in name} == {}


def test_the_package_exports_its_names_lazily():
    code = (
        "import sys; sys.path.insert(0, 'src'); import l2dyn\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "assert l2dyn.time_to_peak([1, 2], [0.1, 0.2]) == 2.0\n"
        "assert l2dyn.theory.mode_evolution(0.0, 1.0, 0.1, 2.0, 1.0) == 0.0\n"
        "assert not {'torch', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "assert set(l2dyn.__all__) <= set(dir(l2dyn))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_snakemake_lint():
    done = run(sys.executable, "-m", "snakemake", "--lint")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [("snakefmt", "--check", "Snakefile", "workflow"), ("ruff", "check", "."), ("ruff", "format", "--check", ".")],
    ids=" ".join,
)
def test_formats(command):
    done = run(sys.executable, "-m", *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_public_functions_have_docstrings():
    """Every public module, class and function of the package says what it is."""
    bare = []
    for name in TRACKED:
        if name.startswith("src/l2dyn/") and name.endswith(".py") and "/tests/" not in name and (ROOT / name).exists():
            tree = ast.parse((ROOT / name).read_text())
            nodes = [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]
            nodes += [f for n in nodes for f in n.body if isinstance(f, ast.FunctionDef)]
            public = (n for n in nodes if not getattr(n, "name", "").startswith("_"))
            bare += [f"{name}:{getattr(n, 'name', '')}" for n in public if not ast.get_docstring(n)]
            assert "Floor" not in (ast.get_docstring(tree) or ""), name
    assert bare == []


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


def test_what_the_lock_names_installs_on_the_oldest_python():
    """By the metadata of what is installed: a fresh machine may have any patch release of it (Debian 12: 3.11.2)."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.specifiers import SpecifierSet

    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    refusing, seen = [], 0
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if "==" not in line or line.startswith("#"):
            continue
        name, version = line.split("==")
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if installed.version.partition("+")[0] == version:
            seen += 1
            wanted = installed.metadata["Requires-Python"] or ""
            if not SpecifierSet(wanted).contains(f"{oldest}.0"):
                refusing.append(f"{line}: {wanted}")
    assert seen > 100, "another environment than the lock file's"
    assert refusing == []


def test_every_claim_is_there():
    claims = yaml.safe_load((ROOT / "paper_results" / "claims.yaml").read_text())["claims"]
    assert [claim["id"] for claim in claims] == [*(f"C{i}" for i in range(1, 21)), "O1", "O2"]
    for claim in claims:
        assert {"claim", "where", "figures", "judged_by", "criterion", "paper"} <= claim.keys()


def test_versions_agree():
    import l2dyn

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert l2dyn.__version__ == project["version"] == citation["version"]


PAGES = ("README.md", "CONTRIBUTING.md", "config/README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_the_readme_is_a_page_without_measured_numbers():
    """But for the verdicts, which a command writes."""
    before, _, rest = (ROOT / "README.md").read_text().partition(BEGIN)
    text = before + rest.partition(END)[2]
    assert rest
    assert len(text.splitlines()) <= 115
    assert len(text.split()) <= 1200
    assert re.findall(r"\d+(?:\.\d+)? ?(?:minutes|min|seconds|s\b|h\b|%)", text) == []  # but in words, as "an hour"
    assert re.findall(r"0\.\d{2,}", text) == []


def test_the_page_of_figures_is_written_anew():
    """By: l2dyn pages."""
    text = figures_page(ROOT / "figures", ROOT / "docs" / "gallery", findings_of_figures())
    assert (ROOT / "docs" / "figures.md").read_text() == text
    assert text.count("*At the quick scale.*") == text.count("\n## ") == text.count("\n![") > 15


def test_recorded_theory_is_of_runs_that_the_scale_lists():
    from checkout import rows_of

    from l2dyn.config.loading import load_scale
    from l2dyn.runs.plan import Plan

    for path in (ROOT / "paper_results" / "theory").glob("*/constant.csv"):
        plan = Plan(path.parent.name, load_scale(path.parent.name))
        for row in rows_of(path):
            listed = {(p.run_id, p.spec.lr, p.spec.l2, p.spec.init_seed) for p in plan.experiments[row["experiment"]]}
            assert (row["run_id"], float(row["lr"]), float(row["l2"]), int(row["seed"])) in listed
    for path in (ROOT / "paper_results" / "theory").glob("*/kernel.csv"):
        plan = Plan(path.parent.name, load_scale(path.parent.name))
        with path.open() as stream:
            columns = stream.readline().strip().split(",")
        shown = {name.removeprefix("loss_") for name in columns if name.startswith("loss_")}
        listed = {point.run_id for points in plan.experiments.values() for point in points}
        assert len(shown) > 5
        assert shown <= listed


@pytest.mark.slow
def test_recorded_curves_that_need_no_data_are_what_the_code_computes():
    from checkout import rows_of

    from l2dyn.config.loading import load_scale
    from l2dyn.runs.plan import Plan
    from l2dyn.tables.theory_curves import linear_table

    paths = list((ROOT / "paper_results" / "theory").glob("*/linear.csv"))
    assert paths
    for path in paths:
        plan = Plan(path.parent.name, load_scale(path.parent.name))
        shipped, table = rows_of(path), linear_table(plan.scale.theory.linear, plan, None)
        for name in ("width", "l2", "t", "f", "kernel"):
            assert [float(row[name]) for row in shipped] == pytest.approx(table[name], rel=1e-6, abs=1e-9), name
