"""The verbs of the command line `tslrec`, one module each."""
