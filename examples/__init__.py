"""Real models on real data, each trained by the same short loop with any of the optimizers."""
