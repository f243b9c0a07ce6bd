"""Readers of raw formats, one file each: a reader returns `RawInteractions` or raises a `UserError`."""
