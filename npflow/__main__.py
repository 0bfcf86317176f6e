"""``python -m npflow`` is the ``npflow`` command."""

import sys

from npflow.cli import main

sys.exit(main())
