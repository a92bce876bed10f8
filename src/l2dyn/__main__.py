"""`python -m l2dyn` is the command `l2dyn`."""

import sys

from l2dyn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
