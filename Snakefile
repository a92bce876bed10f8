# The road from a scale's configuration to its figures; see README.md.
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")
sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from l2dyn.errors import UserError
from l2dyn.runs.dag import Dag, set_environment

try:
    dag = Dag(config, main_process=workflow.is_main_process)
    set_environment(dag)
except UserError as error:
    sys.exit(f"l2dyn: {error}")


wildcard_constraints:
    **dag.patterns(),


localrules:
    all,
    figures,
    data,
    derive,
    publish,


rule all:
    default_target: True
    input:
        dag.targets(),


rule figures:
    input:
        dag.targets(supplement=False),


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/figures.smk"
