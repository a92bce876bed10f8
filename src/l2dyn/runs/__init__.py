"""Floor 0: what a run is (RunSpec), which runs a scale asks for, and where their records lie. Never imports torch."""
