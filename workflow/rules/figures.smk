# Figures: each is a notebook that reads summaries, theory curves and records, and writes every plotted number beside
# the picture. The configured scale's figure is then copied to figures/.


rule figure:
    input:
        unpack(lambda wildcards: dag.figure_inputs(wildcards.figure)),
    output:
        pdf=report(
            f"{dag.out}/{{figure}}.pdf",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "scale": dag.scale},
        ),
        png=f"{dag.out}/{{figure}}.png",
        csv=f"{dag.out}/{{figure}}.csv",
    log:
        f"{dag.out}/logs/{{figure}}.log",
    conda:
        "../../environment.yml"
    params:
        scale=dag.scale,
        reuse=dag.config.reuse,
        style=dag.style_key(),
    message:
        "{wildcards.figure}: drawing"
    script:
        "../../figures/{wildcards.figure}.py"


rule publish:
    input:
        pdf=f"{dag.out}/{{figure}}.pdf",
        png=f"{dag.out}/{{figure}}.png",
    output:
        pdf="figures/{figure}.pdf",
        png="figures/{figure}.png",
    log:
        "figures/logs/{figure}.log",
    conda:
        "../../environment.yml"
    params:
        scale=dag.scale,
    message:
        "{wildcards.figure}: the {dag.scale} scale's figure becomes figures/{wildcards.figure}"
    shell:
        "(cp {input.pdf:q} {output.pdf:q} && cp {input.png:q} {output.png:q}) 2> {log:q}"
