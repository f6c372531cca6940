"""How a mini-batch is cut: B rows into disjoint, contiguous micro-batches S_1..S_M with sum b_i = B."""

from __future__ import annotations

from msam_lawn.errors import SettingsError

__all__ = ["check_micro_batching", "shard_sizes", "shard_slices"]


def check_micro_batching(micro_batches: int | None, micro_batch_size: int | None) -> None:
    """Refuse what no batch could satisfy: both settings at once, or one below 1."""
    if micro_batches is not None and micro_batch_size is not None:
        raise SettingsError(
            f"micro_batches={micro_batches} and micro_batch_size={micro_batch_size} given; pass one of them"
        )
    for name, value in (("micro_batches", micro_batches), ("micro_batch_size", micro_batch_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise SettingsError(f"{name}={value!r} must be an integer of at least 1")


def shard_sizes(rows: int, micro_batches: int | None = None, micro_batch_size: int | None = None) -> tuple[int, ...]:
    """Rows of each micro-batch; neither setting given means one micro-batch (SAM).

    A number of micro-batches gives sizes that differ by one row at most, the larger first; fewer rows than that, as in
    the short last batch of an epoch, are a micro-batch each. A size gives full micro-batches and a short last one.

    Parameters
    ----------
    rows : int
        Rows B of the mini-batch.
    micro_batches : int, optional
        Number M of micro-batches.
    micro_batch_size : int, optional
        Rows of one micro-batch.

    Returns
    -------
    tuple of int

    Raises
    ------
    SettingsError
        If both settings are given, one is below 1, or there are no rows.

    Examples
    --------
    >>> shard_sizes(10, micro_batches=4)
    (3, 3, 2, 2)
    >>> shard_sizes(10, micro_batch_size=4)
    (4, 4, 2)
    >>> shard_sizes(2, micro_batches=4)
    (1, 1)
    """
    check_micro_batching(micro_batches, micro_batch_size)
    if rows < 1:
        raise SettingsError(f"the mini-batch has {rows} rows; it needs at least 1")
    if micro_batch_size is not None:
        full, rest = divmod(rows, micro_batch_size)
        return (micro_batch_size,) * full + ((rest,) if rest else ())
    count = min(micro_batches or 1, rows)
    small, larger = divmod(rows, count)
    return (small + 1,) * larger + (small,) * (count - larger)


def shard_slices(sizes: tuple[int, ...]) -> list[slice]:
    """Row ranges of the micro-batches.

    Examples
    --------
    >>> shard_slices((3, 2))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    slices, start = [], 0
    for size in sizes:
        slices.append(slice(start, start + size))
        start += size
    return slices
