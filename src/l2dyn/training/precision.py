"""What a RunSpec's `precision` means: the dtype of parameters, and how their products are computed.

float64, float32: products in that type, on a GPU too. tf32: float32 parameters, whose products a GPU rounds to TF32
(10 bits of mantissa); a processor without TF32 computes them in float32. bfloat16: float32 parameters, gradients' sums,
losses and batch-norm statistics, products of bfloat16 copies.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARAMETER_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.float32,
}
PRODUCT_DTYPES = {"bfloat16": torch.bfloat16}  # where operands are rounded, to which


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Let a GPU round float32 products to TF32 for `tf32`, and for nothing else (PyTorch's convolutions would)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
