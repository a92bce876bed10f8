"""What every kind of net declares beside its fields: which module builds it, what it costs, what figures call it."""

from typing import ClassVar

from l2dyn.specs.base import Spec

ImageShape = tuple[int, int, int]  # height, width, channels


class NetSpec(Spec):
    """A net.

    module: import path of its torch module, a class that is called with (spec, image shape, outputs) and takes images
    [N, channels, height, width] to outputs [N, outputs]. stacked_module: the same for E nets as one stack, where
    there is one (StackedFullyConnected shows the interface). weight_std: of N(0, weight_std²/fan_in), from which
    weights are drawn. Nets with batch norm have a field norm_group, the samples that it normalizes together (0: the
    whole batch); they may have a field test_norm_group, the same on the test set (0: as many as in training).
    """

    module: ClassVar[str]
    stacked_module: ClassVar[str] = ""

    kind: str
    weight_std: float

    def normalized_together(self, batch: int) -> int:
        """How many samples of a batch share their batch-norm statistics, all of them where there is no batch norm."""
        group = getattr(self, "norm_group", 0)
        return group if 0 < group < batch else batch

    def tested_together(self, batch: int) -> int:
        """How many test samples share their batch-norm statistics, for a net that trains on batches of that size."""
        return getattr(self, "test_norm_group", 0) or self.normalized_together(batch)

    def layer_flops(self, image: ImageShape, outputs: int) -> list[float]:
        """Floating-point operations of each layer's products in a forward pass of one sample, the first layer first.

        A test holds the sum against torch's own count.

        Raises:
            ValueError: for images that the net cannot take.
        """
        raise TypeError(f"{type(self).__name__} does not say what it costs")

    def describe(self) -> str:
        """The net in a few words, for figures."""
        raise TypeError(f"{type(self).__name__} does not say what it is called")
