"""One backbone per file: plain modules that know nothing of Lightning, Hydra, paths or fusions."""
