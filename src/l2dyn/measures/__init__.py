"""What is read off a run's curves: t*, censoring, power laws, c, the best λ. NumPy alone."""
