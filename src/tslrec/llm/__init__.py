"""The language model: its weights, prompts, packing, LoRA and the shared prefix. It knows no method."""
