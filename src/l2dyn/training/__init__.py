"""Training: the trainers behind one interface, jobs with checkpoints, devices, calibration."""
