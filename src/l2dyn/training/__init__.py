"""Floor 3: training."""
