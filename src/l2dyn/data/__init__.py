"""The data sets as verified arrays, the samples that a run sees, and random changes of them."""
