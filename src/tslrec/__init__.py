"""TSLRec: a two-stage, LLM-enhanced way to train sequential recommenders."""
