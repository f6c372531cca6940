"""Packaged constants: sites, flux, detector; each file names its sources."""
