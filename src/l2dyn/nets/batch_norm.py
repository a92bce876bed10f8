"""Batch normalization over groups of samples, as on separate devices, with a choice of statistics at evaluation."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own alias
from torch import Tensor, nn

STATISTICS = ("batch", "running")


class GroupedBatchNorm(nn.Module):
    """Normalizes each channel of [N, C] or [N, C, H, W] over consecutive samples, `group` at a time (0: all N).

    A batch that `group` does not divide is cut into max(1, round(N/group)) nearly equal parts. statistics: of the batch
    at evaluation as in training, or "running" averages at evaluation; with several groups these move by the mean over
    groups, and with the unbiased variance. eps may be 0; a channel that is constant then has an unbounded gradient.

    weight, bias: [C]; running_mean, running_var: [C], there with "running" only. Raises ValueError for arguments that
    make no sense, and in the forward pass where a part has one value a channel only.
    """

    def __init__(
        self, channels: int, group: int = 0, statistics: str = "batch", eps: float = 1e-5, momentum: float = 0.1
    ):
        super().__init__()
        if statistics not in STATISTICS:
            raise ValueError(f"statistics are one of {', '.join(STATISTICS)}, not {statistics!r}")
        if channels < 1 or group < 0 or eps < 0:
            raise ValueError(f"channels ({channels}) must be positive, group ({group}) and eps ({eps}) not negative")
        self.channels, self.group, self.statistics = channels, group, statistics
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        running = statistics == "running"
        self.register_buffer("running_mean", torch.empty(channels) if running else None)
        self.register_buffer("running_var", torch.empty(channels) if running else None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Scale 1, shift 0, running mean 0 and running variance 1."""
        self.weight.fill_(1.0)
        self.bias.zero_()
        if self.running_mean is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C] or [N, C, H, W]; the result has its shape and its memory format."""
        if self.running_mean is not None and not self.training:
            return self._normalized(x, self.weight, self.bias, self.running_mean, self.running_var, training=False)
        parts = max(1, round(x.shape[0] / self.group)) if self.group else 1
        if parts == 1:
            return self._normalized(x, self.weight, self.bias, *self._averages(1))
        averages = self._averages(parts)
        normalize = self._split if x.shape[0] % self.group else self._folded
        out = normalize(x, parts, *averages)
        if self.training and self.running_mean is not None:
            with torch.no_grad():
                for running, of_parts in zip((self.running_mean, self.running_var), averages, strict=True):
                    running.copy_(of_parts.view(parts, self.channels).mean(dim=0))
        return out

    def _averages(self, parts: int) -> tuple[Tensor | None, Tensor | None]:
        """Running mean and variance for each part, [parts·C], that its pass may update in place (the buffers for 1)."""
        if self.running_mean is None or not self.training:
            return None, None
        if parts == 1:
            return self.running_mean, self.running_var
        return self.running_mean.repeat(parts), self.running_var.repeat(parts)

    def _folded(self, x: Tensor, parts: int, mean: Tensor | None, var: Tensor | None) -> Tensor:
        """Equal parts in one pass: [parts·g, C, …] seen as g samples of parts·C channels."""
        if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            # with its pixels as samples the image is contiguous, so that the copies move whole runs of C values
            n, c, h, w = x.shape
            pixels = self._folded(x.permute(0, 2, 3, 1).reshape(n * h * w, c), parts, mean, var)
            return pixels.view(n, h, w, c).permute(0, 3, 1, 2)
        swapped = x.reshape(parts, -1, *x.shape[1:]).transpose(0, 1)
        folded = swapped.reshape(swapped.shape[0], -1, *x.shape[2:])
        out = self._normalized(folded, self.weight.repeat(parts), self.bias.repeat(parts), mean, var)
        return out.view(swapped.shape).transpose(0, 1).reshape(x.shape)

    def _split(self, x: Tensor, parts: int, mean: Tensor | None, var: Tensor | None) -> Tensor:
        """Nearly equal parts, one after the other."""
        means = [None] * parts if mean is None else mean.view(parts, self.channels)
        variances = [None] * parts if var is None else var.view(parts, self.channels)
        pieces = zip(torch.tensor_split(x, parts), means, variances, strict=True)
        return torch.cat([self._normalized(piece, self.weight, self.bias, m, v) for piece, m, v in pieces])

    def _normalized(
        self, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor | None, var: Tensor | None, training: bool = True
    ) -> Tensor:
        # PyTorch refuses 0; the smallest normal number leaves any variance above 1e-31 as it is
        eps = max(self.eps, torch.finfo(torch.float32).tiny)
        return F.batch_norm(x, mean, var, weight, bias, training=training, momentum=self.momentum, eps=eps)

    def extra_repr(self) -> str:
        """What print(net) shows."""
        return f"{self.channels}, group={self.group}, statistics={self.statistics!r}, eps={self.eps}"
