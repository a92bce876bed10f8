"""Every GPU benchmark, one after another: what is measured already is skipped, so it goes on where it stopped.

    python benchmarks/gpu.py --output-folder gpu --time-limit 9m      # again until it exits 0; 75 means: call again

CIFAR-10 comes from L2DYN_DATA (see README.md). The minutes beside each part are guesses; a part is begun only where
that much time is left.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from l2dyn.cli.options import duration
from l2dyn.errors import EXIT_STOPPED

HERE = Path(__file__).parent
ONCE = "--device cuda"
STACK = f"{ONCE} --members 64 --precisions float32 tf32 bfloat16"
PARTS = {  # name: guessed minutes, script and options
    "fc-2048": (4, f"fc_steps.py {STACK} --width 2048"),
    "fc-512": (3, f"fc_steps.py {STACK} --width 512"),
    "wrn-rates": (4, f"wrn_train.py {ONCE} --rates"),
    "cnn-rates": (3, f"cnn_train.py {ONCE}"),
    "precision": (4, f"precision.py {ONCE}"),
    **{
        f"wrn-accuracy-{side}-{seed}": (minutes, f"wrn_train.py {ONCE} --accuracy {side} --seed {seed}")
        for seed in (0, 1, 2)
        for side, minutes in (("ours", 3), ("baseline", 4))
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Takes about 40 minutes in all (a guess)."
    )
    parser.add_argument("--output-folder", type=Path, required=True, help="one JSON file for each part")
    parser.add_argument("--time-limit", type=duration, help="such as 9m")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--list", action="store_true", help="what is measured and what is not")
    options = parser.parse_args()
    started = time.monotonic()
    options.output_folder.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        minutes, words = PARTS[name]
        output = options.output_folder / f"{name}.json"
        if options.list or output.exists():
            print(f"{name}: {'measured' if output.exists() else 'not measured'}: {words}")
            continue
        if options.time_limit and time.monotonic() - started + 60 * minutes > options.time_limit:
            print(f"{name}: no {minutes} minutes left; call again to go on")
            return EXIT_STOPPED
        print(f"== {name}: {words}", flush=True)
        script, *rest = words.split()
        command = [sys.executable, str(HERE / script), *rest, "--output", str(output)]
        done = subprocess.run(command, check=False)
        if done.returncode:
            print(f"{name}: ended with {done.returncode}; going on without it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
