"""`python -m l2dyn`: the same as the command `l2dyn`."""

import sys

from l2dyn.cli import main

sys.exit(main())
