"""`python -m tslrec.cli VERB`: the same as `tslrec VERB`."""

from __future__ import annotations

from tslrec.cli.main import main

if __name__ == "__main__":
    main()
