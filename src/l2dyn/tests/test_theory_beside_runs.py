"""What theory says of single runs: against equation (1) on kernels from autograd, and against trained nets."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from l2dyn.config.scale import ScaleConfig
from l2dyn.data.arrays import load
from l2dyn.data.samples import inputs, samples
from l2dyn.nets.fully_connected import draw_parameters
from l2dyn.runs.plan import Plan
from l2dyn.tables.theory_beside_runs import COLUMNS, constant_table
from l2dyn.theory import relu_ntk

WIDE = {"kind": "fc", "hidden_layers": 1, "width": 800, "bias": False, "parameterization": "ntk", "weight_std": 1.0}
SCALE = {
    "about": "for tests",
    "device": "cpu",
    "experiments": {
        "flow": {
            "shows": "a wide net near gradient flow",
            "net": WIDE,
            "data": {
                "name": "digits",
                "train_samples": 40,
                "test_samples": 300,
                "labels": "parity",
                "scaling": "unit",
                "downscale": 2,
            },
            "loss": "half_mse",
            "precision": "float64",
            "lr": [0.15],
            "l2": [0, 0.03, 0.06],
            "seeds": [0, 3],
            "horizon": {"t_lr_l2": 1.5, "epochs_without_l2": 10},
        },
        "biased": {
            "shows": "a narrow net with biases on cross-entropy",
            "net": {"kind": "fc", "hidden_layers": 2, "width": 12},
            "data": {"name": "digits", "train_samples": 40, "test_samples": 60, "downscale": 4},
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
    table = constant_table(plan.scale.theory.constant, plan, lambda name: load(name, arrays))
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


def by_hand(net, parameters, x):
    """The outputs of biased nets at one point each, [N, 1, C], written anew: weights, then biases."""
    layers = net.hidden_layers + 1
    for layer, (w, b) in enumerate(zip(parameters[:layers], parameters[layers:], strict=True)):
        x = x @ w + b
        if layer < net.hidden_layers:
            x = x.clamp(min=0)
    return x


def start_of(config, seed, arrays):
    """Samples as inputs, targets, f(0) and kernel of the net as drawn, by autograd."""
    spec, net = config.data, config.net
    held = samples(spec, load(spec.name, arrays))
    x, x_test = (torch.tensor(inputs(spec, images)) for images in (held.train_images, held.test_images))
    weights = [w.double() for w in draw_parameters(net, x.shape[1], spec.outputs, seed)]
    biases = [torch.zeros(1, w.shape[1], dtype=torch.float64) for w in weights]
    parameters = [*weights, *biases]
    both = torch.cat([x, x_test])[:, None]
    copies = [p.expand(len(both), *p.shape).clone().requires_grad_() for p in parameters]  # one net for each point
    f = by_hand(net, copies, both)[:, 0]
    gradients = [torch.autograd.grad(f[:, output].sum(), copies, retain_graph=True) for output in range(spec.outputs)]
    flat = torch.stack([torch.cat([g.flatten(1) for g in one], dim=1) for one in gradients], dim=1)
    kernel = torch.einsum("icp,jcp->ij", flat, flat[: len(x)]) / spec.outputs
    return held, f.detach().numpy(), kernel.numpy()


def test_a_biased_net_on_cross_entropy(plan, arrays, rows):
    config = plan.scale.experiments["biased"]
    held, f0, kernel = start_of(config, 0, arrays)
    count, l2 = config.data.train_samples, 0.05
    targets = np.eye(10)[held.train_labels]

    def slope(t, state):
        f = state.reshape(f0.shape)
        p = np.exp(f[:count]) / np.exp(f[:count]).sum(axis=1, keepdims=True)
        return (-np.exp(-4 * l2 * t) / count * kernel @ (p - targets) - 3 * l2 * f).ravel()

    end = 1 / l2
    solved = solve_ivp(slope, (0, end), f0.ravel(), method="DOP853", dense_output=True, rtol=1e-8, atol=1e-9)
    for row in (row for row in rows if row["experiment"] == "biased"):
        steps = config.evaluation.steps(round(1 / (row["lr"] * l2)), 1)
        t = row["lr"] * np.array(steps)
        f = solved.sol(np.minimum(t, end)).T.reshape(len(t), *f0.shape)
        accuracy = (f[:, count:].argmax(axis=2) == held.test_labels).mean(axis=1)
        chosen = np.take_along_axis(f[:, :count], held.train_labels[None, :, None], axis=2)[..., 0]
        loss = (np.log(np.exp(f[:, :count]).sum(axis=2)) - chosen).mean(axis=1)
        assert row["max_test_accuracy"] == pytest.approx(accuracy.max(), abs=1e-9)
        assert row["t_star"] == steps[np.flatnonzero(accuracy >= accuracy.max() - 0.005 - 1e-9)[0]]
        assert row["t_min_train_loss"] == steps[loss.argmin()]
        assert row["min_train_loss"] == pytest.approx(loss.min(), abs=1e-5)


def test_a_wide_net_near_gradient_flow_does_what_theory_says(plan, arrays, rows):
    """Trained nets: their smallest loss within 4 %, its time within 15 % (evaluations are 10 % apart)."""
    from l2dyn.training.dispatch import trainer_for

    config = plan.scale.experiments["flow"]
    held = samples(config.data, load("digits", arrays))
    x = inputs(config.data, held.train_images)
    assert 0.15 * (np.linalg.eigvalsh(relu_ntk(x, x)[1] / len(x))[-1] + 0.06) < 0.1
    found = {row["run_id"]: row for row in rows if row["experiment"] == "flow"}
    tasks = [task for task in plan.tasks("flow") if task.spec.l2 > 0]
    trained = list(trainer_for(tasks, held).train())
    assert {done.task.run_id for done in trained} == set(found)
    for done in trained:
        row, columns = found[done.task.run_id], done.columns
        best = columns["train_loss"].argmin()
        assert columns["train_loss"][best] == pytest.approx(row["min_train_loss"], rel=0.04)
        assert columns["step"][best] == pytest.approx(row["t_min_train_loss"], rel=0.15)
        assert columns["test_accuracy"].max() == pytest.approx(row["max_test_accuracy"], abs=0.03)
