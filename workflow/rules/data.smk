# Data sets as verified arrays. Runs where the call was made: on a cluster, the login node, which has a network.


rule data:
    output:
        f"{dag.data}/{{dataset}}-{{key}}.npz",
    log:
        f"{dag.data}/logs/{{dataset}}-{{key}}.log",
    conda:
        "../../environment.yml"
    message:
        "data set {wildcards.dataset}: fetching and verifying"
    shell:
        "python -m l2dyn data {wildcards.dataset} --output {output:q} --log {log:q}"
