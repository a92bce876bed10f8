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


rule summarize:
    input:
        lambda wildcards: dag.markers(wildcards.experiment),
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
