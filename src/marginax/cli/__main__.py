"""``python -m marginax.cli`` is the command."""

import sys

from marginax.cli import main

sys.exit(main())
