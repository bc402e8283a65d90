"""Using a fine-tuned model: the same encode and decode as in training."""
