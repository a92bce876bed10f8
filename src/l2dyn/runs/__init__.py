"""Runs without training: the plan of a scale, records and where they lie, costs."""
