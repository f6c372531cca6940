"""Every linear layer, the embedding and the head of a model in int8: no calibration, a quarter of the bytes.

Which layers there are, and which read the same input, is seen by running the dense model on a few tokens of its own; a
layer that does not run there stays dense, and so does an embedding that does more than look rows up. FFNs may be given
to a treatment instead, which then spends more or fewer bits on heavy neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ffn_heavyhitter.adapters import FFN, find_ffns, is_linear, matrix, replace_module, require_dense, set_linear
from ffn_heavyhitter.compression import Treatment, compress
from ffn_heavyhitter.errors import CompressionError, StatisticsError, UnsupportedArchitectureError
from ffn_heavyhitter.int8_linear import (
    Int8Embedding,
    Int8Linear,
    Int8Rows,
    SharedInput,
    int8_embedding,
    int8_linear,
    int8_modules,
    outlying,
)
from ffn_heavyhitter.int8_rows import STEPS
from ffn_heavyhitter.probe import checked, first_output, sample_inputs
from ffn_heavyhitter.statistics import Statistics
from ffn_heavyhitter.validation import require_eval

__all__ = ["compress_model", "describe", "put_back_dense", "put_empty", "require_description"]

Model = TypeVar("Model", bound=nn.Module)
Description = dict[str, Any]


def compress_model(
    model: Model,
    *,
    activation_bits: int = 16,
    ffn: Treatment | Mapping[str, Treatment] | None = None,
    statistics: Statistics | None = None,
    progress: Callable[[str], None] | None = None,
) -> Model:
    """Rewrite a whole model in place: linear layers, embedding and head in int8, one scale a row.

    Parameters
    ----------
    model : nn.Module
        Dense, in eval mode, of an architecture that ``find_ffns`` knows.
    activation_bits : {16, 8}
        16 keeps what the weights give; 8 is faster and less exact.
    ffn : Treatment or mapping of FFN name to Treatment, optional
        What to make of the FFNs instead; needs ``statistics``.
    statistics : Statistics, optional
        Collected on this model.
    progress : callable, optional
        Called with each layer's name.

    Returns
    -------
    nn.Module
        The same model.

    Raises
    ------
    CompressionError
        If the model is compressed already, in training mode, or holds a weight that is not finite.
    UnsupportedArchitectureError
        If no adapter knows the model.
    StatisticsError
        If ``ffn`` is given without ``statistics``.

    Examples
    --------
    >>> from ffn_heavyhitter.random_models import output, tiny, tokens
    >>> model = tiny("llama")
    >>> before = output(model, tokens())
    >>> after = output(compress_model(model), tokens())
    >>> float((after - before).norm() / before.norm()) < 0.05
    True
    """
    if activation_bits not in STEPS:
        raise ValueError(f"activation_bits={activation_bits!r} must be 16 or 8")
    if ffn is not None and statistics is None:
        raise StatisticsError("ffn treatments need statistics; collect them on this model, or leave ffn out")
    require_eval(model)
    ffns = find_ffns(model)
    require_dense(ffns)
    if int8_modules(model):
        raise CompressionError("the model is compressed already; start from the dense one, or merge() this one first")
    checked(model, ffns)
    treated = _under(ffns, ffn)
    with torch.no_grad():
        made, groups = _rewritten(model, treated, activation_bits, progress)
    if ffn is not None and statistics is not None:
        compress(model, ffn, statistics, progress)
    for name, module in made.items():
        _swap(model, name, module)
    for group in groups:
        _share([model.get_submodule(name) for name in group])
    if hasattr(model, "config"):
        from ffn_heavyhitter.plugin import mark_compressed

        mark_compressed(model)
    return model


def describe(model: nn.Module) -> Description | None:
    """What ``config.json`` says of a model's int8 layers, as plain data; None where there are none."""
    found = int8_modules(model)
    if not found:
        return None
    names = {module: name for name, module in found.items()}
    linear = [module for module in found.values() if isinstance(module, Int8Linear)]
    groups = {id(module.shared): [names[one] for one in module.shared.members] for module in linear}
    return {
        "activation_bits": linear[0].spec["activation_bits"],
        "inputs": list(groups.values()),
        "embeddings": [name for name, module in found.items() if isinstance(module, Int8Embedding)],
        "tied": {names[one]: names[one.source] for one in linear if one.source is not None},
        "outliers": {names[one]: one.spec["outliers"] for one in linear if one.spec["outliers"]},
    }


def require_description(found: Any) -> None:
    """Refuse what ``describe`` did not write.

    Raises
    ------
    CompressionError
        Names the field.
    """
    kinds = {"activation_bits": int, "inputs": list, "embeddings": list, "tied": dict, "outliers": dict}
    if not isinstance(found, dict):
        raise CompressionError(f"whole={found!r} of the compressed model must be a mapping of {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise CompressionError(
                f"whole.{name}={found.get(name)!r} of the compressed model must be a {kind.__name__}"
            )
    if found.keys() != kinds.keys():
        raise CompressionError(f"whole has unknown fields {sorted(found.keys() - kinds.keys())}")
    if found["activation_bits"] not in STEPS:
        raise CompressionError(f"whole.activation_bits={found['activation_bits']!r} must be 16 or 8")
    if not all(isinstance(group, list) and group for group in found["inputs"]):
        raise CompressionError("whole.inputs of the compressed model must be a list of lists of names")
    layers = [name for group in found["inputs"] for name in group]
    for field, names in (("inputs", layers), ("embeddings", found["embeddings"])):
        if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
            raise CompressionError(f"whole.{field} of the compressed model must hold names, each once")
    for name, source in found["tied"].items():
        if name not in layers or source not in found["embeddings"]:
            raise CompressionError(f"whole.tied ties {name!r} to {source!r}, which are no layer and embedding of it")
    for name, count in found["outliers"].items():
        if name not in layers or type(count) is not int or count < 1:
            raise CompressionError(f"whole.outliers={{{name!r}: {count!r}}} must be a layer and how many it has")


def put_empty(model: Any, description: Description, dtype: torch.dtype, rename: Callable[[str], str]) -> None:
    """Put empty int8 layers into a dense model whose weights are about to be read.

    Layers that this model does not have, such as the head of another class, are left out.
    """
    modules = dict(model.named_modules())
    kind = str(dtype).removeprefix("torch.")
    for stored in description["embeddings"]:
        name = rename(stored)
        if name in modules:
            if not isinstance(modules[name], nn.Embedding):
                raise CompressionError(f"whole.embeddings names {name}, which is a {type(modules[name]).__name__}")
            rows, columns = modules[name].weight.shape
            new = Int8Embedding({"rows": rows, "columns": columns, "dtype": kind}, modules[name].padding_idx)
            _swap(model, name, new.to("meta"))
    for stored_group in description["inputs"]:
        group = {name: stored for stored in stored_group if (name := rename(stored)) in modules}
        for name in group:
            if not is_linear(modules[name]):
                raise CompressionError(f"whole.inputs names {name}, which is a {type(modules[name]).__name__}")
        if len({matrix(modules[name]).shape[1] for name in group}) > 1:
            raise CompressionError(f"whole.inputs groups {[*group]}, which read inputs of different widths")
        for name, stored in group.items():
            rows, columns = matrix(modules[name]).shape
            tied = description["tied"].get(stored)
            source = None if tied is None else model.get_submodule(rename(tied))
            if source is not None and (source.spec["rows"], source.spec["columns"]) != (rows, columns):
                raise CompressionError(f"whole.tied ties {name} to {tied}, which has another shape")
            spec = {
                "rows": rows,
                "columns": columns,
                "dtype": kind,
                "activation_bits": description["activation_bits"],
                "outliers": description["outliers"].get(stored, 0),
            }
            _swap(model, name, Int8Linear(spec, modules[name].bias, source).to("meta"))
        _share([model.get_submodule(name) for name in group])


def put_back_dense(model: nn.Module) -> None:
    """Put dense layers of the dequantised weights back."""
    found = int8_modules(model)
    dense = {name: module.dense(module.dtype) for name, module in found.items()}
    originals = {name: _original(name, module) for name, module in found.items()}
    for name, module in found.items():
        if isinstance(module, Int8Linear):
            set_linear(originals[name], dense[name], None)
            originals[name].bias = module.bias
        else:
            originals[name].weight = nn.Parameter(dense[name])
        replace_module(model, name, originals[name])
    names = {module: name for name, module in found.items()}
    for name, module in found.items():
        if isinstance(module, Int8Linear) and module.source is not None:
            originals[name].weight = originals[names[module.source]].weight


def _original(name: str, module: Int8Rows) -> Any:
    if module.original is None:
        raise CompressionError(f"{name} was put in by hand; merge restores what compress_model or from_pretrained made")
    return module.original.modules[""]


def _under(ffns: list[FFN], treatment: Any) -> set[nn.Module]:
    """The linear layers of the FFNs that a treatment takes."""
    if treatment is None:
        return set()
    taken = [one for one in ffns if not isinstance(treatment, Mapping) or one.name in treatment]
    return {layer for one in taken for layer in (*one.inner, one.down)}


def _rewritten(
    model: Any, treated: set[nn.Module], activation_bits: int, progress: Callable[[str], None] | None
) -> tuple[dict[str, Int8Rows], list[list[str]]]:
    """Int8 modules by name, and the names of those that read the same input."""
    groups = [[name for name in group if model.get_submodule(name) not in treated] for group in _groups_by_input(model)]
    embedding_name, embedding = _embedding(model)
    made: dict[str, Int8Rows] = {}
    plain = type(embedding) is nn.Embedding and embedding.max_norm is None and not outlying(embedding.weight).any()
    if embedding_name is not None and plain:
        quantise = partial(int8_embedding, embedding.weight, embedding.padding_idx)
        made[embedding_name] = _named(embedding_name, quantise)
    for name in [name for group in groups for name in group]:
        layer = model.get_submodule(name)
        if progress is not None:
            progress(name)
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise CompressionError(
                f"{name} has hooks, which would be lost; remove them, and add them to the int8 layer"
            )
        if embedding is not None and layer.weight is embedding.weight:
            if embedding_name in made:
                made[name] = _tied(layer, made[embedding_name], activation_bits)
            continue
        made[name] = _named(name, partial(int8_linear, matrix(layer), layer.bias, activation_bits))
    return made, [kept for group in groups if (kept := [name for name in group if name in made])]


def _named(name: str, make: Callable[[], Int8Rows]) -> Int8Rows:
    try:
        return make()
    except CompressionError as error:
        raise CompressionError(f"{name}: {error}") from None


def _tied(layer: Any, embedding: Int8Rows, activation_bits: int) -> Int8Linear:
    """A head that shares the embedding's rows."""
    shape = {key: embedding.spec[key] for key in ("rows", "columns", "dtype")}
    assert isinstance(embedding, Int8Embedding)
    return Int8Linear({**shape, "activation_bits": activation_bits, "outliers": 0}, layer.bias, embedding)


def _embedding(model: Any) -> tuple[str | None, Any]:
    """Name and module of the input embedding, where the model has one of tokens."""
    try:
        found = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None, None
    if not isinstance(found, nn.Embedding):
        return None, None
    return next(name for name, module in model.named_modules() if module is found), found


def _groups_by_input(model: nn.Module) -> list[list[str]]:
    """Names of the linear layers that run, grouped by the input that they read one after the other."""
    inputs = sample_inputs(model)
    calls: list[tuple[str, Tensor]] = []

    def watch(name: str) -> Callable[..., None]:
        return lambda module, given: calls.append((name, given[0]))

    handles = [
        layer.register_forward_pre_hook(watch(name)) for name, layer in model.named_modules() if is_linear(layer)
    ]
    try:
        answer = None if inputs is None else first_output(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if answer is None:
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} does not answer to a few tokens or an image, so that its layers cannot be seen"
        )
    groups: list[list[str]] = []
    seen: set[str] = set()
    last: Tensor | None = None
    for name, given in calls:
        fresh = name not in seen
        seen.add(name)
        if fresh and given is last and groups[-1][0].rpartition(".")[0] == name.rpartition(".")[0]:
            groups[-1].append(name)
        elif fresh:
            groups.append([name])
        last = given if fresh else None
    return groups


def _swap(model: nn.Module, name: str, new: Int8Rows) -> None:
    new.displace(model.get_submodule(name))
    replace_module(model, name, new.eval())


def _share(members: list[Any]) -> None:
    if members:
        shared = SharedInput(members)
        for one in members:
            one.shared = shared
