"""The three engines: each adds the same mSAM gradient to ``.grad``."""
