import importlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from msam_lawn import SettingsError
from msam_lawn.jax import micro_batch_sharpness, msam_value_and_grad
from msam_lawn.torch import SAM
from msam_lawn.torch import micro_batch_sharpness as torch_sharpness
from msam_lawn_cases import case, flat, gradients, losses
from oracles.numpy_msam import msam_gradient, tanh_mlp

# its place in JAX before 0.8
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64


def mean_loss(p, x, y):
    logits = jnp.tanh(x @ p[0].T + p[1]) @ p[2].T + p[3]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(x.shape[0]), y])


@pytest.fixture
def problem():
    model, x, y, _ = case("tanh_mlp")
    weights = [w.detach().numpy().astype(np.float32) for w in model.parameters()]
    return model.float(), weights, x.numpy().astype(np.float32), y.numpy()


@pytest.mark.parametrize("engine", ["map", "vmap"])
@pytest.mark.parametrize("cut", [{}, {"micro_batches": 4}, {"micro_batch_size": 4}], ids=str)
def test_gradient_equals_numpy_and_torch(problem, engine, cut):
    model, weights, x, y = problem
    sizes = {"micro_batches": [3, 3, 2, 2], "micro_batch_size": [4, 4, 2]}.get(next(iter(cut), ""), [10])
    with enable_x64(True):
        params = [jnp.asarray(w, jnp.float64) for w in weights]
        gradient = jax.jit(msam_value_and_grad(mean_loss, 0.3, engine=engine, **cut))
        value, got = gradient(params, jnp.asarray(x, jnp.float64), y)
        expected_value, expected = msam_gradient(
            tanh_mlp, [w.astype(np.float64) for w in weights], x.astype(np.float64), y, sizes, 0.3
        )
        assert float(value) == pytest.approx(expected_value, rel=1e-12)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), b, rtol=1e-9, atol=1e-12)
        model = model.double()
        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3, **cut)
        optimizer.backward(model, torch.from_numpy(x).double(), torch.from_numpy(y), losses)
        for a, b in zip(got, gradients(model), strict=True):
            np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_one_micro_batch_equals_optax_contrib_sam_and_torch(problem, kind):
    model, weights, x, y = problem
    with enable_x64(True):
        make = {"sgd": lambda: optax.sgd(0.1, momentum=0.9), "adam": lambda: optax.adam(0.01)}[kind]
        base = make()
        ours = theirs = [jnp.asarray(w, jnp.float64) for w in weights]
        x64 = jnp.asarray(x, jnp.float64)
        sam = optax.contrib.sam(
            make(),
            optax.contrib.normalize_sgd(0.1)
            if hasattr(optax.contrib, "normalize_sgd")
            else optax.chain(optax.contrib.normalize(), optax.sgd(0.1)),
            opaque_mode=True,
        )
        state, base_state = sam.init(theirs), base.init(ours)
        gradient = msam_value_and_grad(mean_loss, 0.1)
        slope = jax.grad(lambda p, _: mean_loss(p, x64, y))

        @jax.jit
        def step(ours, base_state, theirs, state):
            updates, base_state = base.update(gradient(ours, x64, y)[1], base_state, ours)
            other, state = sam.update(slope(theirs, 0), state, theirs, grad_fn=slope)
            return optax.apply_updates(ours, updates), base_state, optax.apply_updates(theirs, other), state

        model = model.double()
        inner = (
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            if kind == "sgd"
            else torch.optim.Adam(model.parameters(), lr=0.01)
        )
        optimizer = SAM(inner, rho=0.1)
        for _ in range(50):
            ours, base_state, theirs, state = step(ours, base_state, theirs, state)
            optimizer.zero_grad()
            optimizer.backward(model, torch.from_numpy(x).double(), torch.from_numpy(y), losses)
            optimizer.step()
        vector = np.concatenate([np.asarray(p).ravel() for p in ours])
        np.testing.assert_allclose(vector, np.concatenate([np.asarray(p).ravel() for p in theirs]), rtol=0, atol=1e-10)
        np.testing.assert_allclose(vector, flat(model).numpy(), rtol=0, atol=1e-7 if kind == "adam" else 1e-10)


def test_stationary_point_is_finite(problem):
    gradient = msam_value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2), 0.1, micro_batches=2)
    value, slope = gradient(jnp.zeros(3), jnp.ones((4, 3)))
    assert float(value) == 0
    assert np.array_equal(np.asarray(slope), np.zeros(3))


def test_radius_may_be_traced_and_zero_is_the_plain_gradient(problem):
    _, weights, x, y = problem
    params = [jnp.asarray(w) for w in weights]
    gradient = jax.jit(lambda p, rho: msam_value_and_grad(mean_loss, 0.5, micro_batches=5)(p, x, y, rho=rho)[1])
    for a, b in zip(gradient(params, 0.0), jax.grad(mean_loss)(params, x, y), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


def test_sharpness_is_the_same_number_in_torch(problem):
    model, weights, x, y = problem
    ours = micro_batch_sharpness(mean_loss, [jnp.asarray(w) for w in weights], x, y, rho=0.2, micro_batches=3)
    theirs = torch_sharpness(model, torch.from_numpy(x), torch.from_numpy(y), losses, rho=0.2, micro_batches=3)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours > 0


def test_bad_input_is_named(problem):
    _, weights, x, y = problem
    with pytest.raises(SettingsError, match="leading axes"):
        msam_value_and_grad(mean_loss, 0.1)(weights, x, y[:5])
    with pytest.raises(SettingsError, match="rho=-1"):
        msam_value_and_grad(mean_loss, -1)
    with pytest.raises(SettingsError, match="engine='loop'"):
        msam_value_and_grad(mean_loss, 0.1, engine="loop")


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from msam_lawn.jax import msam_value_and_grad
def loss(w, x):
    return jnp.mean(jnp.tanh(x @ w) ** 2)
x, w = jax.random.normal(jax.random.key(0), (16, 5)), jnp.arange(5.0) / 5
mesh = Mesh(np.array(jax.devices()), ("rows",))
local = msam_value_and_grad(loss, 0.3, micro_batches=2, axis_name="rows")
specs = dict(mesh=mesh, in_specs=(P(), P("rows")), out_specs=P())
if hasattr(jax, "shard_map"):
    sharded = jax.jit(jax.shard_map(local, check_vma=False, **specs))
else:  # before JAX 0.7
    from jax.experimental.shard_map import shard_map
    sharded = jax.jit(shard_map(local, check_rep=False, **specs))
assert len(jax.devices()) == 2
for a, b in zip(sharded(w, x), msam_value_and_grad(loss, 0.3, micro_batches=4, engine="vmap")(w, x)):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-6)
compiled = sharded.lower(w, x).compile().as_text()
print("all-reduces:", compiled.count(" all-reduce("))
"""


def test_two_sharded_devices_equal_one_with_twice_the_micro_batches():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # value and gradient together, by one reduction or one each
    assert int(done.stdout.split()[-1]) in (1, 2)


def test_complex_parameters_climb():
    """|w - a|^2 / 2 at w: the gradient's length is |w - a|, and at w + eps it is |w - a| + rho."""
    import jax

    w, a = jnp.array([1 + 2j, 0.5j]), jnp.array([[0.2 - 1j, 1 + 0j]])
    gradient = msam_value_and_grad(lambda w, a: jnp.sum(jnp.abs(w - a) ** 2) / 2, 0.3)
    _, got = gradient(w, a)
    plain = jax.grad(lambda w: jnp.sum(jnp.abs(w - a) ** 2) / 2)(w)
    length = float(jnp.linalg.norm(plain))
    np.testing.assert_allclose(got, plain * (1 + 0.3 / length), rtol=1e-5)


def test_a_short_last_batch():
    gradient = msam_value_and_grad(lambda w, x: jnp.mean((w - x) ** 2) / 2, 0.1, micro_batches=8)
    _, got = gradient(jnp.array(1.0), jnp.array([0.0, 3.0]))
    assert float(got) == pytest.approx((1.1 - 2.1) / 2, abs=1e-6)
