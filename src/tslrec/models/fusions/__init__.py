"""Fusions, one per file: item embeddings that combine a trainable vector per item with results of earlier stages."""
