"""Raw formats, one file each: a reader turns a file into `RawInteractions`, or says in one line what is wrong with it."""
