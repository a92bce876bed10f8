# From a scale's configuration to its figures; see README.md and CONTRIBUTING.md. What the rules ask for stands in
# src/l2dyn/workflow.py; parsing changes nothing on disk.
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from l2dyn.errors import UserError
from l2dyn.executor import check_executor
from l2dyn.workflow import Workflow

try:
    check_executor(sys.argv)
    flow = Workflow(config)
except UserError as error:
    sys.exit(f"l2dyn: {error}")

os.environ.update(flow.environment())


report: "workflow/report/workflow.rst"


wildcard_constraints:
    **flow.patterns(),


# on a cluster everything but training runs where the call was made: seconds each
localrules:
    all,
    figures,
    data,
    recorded,
    select_l2,
    summarize,
    theory,
    claims,
    results,
    figure,
    publish,


rule all:
    default_target: True
    input:
        flow.targets(),
        lambda wildcards: flow.late_targets(checkpoints),


rule figures:
    input:
        flow.targets(supplement=False),
        lambda wildcards: flow.late_targets(checkpoints, supplement=False),


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
