"""Preferences, and the knowledge store: what the language model knows of each item, in shards on disk."""
