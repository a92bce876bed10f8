"""Which trainer trains which runs."""

from l2dyn.data.samples import Samples
from l2dyn.runs.plan import Task
from l2dyn.training.loop import TrainingLoop
from l2dyn.training.single import SingleTrainer
from l2dyn.training.stacked import StackedTrainer


def trainer_for(tasks: list[Task], samples: Samples, device: str = "cpu") -> TrainingLoop:
    """The trainer of a group that l2dyn.runs.plan.stacks has put together: one stack, or one run that does not stack.

    device: "cpu" or "cuda".
    """
    return (StackedTrainer if tasks[0].spec.stacks else SingleTrainer)(tasks, samples, device)
