# Data sets as verified arrays. Runs where the call was made: on a cluster, the login node, which has a network.


rule data:
    output:
        f"{flow.data}/{{dataset}}-{{key}}.npz",
    log:
        f"{flow.data}/logs/{{dataset}}-{{key}}.log",
    conda:
        flow.conda
    message:
        "data set {wildcards.dataset}: fetching and verifying"
    shell:
        '"$L2DYN_PYTHON" -m l2dyn data {wildcards.dataset} --output {output:q} --log {log:q}'
