"""Ray, where it is installed (extra ``ray``): the connected cluster, or a local one for as long as it is needed."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["local_cluster"]


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[Any]:
    """Yield the module ``ray``, connected; a cluster that was started here is shut down at the end."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # workers are to be this interpreter
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Ray needs the extra: pip install 'multislot-rerank[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
