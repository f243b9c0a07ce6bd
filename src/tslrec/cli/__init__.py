"""The command line: `tslrec VERB`, a module per verb, and what `train.py` runs (`train.py` in this folder)."""
