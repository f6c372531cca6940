"""Likelihoods, fits, ordering, precision, bounds, toys and scans."""
