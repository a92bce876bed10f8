# Training: one job is one slice of an experiment's runs, and its output their bundle. Finished runs lie in the cache
# too, from the moment they finish, so that a failed job loses none; `update` keeps the bundle that a rerun fails to
# replace. No params, and inputs are ancient: nothing but another slice, or a lost bundle, starts a job. Under Slurm the
# job stops with a checkpoint before its time is up and exits 75; `retries` then submit it again.


rule train:
    input:
        arrays=ancient(
            lambda wildcards: flow.arrays_of_experiment(wildcards.experiment)
        ),
        l2=ancient(lambda wildcards: flow.selection(wildcards.experiment, checkpoints)),
        held=ancient(
            lambda wildcards: flow.earlier_bundles(wildcards.experiment, checkpoints)
        ),
    output:
        update(f"{flow.out}/{{experiment}}/runs/{{slice}}of{{slices}}-{{key}}.parquet"),
    log:
        f"{flow.out}/logs/train-{{experiment}}-{{slice}}of{{slices}}-{{key}}.log",
    benchmark:
        f"{flow.out}/benchmarks/train-{{experiment}}-{{slice}}of{{slices}}-{{key}}.tsv"
    priority: lambda wildcards: flow.priority(wildcards.experiment)
    conda:
        flow.conda
    threads: flow.threads
    resources:
        attempt=lambda wildcards, attempt: attempt,
        gpu=lambda wildcards: flow.gpus(**wildcards),
        runtime=lambda wildcards: flow.runtime_minutes(**wildcards),
    message:
        "{wildcards.experiment}: training slice {wildcards.slice} of {wildcards.slices}"
    shell:
        "L2DYN_RUNTIME_MINUTES={resources.runtime} L2DYN_ATTEMPT={resources.attempt}"
        ' "$L2DYN_PYTHON" -m l2dyn train $L2DYN_OPTIONS --experiment {wildcards.experiment}'
        " --slice {wildcards.slice}/{wildcards.slices} --owned --threads {threads}"
        " --output {output:q} --log {log:q} --bundles {input.held:q}"


# What the shipped shelf holds of an experiment; where nothing is trained, what is finished anywhere.
rule recorded:
    input:
        lambda wildcards: flow.selection(wildcards.experiment, checkpoints),
    output:
        f"{flow.out}/{{experiment}}/runs/recorded.parquet",
    log:
        f"{flow.out}/logs/recorded-{{experiment}}.log",
    conda:
        flow.conda
    params:
        where="" if flow.config.train else "--everywhere",
        key=lambda wildcards: flow.recorded_key(wildcards.experiment),
    message:
        "{wildcards.experiment}: recorded runs"
    shell:
        '"$L2DYN_PYTHON" -m l2dyn recorded $L2DYN_OPTIONS {params.where} --experiment {wildcards.experiment}'
        " --output {output:q} --log {log:q}"
