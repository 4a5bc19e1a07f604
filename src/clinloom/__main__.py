"""``python -m clinloom``: the command line."""

from clinloom.cli import main

raise SystemExit(main())
