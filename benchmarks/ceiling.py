"""The machine: how fast plain products of matrices are in several processes at once, at given shapes.

python benchmarks/ceiling.py SHAPES.json SECONDS        # a worker: it starts to measure once a line arrives
"""

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SQUARES = (64, 96, 128, 192, 256, 384, 512)
WINDOWS = 5  # the best of so many timed windows counts, for each shape


def net_products(widths: list[int], samples: int) -> dict[str, dict]:
    """The products of a training step of a fully-connected net; `times` says how often a step computes that shape.

    None is listed for the gradient with respect to the inputs: nobody computes it.
    """
    shapes: Counter = Counter()
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        shapes["forward", samples, fan_in, fan_out] += 1
        shapes["weight gradient", fan_in, samples, fan_out] += 1
        if layer > 0:
            shapes["back", samples, fan_out, fan_in] += 1
    return {
        f"{kind} {m}x{k}x{n}": {"kind": kind, "m": m, "k": k, "n": n, "times": times}
        for (kind, m, k, n), times in shapes.items()
    }


def measured(products: dict[str, dict], processes: int, window_s: float, folder: Path) -> dict:
    """Rates in GFLOP/s, summed over processes that are at work at the same moment, one thread each."""
    squares = {f"square {n}": {"kind": "square", "m": n, "k": n, "n": n} for n in SQUARES}
    file = folder / "shapes.json"
    file.write_text(json.dumps(squares | products))
    command = [sys.executable, __file__, str(file), str(window_s)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(processes)]
    for worker in workers:
        worker.stdout.readline()  # torch is imported, so that all of them measure at the same time
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("the rate of matrix products could not be measured, see above")
    of_workers = [json.loads(answer) for answer in answers]
    rates = {name: sum(of_one[name] for of_one in of_workers) / 1e9 for name in squares | products}
    # a step's products one after another: total work over total time
    work = {name: 2.0 * p["m"] * p["k"] * p["n"] * p["times"] for name, p in products.items()}
    best = max(rates, key=rates.get)
    return {
        "processes": processes,
        "gflops": rates,
        "best_shape": best,
        "best_gflops": rates[best],
        "net_gflops": sum(work.values()) / sum(work[name] / rates[name] for name in products),
    }


def worker(shapes_file: str, window_s: str) -> None:
    """Print the best FLOP/s of torch.mm at each shape, in float32 on one thread."""
    import torch

    torch.set_num_threads(1)
    shapes, rates = json.loads(Path(shapes_file).read_text()), {}
    print("ready", flush=True)
    sys.stdin.readline()
    for name, shape in shapes.items():
        m, k, n = shape["m"], shape["k"], shape["n"]
        # the operands lie in memory as training has them: hᵀ and Wᵀ are transposed views
        left = torch.randn(k, m).T if shape["kind"] == "weight gradient" else torch.randn(m, k)
        right = torch.randn(n, k).T if shape["kind"] == "back" else torch.randn(k, n)
        out, flops = torch.empty(m, n), 2.0 * m * k * n
        calls, best = max(1, int(1e7 / flops)), 0.0  # calls between two looks at the clock
        for _ in range(WINDOWS):
            done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < float(window_s) or not done:
                for _ in range(calls):
                    torch.mm(left, right, out=out)
                done += calls
            best = max(best, done * flops / elapsed)
        rates[name] = best
    print(json.dumps(rates))


if __name__ == "__main__":
    worker(*sys.argv[1:])
