"""One style for all figures, their panels, and what a figure notebook reads and writes. Imported by figures/ only."""
