"""The knowledge store: what the language model knows of each item, in files that no process holds as a whole."""
