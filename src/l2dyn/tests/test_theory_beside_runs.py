"""What theory says of single runs: against equation (1) on kernels from autograd, and against trained nets."""

import numpy as np
import pytest
import torch
from l2dyn.runs.config import ScaleConfig
from l2dyn.theory_of_runs import COLUMNS, constant_table
from l2dyn.training.ensemble import Ensemble
from scipy.integrate import solve_ivp

from l2dyn import data
from l2dyn.nets.fully_connected import draw_parameters
from l2dyn.runs.plan import Plan
from l2dyn.theory import relu_ntk

MODEL = {"kind": "fc", "hidden_layers": 1, "width": 1200, "bias": False, "parameterization": "ntk", "weight_std": 1.0}
SCALE = {
    "about": "for tests",
    "device": "cpu",
    "experiments": {
        "flow": {
            "shows": "a wide net near gradient flow",
            "model": MODEL,
            "data": {"name": "digits", "train": 40, "test": 300, "labels": "parity", "scaling": "unit"},
            "loss": "mse",
            "precision": "float64",
            "lr": [0.2],
            "l2": [0, 0.03, 0.06],
            "seeds": [0, 3],
            "horizon": {"t_lr_l2": 1.5, "epochs_without_l2": 10},
        },
        "biased": {
            "shows": "a narrow net with biases on cross-entropy",
            "model": {"kind": "fc", "hidden_layers": 2, "width": 12},
            "data": {"name": "digits", "train": 40, "test": 100},
            "lr": [0.1, 0.2],
            "l2": [0.05],
            "horizon": {"t_lr_l2": 1.0},
        },
    },
    "theory": {"constant": {"experiments": ["flow", "biased"]}},
    "figures": {"figS-constant": {"experiments": ["flow", "biased"], "theory": ["constant"]}},
}


@pytest.fixture(scope="module")
def plan():
    return Plan("tiny", ScaleConfig.model_validate(SCALE))


@pytest.fixture(scope="module")
def rows(plan, arrays):
    table = constant_table(plan, arrays)
    assert tuple(table) == COLUMNS
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def test_a_row_for_every_run_with_l2(plan, rows):
    listed = {(name, run.run_id) for name, runs in plan.experiments.items() for run in runs if run.spec.l2 > 0}
    assert [(row["experiment"], row["run_id"]) for row in rows] == sorted(
        listed, key=[(row["experiment"], row["run_id"]) for row in rows].index
    )
    assert len(rows) == len(listed) == 6
    assert {row["kernel"] for row in rows if row["experiment"] == "flow"} == {"infinite"}
    assert {row["kernel"] for row in rows if row["experiment"] == "biased"} == {"initial"}


def by_hand(model, parameters, x):
    """The net's outputs [N, C], written anew: weights, then biases (or none)."""
    weights = parameters[: model.hidden_layers + 1]
    biases = parameters[model.hidden_layers + 1 :] or [0.0] * len(weights)
    ntk = model.parameterization == "ntk"
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = x @ w * (model.weight_std / np.sqrt(len(w)) if ntk else 1.0) + b
        if layer < model.hidden_layers:
            x = x.clamp(min=0)
    return x


def start_of(config, seed, arrays):
    """Samples as inputs, targets, f(0) and kernel of the net as drawn, by autograd."""
    spec, model = config.data.spec(), config.model.spec()
    samples = data.samples(spec, data.load(spec.name, arrays))
    x, x_test = (torch.tensor(data.inputs(spec, i)) for i in (samples.train_images, samples.test_images))
    weights = [w.double() for w in draw_parameters(model, x.shape[1], samples.outputs, seed)]
    biases = [torch.zeros(w.shape[1], dtype=torch.float64) for w in weights] if model.bias else []
    parameters = [*weights, *biases]
    both = torch.cat([x, x_test])
    jacobians = torch.func.jacrev(lambda p: by_hand(model, p, both))(parameters)
    flat = torch.cat([j.flatten(2) for j in jacobians], dim=2)  # [points, outputs, parameters]
    kernel = torch.einsum("icp,jcp->ij", flat, flat[: len(x)]) / samples.outputs
    return samples, by_hand(model, parameters, both).numpy(), kernel.numpy()


def test_a_biased_net_on_cross_entropy(plan, arrays, rows):
    config = plan.scale.experiments["biased"]
    samples, f0, kernel = start_of(config, 0, arrays)
    count, l2 = config.data.train, 0.05
    targets = np.eye(10)[samples.train_labels]

    def slope(t, state):
        f = state.reshape(f0.shape)
        p = np.exp(f[:count]) / np.exp(f[:count]).sum(axis=1, keepdims=True)
        return (-np.exp(-4 * l2 * t) / count * kernel @ (p - targets) - 3 * l2 * f).ravel()

    for row in (row for row in rows if row["experiment"] == "biased"):
        steps = config.evaluation.grid().steps(round(1 / (row["lr"] * l2)), 1)
        t = row["lr"] * np.array(steps)
        solved = solve_ivp(slope, (0, t[-1]), f0.ravel(), method="LSODA", t_eval=t, rtol=1e-9, atol=1e-9)
        f = solved.y.T.reshape(len(t), *f0.shape)
        accuracy = (f[:, count:].argmax(axis=2) == samples.test_labels).mean(axis=1)
        chosen = np.take_along_axis(f[:, :count], samples.train_labels[None, :, None], axis=2)[..., 0]
        loss = (np.log(np.exp(f[:, :count]).sum(axis=2)) - chosen).mean(axis=1)
        assert row["max_test_accuracy"] == pytest.approx(accuracy.max(), abs=1e-9)
        assert row["t_star"] == steps[np.flatnonzero(accuracy >= accuracy.max() - 0.005 - 1e-9)[0]]
        assert row["t_min_train_loss"] == steps[loss.argmin()]
        assert row["min_train_loss"] == pytest.approx(loss.min(), abs=1e-5)


def test_a_wide_net_near_gradient_flow_does_what_theory_says(plan, arrays, rows):
    """Trained nets: their smallest loss within 4 %, its time within 15 % (evaluations are 10 % apart)."""
    config = plan.scale.experiments["flow"]
    samples = data.samples(config.data.spec(), data.load("digits", arrays))
    x = data.inputs(config.data.spec(), samples.train_images)
    assert 0.2 * (np.linalg.eigvalsh(relu_ntk(x, x)[1] / len(x))[-1] + 0.06) < 0.1
    found = {row["run_id"]: row for row in rows if row["experiment"] == "flow"}
    tasks = [task for task in plan.tasks("flow") if task.spec.l2 > 0]
    trained = list(Ensemble(tasks, samples).train())
    assert {done.task.run_id for done in trained} == set(found)
    for done in trained:
        row, columns = found[done.task.run_id], done.columns
        best = columns["train_loss"].argmin()
        assert columns["train_loss"][best] == pytest.approx(row["min_train_loss"], rel=0.04)
        assert columns["step"][best] == pytest.approx(row["t_min_train_loss"], rel=0.15)
        assert columns["test_accuracy"].max() == pytest.approx(row["max_test_accuracy"], abs=0.03)
