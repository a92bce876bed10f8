# Tables: what is measured on the runs, and what theory says. Their params carry a hash of the code behind them, so that
# a changed definition makes them anew and trains nothing.


# An experiment's L2 coefficients that are measured on another one: a checkpoint, since its runs are known only then.
checkpoint select_l2:
    input:
        lambda wildcards: flow.source_bundles(wildcards.experiment, checkpoints),
    output:
        f"{flow.out}/{{experiment}}/l2.json",
    log:
        f"{flow.out}/logs/select-l2-{{experiment}}.log",
    wildcard_constraints:
        experiment=flow.selected_pattern(),
    conda:
        flow.conda
    params:
        key=lambda wildcards: flow.selection_key(wildcards.experiment),
    message:
        "{wildcards.experiment}: measuring its L2 coefficients"
    shell:
        '"$L2DYN_PYTHON" -m l2dyn predict $L2DYN_OPTIONS --experiment {wildcards.experiment}'
        " --output {output:q} --log {log:q} --bundles {input:q}"


rule summarize:
    input:
        bundles=lambda wildcards: flow.bundles(wildcards.experiment, checkpoints),
        l2=lambda wildcards: flow.selection(wildcards.experiment, checkpoints),
    output:
        csv=report(
            f"{flow.out}/{{experiment}}/summary.csv",
            caption="../report/summary.rst",
            category="Runs",
            labels={"experiment": "{experiment}", "scale": flow.scale, "as": "CSV"},
        ),
        page=report(
            f"{flow.out}/{{experiment}}/summary.html",
            caption="../report/summary.rst",
            category="Runs",
            labels={"experiment": "{experiment}", "scale": flow.scale, "as": "table"},
        ),
    log:
        f"{flow.out}/logs/summarize-{{experiment}}.log",
    conda:
        flow.conda
    params:
        key=lambda wildcards: flow.summary_key(wildcards.experiment),
    message:
        "{wildcards.experiment}: one row a run"
    shell:
        '"$L2DYN_PYTHON" -m l2dyn summarize $L2DYN_OPTIONS --experiment {wildcards.experiment}'
        " --output {output.csv:q} --page {output.page:q} --log {log:q} --bundles {input.bundles:q}"


# Closed forms evaluated in NumPy; those of figure 5c use the kernel of the training set.
rule theory:
    input:
        ancient(lambda wildcards: flow.arrays_of_curve(wildcards.curve)),
    output:
        f"{flow.out}/theory/{{curve}}.csv",
    log:
        f"{flow.out}/logs/theory-{{curve}}.log",
    conda:
        flow.conda
    params:
        recorded="" if flow.config.train else "--recorded",
        key=lambda wildcards: flow.theory_key(wildcards.curve),
    message:
        "theory curves: {wildcards.curve}"
    shell:
        '"$L2DYN_PYTHON" -m l2dyn theory {wildcards.curve} $L2DYN_OPTIONS {params.recorded}'
        " --output {output:q} --log {log:q}"


# The page of a scale: claims, figures, the paper's numbers beside ours.
rule results:
    input:
        numbers=flow.numbers(),
        summaries=flow.summaries(),
        claims=f"{flow.out}/claims.csv",
        parts=f"{flow.out}/claim_parts.csv",
    output:
        f"{flow.out}/results.md",
    log:
        f"{flow.out}/logs/results.log",
    conda:
        flow.conda
    params:
        key=flow.results_key(),
    message:
        "results by number"
    shell:
        '"$L2DYN_PYTHON" -m l2dyn results $L2DYN_OPTIONS --output {output:q} --log {log:q}'


# Every claim of the paper, judged by what the figures' runs show.
rule claims:
    input:
        unpack(lambda wildcards: flow.claims_inputs(checkpoints)),
    output:
        csv=report(
            f"{flow.out}/claims.csv",
            caption="../report/claims.rst",
            category="Claims",
            labels={"table": "claims", "scale": flow.scale, "as": "CSV"},
        ),
        parts=report(
            f"{flow.out}/claim_parts.csv",
            caption="../report/claims.rst",
            category="Claims",
            labels={"table": "parts of the claims", "scale": flow.scale, "as": "CSV"},
        ),
        searchable=report(
            f"{flow.out}/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"table": "claims and parts", "scale": flow.scale, "as": "table"},
        ),
        page=f"{flow.out}/claims.md",
    log:
        f"{flow.out}/logs/claims.log",
    conda:
        flow.conda
    params:
        key=flow.claims_key(),
    message:
        "judging the claims"
    shell:
        '"$L2DYN_PYTHON" -m l2dyn claims $L2DYN_OPTIONS --output {output.csv:q} --parts {output.parts:q}'
        " --searchable {output.searchable:q} --page {output.page:q} --log {log:q} --inputs {input:q}"
