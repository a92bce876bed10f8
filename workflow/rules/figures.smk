# Figures: each is a notebook that reads summaries, theory curves and bundles, and writes every plotted number beside
# the picture. The configured scale's figure is then copied to figures/.


rule figure:
    input:
        unpack(lambda wildcards: flow.figure_inputs(wildcards.figure, checkpoints)),
    output:
        pdf=f"{flow.out}/{{figure}}.pdf",
        png=report(
            f"{flow.out}/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda wildcards: flow.figure_labels(wildcards.figure),
        ),
        csv=f"{flow.out}/{{figure}}.csv",
    log:
        f"{flow.out}/logs/{{figure}}.log",
    conda:
        flow.conda
    params:
        scale=flow.scale,
        key=lambda wildcards: flow.figure_key(wildcards.figure),
        caption=lambda wildcards: flow.caption(wildcards.figure),
    message:
        "{wildcards.figure}: drawing"
    shell:
        '"$L2DYN_PYTHON" "$L2DYN_ROOT/figures/{wildcards.figure}.py" --scale {params.scale}'
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} --log {log:q} --inputs {input:q}"


rule publish:
    input:
        pdf=f"{flow.out}/{{figure}}.pdf",
        png=f"{flow.out}/{{figure}}.png",
    output:
        pdf="figures/{figure}.pdf",
        png="figures/{figure}.png",
    log:
        "figures/logs/{figure}.log",
    conda:
        flow.conda
    params:
        scale=flow.scale,
    message:
        "{wildcards.figure}: the {flow.scale} scale's figure becomes figures/{wildcards.figure}"
    shell:
        "(cp {input.pdf:q} {output.pdf:q} && cp {input.png:q} {output.png:q}) 2> {log:q}"
