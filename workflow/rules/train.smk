# Training: one job is one slice of an experiment's runs, and its output one marker. The runs themselves lie in the
# store, undeclared, so that a failed job loses nothing that was finished.


rule train:
    input:
        lambda wildcards: dag.arrays_of_experiment(wildcards.experiment),
    output:
        f"{dag.out}/{{experiment}}/slices/{{part}}of{{parts}}-{{key}}.done",
    log:
        f"{dag.out}/logs/train-{{experiment}}-{{part}}of{{parts}}-{{key}}.log",
    benchmark:
        f"{dag.out}/benchmarks/train-{{experiment}}-{{part}}of{{parts}}-{{key}}.tsv"
    priority: lambda wildcards: dag.priority(wildcards.experiment)
    conda:
        "../../environment.yml"
    threads: dag.threads
    resources:
        gpu=lambda wildcards: dag.gpus(**wildcards),
        runtime=lambda wildcards: dag.runtime_minutes(**wildcards),
    params:
        options=dag.options,
    message:
        "{wildcards.experiment}: training slice {wildcards.part} of {wildcards.parts}"
    shell:
        "python -m l2dyn train {params.options} --experiment {wildcards.experiment}"
        " --slice {wildcards.part}/{wildcards.parts} --owned --threads {threads}"
        " --marker {output:q} --log {log:q}"


# An experiment's L2 coefficients that are measured on another one: a checkpoint, since its runs are known only then.
checkpoint derive:
    input:
        lambda wildcards: dag.summary_of_source(wildcards.experiment),
    output:
        f"{dag.out}/{{experiment}}/l2.json",
    log:
        f"{dag.out}/logs/derive-{{experiment}}.log",
    wildcard_constraints:
        experiment=dag.derived_pattern(),
    conda:
        "../../environment.yml"
    params:
        options=dag.options,
        key=lambda wildcards: dag.derivation_key(wildcards.experiment),
    message:
        "{wildcards.experiment}: measuring its L2 coefficients"
    shell:
        "python -m l2dyn predict {params.options} --experiment {wildcards.experiment}"
        " --output {output:q} --log {log:q}"


rule summarize:
    input:
        lambda wildcards: dag.summary_inputs(wildcards.experiment, checkpoints),
    output:
        f"{dag.out}/{{experiment}}/summary.csv",
    log:
        f"{dag.out}/logs/summarize-{{experiment}}.log",
    conda:
        "../../environment.yml"
    params:
        options=dag.options,
        key=lambda wildcards: dag.summary_key(wildcards.experiment),
    message:
        "{wildcards.experiment}: one row a run"
    shell:
        "python -m l2dyn summarize {params.options} --experiment {wildcards.experiment}"
        " --output {output:q} --log {log:q}"
