"""``python -m unfreeze`` is the command ``unfreeze``."""

from unfreeze.cli import main

main()
