"""Launches sweeps through Hydra, which looks for plugins in the package `hydra_plugins`."""
