"""Training a Wide ResNet on CIFAR-10: l2dyn beside plain PyTorch with a DataLoader and torchvision's transforms.

    python benchmarks/wrn_train.py --device cuda --rates       # img/s of both, and the fraction of the matmul rate
    python benchmarks/wrn_train.py --device cuda --accuracy ours --seed 0      # test accuracy after 5 epochs

- ours: the gpu scale's settings (bfloat16 products, channels_last, compiled, data and augmentation on the device);
- baseline: TF32 on, DataLoader with 8 workers and pinned memory, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize,
  the same net in PyTorch's default layout. Mixup is off on both sides: torchvision has it for whole batches only.
"""

import time

import numpy as np
import side_by_side as common
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from l2dyn.data import arrays
from l2dyn.data.samples import Samples, samples
from l2dyn.nets.build import build_net
from l2dyn.runs.cost import step_flops
from l2dyn.runs.plan import Task
from l2dyn.specs.data_sets import DATA_SETS, DataSpec
from l2dyn.specs.horizons import EvaluationGrid
from l2dyn.specs.nets import WideResNetSpec
from l2dyn.specs.optimizers import SGDSpec
from l2dyn.specs.run import AugmentationSpec, RunSpec
from l2dyn.training.calibration import random_samples
from l2dyn.training.precision import products_in
from l2dyn.training.single import SingleTrainer

LR, L2, MOMENTUM = 0.2, 5e-4, 0.9


def make_task(options, seed: int) -> Task:
    """A run with the gpu scale's settings."""
    sizes = {"train_samples": options.train, "test_samples": options.test}
    spec = RunSpec(
        net=WideResNetSpec(depth=options.depth, width=options.width, norm_group=min(128, options.batch)),
        data=DataSpec(name="cifar10", checksum="random" if options.synthetic else "", **sizes),
        lr=LR,
        l2=L2,
        optimizer=SGDSpec(momentum=MOMENTUM),
        batch=options.batch,
        init_seed=seed,
        order_seed=seed,
        augmentation=AugmentationSpec(flip=True, crop=4),
        augmentation_seed=seed,
        precision="bfloat16",
    )
    steps = options.epochs * spec.steps_per_epoch
    return Task(spec, steps, (steps,), EvaluationGrid(every_epochs=options.epochs, train_subset=options.batch))


def make_samples(task: Task, options) -> Samples:
    """Real CIFAR-10 from L2DYN_DATA, or random images of its shape."""
    spec = task.spec.data
    return random_samples(spec) if options.synthetic else samples(spec, arrays.load(spec.name))


class Images(Dataset):
    """As a user has CIFAR-10: uint8 images, transformed one by one."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, train: bool):
        from torchvision import transforms

        info = DATA_SETS["cifar10"]
        change = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if train else []
        self._transform = transforms.Compose(
            [transforms.ToPILImage(), *change, transforms.ToTensor(), transforms.Normalize(info.mean, info.std)]
        )
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int):
        return self._transform(self._images[index]), int(self._labels[index])


class Baseline:
    """Plain PyTorch."""

    def __init__(self, task: Task, seen: Samples, options):
        self.task, self.device = task, options.device
        net = build_net(task.spec.net, task.spec.data.image_shape, 10, task.spec.init_seed)
        self.net = net.to(self.device, memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.SGD(self.net.parameters(), LR, momentum=MOMENTUM, weight_decay=L2)
        how = {"batch_size": task.spec.batch, "num_workers": options.workers, "pin_memory": self.device == "cuda"}
        how |= {"persistent_workers": options.workers > 0, "drop_last": True}
        torch.manual_seed(task.spec.order_seed)
        self.train_loader = DataLoader(Images(seen.train_images, seen.train_labels, True), shuffle=True, **how)
        self.test_loader = DataLoader(Images(seen.test_images, seen.test_labels, False), **how)

    def epoch(self) -> int:
        """Train for an epoch; the images seen."""
        self.net.train()
        for images, labels in self.train_loader:
            images, labels = (t.to(self.device, non_blocking=True) for t in (images, labels))
            loss = functional.cross_entropy(self.net(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return len(self.train_loader) * self.task.spec.batch

    @torch.no_grad()
    def accuracy(self) -> float:
        """On the test set, batch by batch."""
        self.net.eval()
        right = seen = 0
        for images, labels in self.test_loader:
            outputs = self.net(images.to(self.device))
            right += int((outputs.argmax(dim=1).cpu() == labels).sum())
            seen += len(labels)
        return right / seen


def rates(options) -> tuple[list[dict], dict]:
    """Images a second of both, whole epochs of the baseline and stretches of as many steps of ours."""
    task = make_task(options, 0)
    seen = make_samples(task, options)
    batch, per_epoch = task.spec.batch, task.spec.steps_per_epoch
    with products_in("bfloat16"):
        trainer = SingleTrainer([task], seen, options.device)
        started = time.perf_counter()
        trainer.advance(1)
        common.synchronize(options.device)
        first_s = time.perf_counter() - started
        ours = [
            batch * per_epoch / s
            for s in common.seconds_a_call(lambda: trainer.advance(per_epoch), options.device, options.window)
        ]
        evaluation_s = common.seconds_a_call(trainer.measure, options.device, 0.0)
    with products_in("tf32"):
        baseline = Baseline(task, seen, options)
        baseline.epoch()
        plain = []
        for _ in range(2):
            started = time.perf_counter()
            images = baseline.epoch()
            common.synchronize(options.device)
            plain.append(images / (time.perf_counter() - started))
    rate, theirs = common.median(ours), common.median(plain)
    ceiling = common.matmul_rate(options.device, "bfloat16", options.window)
    done = rate * step_flops(task) / batch
    row = {
        "net": f"WRN-{options.depth}-{options.width}",
        "ours, img/s": rate,
        "baseline, img/s": theirs,
        "ratio": rate / theirs,
        "ours, TFLOP/s": done / 1e12,
        "bf16 matmul, TFLOP/s": ceiling / 1e12,
        "fraction": done / ceiling,
        "first step with compiling, s": first_s,
        "evaluation, s": common.median(evaluation_s),
    }
    return [row], {"ours_images_per_s": ours, "baseline_images_per_s": plain}


def accuracy(options) -> tuple[list[dict], dict]:
    """Test accuracy after the given epochs of one side and seed, and the time of its training."""
    task = make_task(options, options.seed)
    seen = make_samples(task, options)
    started = time.perf_counter()
    if options.accuracy == "ours":
        with products_in("bfloat16"):
            (finished,) = SingleTrainer([task], seen, options.device).train()
        found = float(finished.columns["test_accuracy"][-1])
    else:
        with products_in("tf32"):
            baseline = Baseline(task, seen, options)
            for _ in range(options.epochs):
                baseline.epoch()
            found = baseline.accuracy()
    seconds = time.perf_counter() - started
    row = {
        "side": options.accuracy,
        "seed": options.seed,
        "epochs": options.epochs,
        "test accuracy": found,
        "s": seconds,
    }
    return [row], {}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], "about 2 minutes on an H200 (a guess; no run has confirmed it)")
    parser.add_argument("--depth", type=int, default=28)
    parser.add_argument("--width", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--train", type=int, default=50000)
    parser.add_argument("--test", type=int, default=10000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--synthetic", action="store_true", help="random images of CIFAR-10's shape")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--rates", action="store_true")
    what.add_argument("--accuracy", choices=["ours", "baseline"])
    options = parser.parse_args()
    common.prepare(options)
    rows, more = rates(options) if options.rates else accuracy(options)
    common.finish("wrn_train", options, rows, **more)


if __name__ == "__main__":
    common.call(main)
