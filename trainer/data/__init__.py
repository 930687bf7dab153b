"""Data: scanning a data set, the datasets and transforms, and the sampler."""
