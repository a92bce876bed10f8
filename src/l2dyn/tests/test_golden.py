"""The arithmetic of training: a few runs of each trainer as they were when NUMERICS_VERSION was last bumped."""

import json
from pathlib import Path

import pytest
import torch

from l2dyn.specs.nets import ConvNetSpec, FullyConnectedSpec, WideResNetSpec
from l2dyn.specs.optimizers import AdamWSpec
from l2dyn.specs.run import NUMERICS_VERSION, AugmentationSpec, AutoL2Spec
from l2dyn.tests.made_up import assert_same_columns, made_up_samples, make_task, trained

GOLDEN = Path(__file__).with_name("golden.json")
# torch draws normal numbers in vector instructions where it can, which differ in the last bits of float32
SAME_DRAWS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
CNN = ConvNetSpec(channels=(3, 4, 4, 5), dense=7, pool=2, pool_stride=2)
STACKED = [  # fields of runs that train together
    [{"steps": 120, "l2": 0.02}, {"steps": 60, "lr": 0.3, "l2": 0.001, "init_seed": 1}],
    [{"steps": 40, "batch": 16, "momentum": 0.9, "order_seed": 2}],
]
MINIBATCH = {"steps": 15, "lr": 0.05, "l2": 0.05, "batch": 8, "order_seed": 3}
SINGLE = [
    MINIBATCH | {"net": CNN.model_copy(update={"batch_norm": True}), "momentum": 0.9},
    MINIBATCH
    | {
        "net": WideResNetSpec(depth=10, width=1, norm_group=4),
        "momentum": 0.9,
        "augmentation": AugmentationSpec(flip=True, crop=1, mixup=0.3),
        "augmentation_seed": 5,
        "lr_decay_epochs": (2, 4),
        "order_shards": 2,
    },
    MINIBATCH | {"net": CNN, "auto_l2": AutoL2Spec(factor=0.5, interval=2, refractory=0.001)},
    MINIBATCH | {"net": CNN, "lr": 0.01, "optimizer": AdamWSpec()},
    {"steps": 15, "net": FullyConnectedSpec(hidden_layers=1, width=6), "optimizer": AdamWSpec(), "l2": 0.5},
]


def columns_of(stacks: list[list[dict]], samples) -> dict[str, dict[str, list[float]]]:
    """Curves by run id, of stacks that train together."""
    ended = [
        one for stack in stacks for one in trained([make_task(samples, **fields) for fields in stack], samples).values()
    ]
    return {
        one.task.run_id: {name: one.columns[name].tolist() for name in ("train_loss", "test_loss", "param_norm")}
        for one in ended
    }


def golden() -> dict[str, dict]:
    """All of it, by trainer."""
    return {
        "stacked": columns_of(STACKED, made_up_samples()),
        "single": columns_of([[fields] for fields in SINGLE], made_up_samples(train=24, test=20, downscale=2)),
    }


@pytest.mark.parametrize("trainer", ["stacked", "single"])
def test_the_arithmetic_is_that_of_the_numerics_version(trainer):
    """Otherwise bump NUMERICS_VERSION, and run this module as a script, which writes golden.json anew."""
    expected = json.loads(GOLDEN.read_text())
    assert expected["numerics_version"] == NUMERICS_VERSION
    found = golden()[trainer]
    assert found.keys() == expected[trainer].keys(), "run ids changed: a default or a field's form was changed"
    for run_id, columns in expected[trainer].items():
        assert_same_columns(found[run_id], columns, rtol=1e-9 if SAME_DRAWS else 1e-5)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({"numerics_version": NUMERICS_VERSION} | golden(), indent=1) + "\n")
