"""Item embeddings that join a free vector per item with what earlier stages know of the item."""
