"""The sweeper and the SLURM launcher; Hydra finds them because they are in the package `hydra_plugins`."""
