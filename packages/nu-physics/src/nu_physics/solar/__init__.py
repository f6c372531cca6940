"""Solar WIMPs: capture, annihilation, neutrino spectra, propagation and muon rates at KM3NeT (arXiv:2203.13697)."""
