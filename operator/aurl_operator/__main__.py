"""`python -m aurl_operator` is `aurl`."""

import sys

from aurl_operator.cli import main

if __name__ == "__main__":
    sys.exit(main())
