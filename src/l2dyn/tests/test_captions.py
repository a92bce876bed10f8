"""What the report says beside a figure: its configuration in words, and what has been made of it."""

import pytest

from l2dyn.specs.horizons import Horizon
from l2dyn.workflow import Workflow

TINY = {"scale": "tiny"}


def test_a_caption_states_every_experiments_configuration(workplace, tiny, write_scale):
    tuned = {**tiny["experiments"]["first"], "l2": {"tuned_from": "budget"}, "lr": [0.1], "horizon": {"epochs": 50}}
    shown = tiny["figures"]["fig2"] | {"experiments": ["first", "budget", "tuned"]}
    write_scale(tiny | {"experiments": tiny["experiments"] | {"tuned": tuned}, "figures": {"fig2": shown}})
    *_, first, budget, pending = Workflow(TINY).caption("fig2").splitlines()
    assert first == (
        "- *first*: a grid; FC of 1 × 4; 64 samples of embedded MNIST digits; plain SGD, full batch; η = 0.1, 0.5;"
        " λ = 0, 0.01, 0.02; t·η·λ = 2 (t·η = 100 at λ = 0); torch units; 1 seed; 6 runs"
    )
    assert budget.endswith("λ = 0.01, 0.02, 0.04; 50 epochs; torch units; 2 seeds; 6 runs")
    assert pending.endswith("λ tuned on budget; 50 epochs; torch units; 1 seed; runs pending")


@pytest.mark.parametrize(
    ("horizon", "words"),
    [
        (Horizon(t_l2=0.5, epochs_without_l2=40), "t·λ = 0.5 (40 epochs at λ = 0)"),
        (Horizon(t_lr=60), "t·η = 60 at λ = 0"),
        (Horizon(epochs=8), "8 epochs"),
    ],
)
def test_a_training_time_in_words(horizon, words):
    assert horizon.describe() == words


def test_labels_tell_what_is_finished_and_what_it_took(workplace, make_record):
    flow = Workflow(TINY)
    assert flow.figure_labels("fig2")["finished runs"] == "0 of 10"
    assert flow.figure_labels("fig5")["finished runs"] == "none: theory"
    for task in flow.plan.tasks("first")[:2]:
        flow.cache.save(make_record(task.spec, steps=task.steps, at=[0, task.steps]))
    found = flow.figure_labels("fig2")
    assert (found["finished runs"], found["training time"]) == ("2 of 10", "2.5 s")
