"""Floor 2: the nets."""
