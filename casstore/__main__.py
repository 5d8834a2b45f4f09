"""`python -m casstore`: the same as the command `casstore`."""

from __future__ import annotations

from casstore.cli.start import main

if __name__ == "__main__":
    main()
