"""Which trainer trains which runs."""

from l2dyn.data.samples import Samples
from l2dyn.runs.plan import Task
from l2dyn.training.loop import TrainingLoop
from l2dyn.training.single import SingleTrainer
from l2dyn.training.stacked import StackedTrainer


def trainer_for(tasks: list[Task], samples: Samples, device: str = "cpu", micro_batch: int = 0) -> TrainingLoop:
    """The trainer of a group that l2dyn.runs.plan.stacks has put together: one stack, or one run that does not stack.

    device: "cpu" or "cuda". micro_batch: see SingleTrainer.
    """
    if tasks[0].spec.stacks:
        return StackedTrainer(tasks, samples, device)
    return SingleTrainer(tasks, samples, device, micro_batch)
