"""AutoL2 as a callback of Lightning (the extra `lightning`)."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from l2dyn.optim.auto_l2 import AutoL2


class AutoL2Callback(Callback):
    """Lowers the weight decay of a LightningModule's optimizer as AutoL2 does, and logs λ as "l2".

    Every `interval` steps of that optimizer it takes the loss that `training_step` returned for the minibatch just
    trained on (without a penalty of your own), and where `error` names a metric that the module logs, that one too.

    State goes into Lightning's checkpoints.

    Args:
        error: name of a logged metric, the training error as a fraction.
        optimizer: which one, where there are several.
        settings: arguments of AutoL2. On several devices set distributed=True, unless the module returns a loss that is
            reduced already.

    Raises:
        ValueError: as AutoL2 does, and where training_step returns no loss or does not log the error.
    """

    def __init__(self, error: str | None = None, optimizer: int = 0, **settings: Any):
        self.error, self.optimizer, self.settings = error, optimizer, settings
        self.auto_l2: AutoL2 | None = None
        self._loaded: dict | None = None
        self._steps, self._seen = 0, 0  # of the optimizer, and when the last measurement was taken

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the optimizer's weight decay."""
        self.auto_l2 = AutoL2(trainer.optimizers[self.optimizer], **self.settings)
        if self._loaded is not None:
            self.auto_l2.load_state_dict(self._loaded)
        self._hook = trainer.optimizers[self.optimizer].register_step_post_hook(self._count)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizer alone."""
        self._hook.remove()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, when as many optimizer steps as `interval` have been taken since the last time."""
        pl_module.log("l2", self.auto_l2.get_last_l2())
        if self._steps == self._seen or self._steps % self.auto_l2.interval:
            return
        self._seen = self._steps
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:
            raise ValueError("training_step must return the loss, for AutoL2 to see it")
        error = None
        if self.error is not None:
            if self.error not in trainer.callback_metrics:
                raise ValueError(f"error={self.error!r} is not among the metrics that training_step logs")
            error = trainer.callback_metrics[self.error]
        self.auto_l2.step(loss * trainer.accumulate_grad_batches, error)

    def state_dict(self) -> dict:
        """What AutoL2 has accumulated."""
        return (
            {}
            if self.auto_l2 is None
            else {"auto_l2": self.auto_l2.state_dict(), "steps": self._steps, "seen": self._seen}
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from there when training starts."""
        self._loaded = state_dict.get("auto_l2")
        self._steps, self._seen = state_dict.get("steps", 0), state_dict.get("seen", 0)

    def _count(self, *_: Any) -> None:
        self._steps += 1
