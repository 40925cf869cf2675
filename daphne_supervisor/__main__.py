"""`python -m daphne_supervisor`, the same program as the `daphne-supervisor` script."""

import sys

from daphne_supervisor.cli import main

if __name__ == "__main__":
    sys.exit(main())
