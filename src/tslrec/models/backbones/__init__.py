"""Backbones, one per file: plain modules that know nothing about Lightning, Hydra, paths or fusions."""
