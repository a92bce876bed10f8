"""What determines a training trajectory, as frozen values without torch: the configuration and the runs share them."""
