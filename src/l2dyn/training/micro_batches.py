"""Batches larger than memory: cut into parts that batch norm does not tie together, whose gradients add up."""


def parts_of(samples: int, together: int, at_once: int) -> list[slice]:
    """Consecutive parts of a batch: whole groups of `together` samples, as many as `at_once` samples hold.

    together: how many samples share their batch-norm statistics (1 without batch norm). at_once: 0 for no limit. A
    group is never cut, so a part may be larger than at_once; a batch that is not whole groups stays in one piece.

    >>> parts_of(1024, together=128, at_once=300)
    [slice(0, 256, None), slice(256, 512, None), slice(512, 768, None), slice(768, 1024, None)]
    >>> parts_of(10, together=1, at_once=4)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    >>> parts_of(1000, together=128, at_once=300)
    [slice(0, 1000, None)]
    """
    if not at_once or samples % together:
        return [slice(0, samples)]
    size = max(1, at_once // together) * together
    return [slice(first, min(first + size, samples)) for first in range(0, samples, size)]
