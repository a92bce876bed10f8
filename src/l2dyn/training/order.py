"""The order in which minibatches see the samples: a pure function of (seed, step), so that resuming replays it."""

import hashlib

import torch
from torch import Tensor


class DataOrder:
    """Minibatch indices of E members. batch 0 is the full training set, which has no order.

    Each epoch is a permutation drawn from (seed, epoch), or one of each of `shards` consecutive parts of the samples,
    of which a batch takes as many samples each, part after part. An incomplete last batch is dropped.
    """

    def __init__(self, seeds: list[int], samples: int, batch: int, device: str, shards: int = 1):
        self.seeds, self.samples, self.batch, self.device, self.shards = seeds, samples, batch, device, shards
        self._epoch = -1
        self._permutations: Tensor | None = None

    def indices(self, step: int) -> Tensor | None:
        """Indices of the step after `step` steps: [E, batch], [batch] where they are shared, None for all samples."""
        if self.batch == 0:
            return None
        per_epoch = self.samples // self.batch
        epoch, position = divmod(step, per_epoch)
        if epoch != self._epoch:
            drawn = {seed: self._order(seed, epoch) for seed in set(self.seeds)}
            chosen = [drawn[seed] for seed in self.seeds] if len(drawn) > 1 else [drawn[self.seeds[0]]]
            self._permutations = torch.stack(chosen).to(self.device)
            self._epoch = epoch
        part = self._permutations[:, position * self.batch : (position + 1) * self.batch]
        return part if len(part) > 1 else part[0]

    def _order(self, seed: int, epoch: int) -> Tensor:
        if self.shards == 1:
            return epoch_permutation(seed, epoch, self.samples)
        size, share = self.samples // self.shards, self.batch // self.shards
        whole = size // share * share
        firsts = range(0, self.samples, size)
        parts = [first + epoch_permutation(f"{seed} {first}", epoch, size)[:whole] for first in firsts]
        return torch.stack(parts).view(self.shards, -1, share).transpose(0, 1).flatten()

    def keep(self, members: list[int]) -> None:
        """Drop all but these members."""
        self.seeds = [self.seeds[m] for m in members]
        self._epoch = -1


def epoch_permutation(seed: int | str, epoch: int, samples: int) -> Tensor:
    """The permutation of one epoch, int64 [samples]."""
    # hashed, because the CPU generator takes no more than the low 32 bits of a seed
    mixed = int.from_bytes(hashlib.sha256(f"order {seed} {epoch}".encode()).digest()[:4], "little")
    generator = torch.Generator().manual_seed(mixed)
    return torch.randperm(samples, generator=generator)
