"""Reactor antineutrinos: flux, inverse beta decay, sites, detector response and whole experiments."""
