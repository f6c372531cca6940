"""Data sets, metrics, paired timing and claim tables shared by the papershelf packages."""

__all__: list[str] = []
