"""Floor 4: one style for all figures, and what a figure notebook reads and writes. Imported by figures/ only."""
