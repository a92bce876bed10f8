"""Batch normalization over groups of samples, as on separate devices."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own alias
from torch import Tensor, nn


class GroupedBatchNorm(nn.Module):
    """Normalizes each channel of [N, C] or [N, C, H, W] over consecutive samples, `group` at a time (0: all N).

    The statistics are the batch's, in training and at evaluation. A batch that `group` does not divide is cut into
    max(1, round(N/group)) nearly equal parts. eps may be 0; a channel that is constant then has an unbounded gradient.

    weight, bias: [C].

    Raises:
        ValueError: for arguments that make no sense, and in the forward pass where a part has one value a channel only.
    """

    def __init__(self, channels: int, group: int = 0, eps: float = 1e-5):
        super().__init__()
        if channels < 1 or group < 0 or eps < 0:
            raise ValueError(f"channels ({channels}) must be positive, group ({group}) and eps ({eps}) not negative")
        self.channels, self.group, self.eps = channels, group, eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        self.weight.fill_(1.0)
        self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C] or [N, C, H, W]; the result has its shape and its memory format."""
        parts = max(1, round(x.shape[0] / self.group)) if self.group else 1
        if parts == 1:
            return self._normalized(x, self.weight, self.bias)
        if x.shape[0] % self.group:
            pieces = torch.tensor_split(x, parts)
            return torch.cat([self._normalized(piece, self.weight, self.bias) for piece in pieces])
        return self._folded(x, parts)

    def _folded(self, x: Tensor, parts: int) -> Tensor:
        """Equal parts in one pass: [parts·g, C, …] seen as g samples of parts·C channels."""
        if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            # with its pixels as samples the image is contiguous, so that the copies move whole runs of C values
            n, c, h, w = x.shape
            pixels = self._folded(x.permute(0, 2, 3, 1).reshape(n * h * w, c), parts)
            return pixels.view(n, h, w, c).permute(0, 3, 1, 2)
        swapped = x.reshape(parts, -1, *x.shape[1:]).transpose(0, 1)
        folded = swapped.reshape(swapped.shape[0], -1, *x.shape[2:])
        out = self._normalized(folded, self.weight.repeat(parts), self.bias.repeat(parts))
        return out.view(swapped.shape).transpose(0, 1).reshape(x.shape)

    def _normalized(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # PyTorch refuses 0; the smallest normal number leaves any variance above 1e-31 as it is
        eps = max(self.eps, torch.finfo(torch.float32).tiny)
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)

    def extra_repr(self) -> str:
        """What print(net) shows."""
        return f"{self.channels}, group={self.group}, eps={self.eps}"
