"""Training steps as CUDA graphs: the host launches many kernels by one call, and the device never waits for it."""

import logging
from collections import deque
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)
STEPS_A_GRAPH = 16
WARM_UP = 3  # steps run as they are before the capture, as CUDA graphs ask for; real steps, they count
AHEAD = 2  # calls of `advance` that may still be running on the device, few, so that a time limit is noticed in time


class CapturedSteps:
    """Calls of `step`, replayed from graphs of several steps or of one; made as they are where capturing fails.

    step: changes tensors in place, always the same ones, and asks for nothing that the host would wait for. Whatever it
    reads must stay where it is in memory; once a tensor is replaced, make another CapturedSteps.
    """

    def __init__(self, step: Callable[[], None], device: str):
        self._step, self._device = step, device
        self._warmed = 0
        self._plain = False
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._marks: deque[torch.cuda.Event] = deque()

    def advance(self, steps: int) -> None:
        """Take that many steps; returns once all but the last AHEAD calls' steps are done."""
        while steps and self._warmed < WARM_UP:
            self._warm_up()
            steps -= 1
        if not steps:
            return
        if not self._graphs and not self._plain:
            self._try_to_capture()
        for size, graph in self._graphs.items():
            for _ in range(steps // size):
                graph.replay()
            steps %= size
        for _ in range(steps):  # none are left where there are graphs
            self._step()
        self._wait()

    def _warm_up(self) -> None:
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self._warmed += 1

    def _try_to_capture(self) -> None:
        try:
            self._capture()
        except RuntimeError as error:  # nothing has been computed while capturing, so the steps are still to be taken
            log.warning("l2dyn: steps are not captured as CUDA graphs: %s", " ".join(str(error).split())[:200])
            self._graphs, self._plain = {}, True

    def _capture(self) -> None:
        pool = torch.cuda.graph_pool_handle()
        for size in (STEPS_A_GRAPH, 1):  # the larger one first: `advance` takes as many of it as fit
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                for _ in range(size):
                    self._step()
            self._graphs[size] = graph

    def _wait(self) -> None:
        mark = torch.cuda.Event()
        mark.record()
        self._marks.append(mark)
        if len(self._marks) > AHEAD:
            self._marks.popleft().synchronize()
