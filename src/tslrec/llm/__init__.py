"""The language model: where its weights come from, the prompt, and how it is adapted to item embeddings."""
