"""RunSpec: everything that determines one training trajectory, and the id made from it.

The id is a short hash of the spec's canonical JSON. Fields at their default are left out and defaults never change,
so a field that is added later renames no old run. The horizon is not part of a spec: a longer run serves every
shorter budget as its prefix.
"""

import functools
import hashlib
from typing import Literal

from pydantic import model_validator

from l2dyn.specs.base import Count, Fraction, NaturalNumber, NonNegative, Positive, Spec, canonical_json, to_dict
from l2dyn.specs.data_sets import DataSpec
from l2dyn.specs.nets import AnyNetSpec
from l2dyn.specs.optimizers import AnyOptimizerSpec, SGDSpec

NUMERICS_VERSION = 2  # bump when the arithmetic of training changes; recorded with each run, not hashed into its id

Loss = Literal["cross_entropy", "half_mse"]
Precision = Literal["float32", "float64", "tf32", "bfloat16"]


class AutoL2Spec(Spec):
    """The AutoL2 schedule (section 3), started at the run's `l2`; λ ← factor·λ when a measurement says so.

    rule "no_better", the authors': the loss and error of the minibatch that a step is about to train on, every
    `interval` steps; no decay within refractory·(1−μ)/(η·λ) steps of the last one. rule "risen": the means of both over
    `interval` steps; after a decay `cooldown` measurements cannot decay. rule "staircase": after every refractory
    period, whatever is measured. trigger: "either", "loss" or "error". See
    l2dyn.optim.auto_l2.
    """

    rule: Literal["no_better", "risen", "staircase"] = "no_better"
    factor: Fraction = 0.1
    interval: Count = 10
    refractory: NonNegative = 0.4
    cooldown: NaturalNumber = 1
    min_l2: NonNegative = 0.0
    trigger: Literal["either", "loss", "error"] = "either"

    @model_validator(mode="after")
    def _one_id_for_one_rule(self):
        without_effect = {"no_better": ("cooldown",), "risen": ("refractory",), "staircase": ("cooldown", "trigger")}
        for name in without_effect[self.rule]:
            object.__setattr__(self, name, type(self).model_fields[name].default)
        return self


class AugmentationSpec(Spec):
    """Random changes of the training images, drawn anew for every sample of every step.

    flip: left to right with probability ½. crop: zero padding in pixels, then a crop of the original size. mixup: α of
    the Beta distribution that mixes pairs of images and labels, 0 for none. variant "authors", as their code has it:
    flip before crop, padding with 0 after scaling, offsets below 2·crop (never that), and the partner of mixup from the
    same `mixup_group` samples of the batch in reverse order (0: from the whole batch).
    """

    flip: bool = False
    crop: NaturalNumber = 0
    mixup: NonNegative = 0.0
    variant: Literal["standard", "authors"] = "standard"
    mixup_group: NaturalNumber = 0

    @model_validator(mode="after")
    def _one_id_for_one_augmentation(self):
        if self.mixup_group and self.variant == "standard":
            raise ValueError("mixup_group: goes with variant authors")
        if not self.mixup:
            object.__setattr__(self, "mixup_group", 0)
        if not (self.crop or self.mixup):  # a flip alone is the same in both
            object.__setattr__(self, "variant", "standard")
        return self

    def describe(self) -> str:
        """The changes in a few words, for figures."""
        parts = ["flip"] * self.flip + [f"crop {self.crop}"] * bool(self.crop)
        parts += [f"mixup {self.mixup:g}"] * bool(self.mixup)
        return ", ".join(parts) or "no augmentation"


class RunSpec(Spec):
    """One training trajectory (see the module's docstring).

    lr: learning rate η. l2: L2 coefficient λ of the penalty (λ/2)·‖θ‖² over all parameters; with auto_l2 its first
    value. lr_decay_epochs: epochs at which η is multiplied by lr_decay_factor. batch: samples a step, 0 for the full
    training set. loss: "cross_entropy" (softmax, mean over samples) or "half_mse" (mean over samples of half the
    squared distance, summed over outputs). order_shards: the training set lies in that many fixed equal parts, each
    shuffled by itself; a batch takes as many samples of each, part after part, as the authors' devices did. precision:
    "float32", or "tf32" and "bfloat16" for products rounded by a GPU, or "float64" for tests
    (l2dyn.training.precision). kernel_samples: on so many training samples, the first ones, the norm of the neural
    tangent kernel is measured (nets with one output).
    """

    net: AnyNetSpec
    data: DataSpec
    optimizer: AnyOptimizerSpec = SGDSpec()
    lr: Positive
    l2: NonNegative
    batch: NaturalNumber = 0
    loss: Loss = "cross_entropy"
    init_seed: NaturalNumber = 0
    order_seed: NaturalNumber = 0
    order_shards: Count = 1
    precision: Precision = "float32"
    auto_l2: AutoL2Spec | None = None
    lr_decay_epochs: tuple[float, ...] = ()
    lr_decay_factor: Fraction = 0.2
    augmentation: AugmentationSpec = AugmentationSpec()
    augmentation_seed: NaturalNumber = 0
    kernel_samples: NaturalNumber = 0

    @model_validator(mode="after")
    def _one_id_for_one_trajectory(self):
        if self.batch > self.data.train_samples:
            raise ValueError(f"batch: {self.batch} is more than the {self.data.train_samples} training samples")
        for held in ("batch", "data.train_samples") if self.batch else ():
            size = self.batch if held == "batch" else self.data.train_samples
            if size % self.order_shards:
                raise ValueError(f"order_shards: {self.order_shards} does not divide {held}, {size}")
        group = self.augmentation.mixup_group
        if group and self.samples_a_step % group:
            raise ValueError(f"augmentation.mixup_group: {group} does not divide the batch of {self.samples_a_step}")
        if self.data.scaling == "split" and self.augmentation.crop and self.augmentation.variant == "standard":
            raise ValueError("data.scaling: split goes with augmentation.variant authors, which pads after scaling")
        if self.kernel_samples and self.data.outputs > 1:
            raise ValueError("kernel_samples: for nets with one output (data.labels: parity)")
        if self.kernel_samples > self.data.train_samples:
            raise ValueError(f"kernel_samples: more than the {self.data.train_samples} training samples")
        if self.data.labels == "parity" and self.loss != "half_mse":
            raise ValueError("loss: parity labels (±1, one output) go with loss half_mse")
        without_effect = {
            "order_seed": self.batch == 0,
            "order_shards": self.batch == 0,
            "augmentation_seed": self.augmentation == AugmentationSpec(),
            "lr_decay_factor": not self.lr_decay_epochs,
        }
        for name in (name for name, unused in without_effect.items() if unused):
            object.__setattr__(self, name, type(self).model_fields[name].default)
        return self

    @property
    def momentum(self) -> float:
        """The optimizer's μ, 0 where it has none."""
        return getattr(self.optimizer, "momentum", 0.0)

    @property
    def stacks(self) -> bool:
        """Whether it trains as a member of a stack (l2dyn.training.stacked), with others of its net and data."""
        changes = self.auto_l2 is not None or self.lr_decay_epochs or self.augmentation != AugmentationSpec()
        return bool(self.net.stacked_module) and self.optimizer.stacks and not changes

    @property
    def samples_a_step(self) -> int:
        """The batch, or all training samples."""
        return self.batch or self.data.train_samples

    @property
    def steps_per_epoch(self) -> int:
        """S; an incomplete last batch is dropped."""
        return self.data.train_samples // self.samples_a_step

    def lr_at(self, step: int) -> float:
        """The learning rate of the step after `step` steps: a pure function of it, so that resuming is free."""
        decays = sum(step >= round(epoch * self.steps_per_epoch) for epoch in self.lr_decay_epochs)
        return self.lr * self.lr_decay_factor**decays

    @functools.cached_property
    def run_id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(to_dict(self)).encode()).hexdigest()[:12]
