"""`python -m lkspace` is the command line too."""

import sys

from lkspace.cli import main

sys.exit(main())
