"""Euler's identity on the project's nets: against finite differences, and on nets whose degree is known."""

import math

import numpy as np
import pytest
import torch

from l2dyn.nets.homogeneity import homogeneity
from l2dyn.tables.homogeneity import homogeneity_table
from l2dyn.tests.made_up import made_up_samples


@pytest.mark.parametrize("degree", [0.0, 1.0, 2.5])
def test_a_function_of_known_degree(degree):
    x = torch.randn(7, 4, dtype=torch.float64)
    report = homogeneity(lambda p, x: (x @ p["w"]).abs() ** degree, {"w": torch.randn(4, 2).double()}, x)
    assert report.k == pytest.approx(degree, abs=1e-12)
    assert report.residual < 1e-12
    assert (report.half, report.double) == pytest.approx((0.5**degree, 2**degree))
    assert report.homogeneous


def test_a_function_that_is_not_homogeneous():
    """f = w + w²: Df = w + 2w², by hand at w = 3 and 1."""
    report = homogeneity(lambda p, x: p["w"] + p["w"] ** 2, {"w": torch.tensor([3.0, 1.0]).double()}, torch.zeros(1))
    f, derivative = np.array([12.0, 2.0]), np.array([21.0, 3.0])
    k = derivative @ f / (f @ f)
    assert report.k == pytest.approx(k)
    assert report.residual == pytest.approx(np.linalg.norm(derivative - k * f) / np.linalg.norm(derivative))
    assert not report.homogeneous


def test_a_function_that_is_zero_has_no_degree():
    with pytest.raises(ValueError, match="0 on all inputs"):
        homogeneity(lambda p, x: 0 * p["w"], {"w": torch.ones(1)}, torch.zeros(1))


def test_the_nets_of_the_project():
    table = homogeneity_table(made_up_samples(train=32, test=1, downscale=2), steps=6)
    rows = {(m, w): i for i, (m, w) in enumerate(zip(table["model"], table["training"], strict=True))}
    known = {
        "FC, 3 layers, without biases": 3,
        "exact: CNN with batch norm, readout weights train": 1,
        "exact: CNN with batch norm, its scales and readout weights train": 2,
        "exact: CNN with batch norm, convolutions train": 0,
    }
    for model, k in known.items():
        for when in ("before", "after"):
            i = rows[model, when]
            assert table["k"][i] == pytest.approx(k, abs=1e-8), (model, when)
            assert table["theorem_1"][i]
            assert math.log2(table["double"][i]) == pytest.approx(k, abs=1e-8)
    for model in ("FC, 3 layers", "CNN", "CNN with batch norm", "Wide ResNet"):
        for when in ("before", "after"):
            assert not table["theorem_1"][rows[model, when]], (model, when)
            assert table["residual"][rows[model, when]] > 1e-3
