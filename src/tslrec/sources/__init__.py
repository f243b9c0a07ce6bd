"""Raw formats, one file each: a reader gives `RawInteractions`, or one line that says what is wrong."""
