# Theory curves: closed forms evaluated in NumPy; those of figure 5c use the kernel of the training set.


rule theory:
    input:
        ancient(lambda wildcards: dag.arrays_of_curve(wildcards.curve)),
    output:
        f"{dag.out}/theory/{{curve}}.csv",
    log:
        f"{dag.out}/logs/theory-{{curve}}.log",
    conda:
        "../../environment.yml"
    params:
        options=dag.options,
        recorded="" if dag.config.train else "--recorded",
        key=lambda wildcards: dag.theory_key(wildcards.curve),
    message:
        "theory curves: {wildcards.curve}"
    shell:
        "python -m l2dyn theory {wildcards.curve} {params.options} {params.recorded} --output {output:q} --log {log:q}"
