"""Arguments as numbers: what is taken, and that every refusal names the argument, in the public functions too."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import l2dyn
from l2dyn import theory
from l2dyn.arguments import array, below_one, number, positive
from l2dyn.measures.best_l2 import tuned_l2
from l2dyn.measures.coefficient import coefficient, running_mean
from l2dyn.measures.power_laws import fit_power_law
from l2dyn.measures.troughs import time_to_trough
from l2dyn.theory.minima import law_window

NUMBERS = [
    *(0.5, Fraction(1, 2), np.float32(0.5), np.float16(0.5), np.array(0.5), np.array([0.5])),
    *(torch.tensor(0.5, requires_grad=True), torch.tensor([0.5], dtype=torch.bfloat16), torch.tensor(0.5).half()),
]
NO_NUMBERS = ["0.5", True, None, [0.5], 1j, 10**400, np.array("0.5"), np.bool_(1), np.ones(2), torch.ones(2)]
NO_NUMBERS += [torch.tensor(True), torch.tensor(1j), {"c": 0.5}]
NO_ARRAYS = [["0.1", 0.2], "0.1", [0.1, None], None, [True, False], [[0.1], [0.1, 0.2]], [1j]]
NO_ARRAYS += [torch.tensor([True]), torch.tensor([1j]), [torch.tensor(True)]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers(value):
    assert number("c", value) == positive("c", value) == below_one("c", value) == 0.5
    assert type(number("c", value)) is float


def test_nan_and_inf_are_numbers():
    assert number("c", math.inf) == math.inf
    assert math.isnan(number("c", math.nan))
    np.testing.assert_array_equal(array("c", [math.nan, 1, math.inf]), [math.nan, 1, math.inf])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_named(value):
    for function in (number, positive, below_one):
        with pytest.raises(ValueError, match=r"^my_c must be"):
            function("my_c", value)


def test_ranges():
    for bad in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^c must be positive"):
            positive("c", bad)
    for bad in (-0.1, 1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^momentum must be at least 0 and below 1"):
            below_one("momentum", bad)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "value",
    [
        [0.25, 0.5],
        (np.float32(0.25), Fraction(1, 2)),
        np.array([0.25, 0.5], dtype=np.float16),
        torch.tensor([0.25, 0.5], requires_grad=True),
        torch.tensor([0.25, 0.5], dtype=torch.bfloat16),
        [torch.tensor(0.25, requires_grad=True), torch.tensor(0.5, dtype=torch.bfloat16)],
    ],
    ids=repr,
)
def test_arrays(value):
    found = array("t", value)
    assert found.dtype == np.float64
    assert found.tolist() == [0.25, 0.5]


def test_whole_numbers_are_an_array():
    assert array("t", torch.arange(3)).tolist() == array("t", range(3)).tolist() == [0, 1, 2]
    assert array("t", []).shape == (0,)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", NO_ARRAYS, ids=repr)
def test_what_is_no_array_of_numbers_is_named(value):
    with pytest.raises(ValueError, match=r"^my_t must be a real number or an array of real numbers, got "):
        array("my_t", value)


# the public functions

KERNEL = np.diag([1.0, 0.1])


def evolve(**changed):
    arguments = {"kernel_train": KERNEL, "y": [1.0, -1.0], "l2": 0.01, "k": 2, "t": [0.0, 1.0]}
    return theory.evolve(**arguments | changed)


CALLS = {
    "predict_l2": (l2dyn.predict_l2, {"c": 0.0066, "budget": 200.0, "first_decay": 60.0}),
    "predict_l2_from_C": (
        l2dyn.predict_l2_from_C,
        {"C": 1.0, "lr": 0.1, "steps": 100.0, "momentum": 0.9, "first_decay": 60.0},
    ),
    "coefficient": (
        lambda **settings: coefficient([0, 1, 2], [0.1, 0.6, 0.5], **settings),
        {"l2": 0.01, "lr": 0.2, "steps_per_epoch": 50, "momentum": 0.9, "tolerance": 0.005, "chance": 0.1},
    ),
    "tuned_l2": (lambda **settings: tuned_l2([0.1, 0.2], [0.5, 0.6], **settings), {"within": 0.001}),
    "time_to_trough": (lambda **settings: time_to_trough([0, 1], [0.5, 0.6], **settings), {"horizon": 1.0}),
    "evolve": (evolve, {"l2": 0.01, "k": 2}),
}


@pytest.mark.parametrize("bad", ["0.5", True, [], {}], ids=repr)
@pytest.mark.parametrize(("call", "name"), [(call, name) for call, (_, known) in CALLS.items() for name in known])
def test_public_functions_name_what_is_no_number(call, name, bad):
    function, settings = CALLS[call]
    function(**settings)
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        function(**settings | {name: bad})


CURVES = {
    "time_to_peak": (l2dyn.time_to_peak, {"t": [0, 1, 2], "accuracy": [0.25, 0.75, 0.5]}),
    "running_mean": (running_mean, {"values": [0.25, 0.75, 0.5]}),
    "tuned_l2": (tuned_l2, {"l2": [0.25, 0.5], "accuracy": [0.25, 0.75]}),
    "fit_power_law": (lambda y, x: fit_power_law(y, x), {"y": [8.0, 4.0, 2.0, 1.0], "x": [1, 2, 4, 8]}),
    "law_window": (law_window, {"l2": [0.25, 0.5], "slope": [-1.0, -1.0]}),
    "evolve": (evolve, {"y": [1.0, -1.0], "t": [0.0, 1.0], "kernel_train": KERNEL.tolist()}),
}


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, (_, known) in CURVES.items() for name in known])
def test_public_functions_take_tensors_and_name_what_is_no_array(call, name):
    function, curve = CURVES[call]
    expected = function(**curve)
    tensor = torch.tensor(curve[name], dtype=torch.float64, requires_grad=True)
    np.testing.assert_equal(function(**curve | {name: tensor}), expected)
    if call != "evolve":  # whose 0.1 is another number in bfloat16
        np.testing.assert_equal(function(**curve | {name: tensor.bfloat16()}), expected)
    for bad in (["a", "b"], "a", None, [None, None], [True, False]):
        with pytest.raises(ValueError, match=rf"^{name} must be a real number or an array of real numbers"):
            function(**curve | {name: bad})
