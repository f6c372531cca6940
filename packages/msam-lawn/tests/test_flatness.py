import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from msam_lawn import SettingsError
from msam_lawn.jax import hessian_product
from msam_lawn.lanczos import top_eigenvalues
from msam_lawn.torch import HessianProduct, micro_batch_sharpness
from msam_lawn.trace import trace
from msam_lawn_cases import case, losses
from scipy.sparse.linalg import LinearOperator, eigsh

# its place in JAX before 0.8
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64


@pytest.fixture(scope="module")
def dense():
    """A small net's Hessian, column by column, and its product."""
    model, x, y, _ = case("tanh_mlp")
    product = HessianProduct(model, x, y, losses)
    weights = [w.detach() for w in model.parameters()]
    shapes = [w.shape for w in weights]

    def loss(vector):
        parts = [p.reshape(s) for p, s in zip(vector.split([s.numel() for s in shapes]), shapes, strict=True)]
        return losses(torch.tanh(x @ parts[0].T + parts[1]) @ parts[2].T + parts[3], y).mean()

    H = torch.autograd.functional.hessian(loss, torch.cat([w.reshape(-1) for w in weights])).numpy()
    return H, product, (model, x, y)


def test_products_equal_the_dense_hessian(dense):
    H, product, (model, x, y) = dense
    v = np.random.default_rng(0).standard_normal(product.size)
    np.testing.assert_allclose(product(v), H @ v, rtol=1e-10, atol=1e-12)
    chunked = HessianProduct(model, x, y, losses, chunk_rows=3)
    np.testing.assert_allclose(chunked(v), H @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("which", ["largest", "magnitude"])
def test_top_five_against_dense(dense, which):
    H, product, _ = dense
    H = H - 0.5 * np.eye(len(H))  # indefinite: the two orders differ
    found = top_eigenvalues(lambda v: product(v) - 0.5 * v, product.size, 5, which=which, max_products=40)
    values = np.linalg.eigvalsh(H)
    order = np.argsort(-np.abs(values) if which == "magnitude" else -values)[:5]
    np.testing.assert_allclose(found.values, values[order], rtol=0, atol=1e-4 * abs(values[order[0]]))
    assert found.products <= 40
    assert found.converged


def test_trace_is_within_three_standard_errors(dense):
    H, product, _ = dense
    found = trace(product, product.size, relative_error=0.05, max_probes=2000)
    assert abs(found.estimate - np.trace(H)) <= 3 * found.standard_error
    assert found.standard_error <= 0.05 * abs(found.estimate)


def test_jax_products_equal_torchs(dense):
    H, _, (model, x, y) = dense
    with enable_x64(True):
        params = [jnp.asarray(w.detach().numpy()) for w in model.parameters()]

        def loss(p, x, y):
            logits = jnp.tanh(x @ p[0].T + p[1]) @ p[2].T + p[3]
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(x.shape[0]), y])

        product, size = hessian_product(loss, params, jnp.asarray(x.numpy()), jnp.asarray(y.numpy()))
        v = np.random.default_rng(0).standard_normal(size)
        np.testing.assert_allclose(product(v), H @ v, rtol=1e-9, atol=1e-12)


def test_sharpness_grows_with_more_ascent_steps_and_smaller_micro_batches(dense):
    _, _, (model, x, y) = dense
    one = micro_batch_sharpness(model, x, y, losses, rho=0.3)
    assert one > 0
    assert micro_batch_sharpness(model, x, y, losses, rho=0.3, ascent_steps=10) >= one - 1e-9
    assert micro_batch_sharpness(model, x, y, losses, rho=0.3, micro_batches=10) > one
    with pytest.raises(SettingsError, match="ascent_steps=0"):
        micro_batch_sharpness(model, x, y, losses, rho=0.3, ascent_steps=0)


TAIL = 0.5 * np.linspace(-1, 1, 94)
SPECTRA = {
    "decaying": 1 / (1 + np.arange(100.0)),
    "clusters": np.r_[1, 1 - 1e-6, 0.9, 0.9 - 1e-5, 0.8, 0.8 - 1e-7, TAIL],
    "fifth and sixth close": np.r_[1, 0.9, 0.8, 0.7, 0.6, 0.59, TAIL],
    "negative end larger": np.r_[-3, -2.9, 2.5, 1, 0.9, 0.8, TAIL],
    "no gap": np.cos(np.pi * (np.arange(60) + 0.3) / 60),
    "low rank": np.r_[5, 4, 3, 2, 1, np.zeros(95)],
}


def rotated(spectrum, seed):
    size = len(spectrum)
    vectors, _ = np.linalg.qr(np.random.default_rng(10 + seed).standard_normal((size, size)))
    return (vectors * spectrum) @ vectors.T


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("which", ["largest", "magnitude"])
@pytest.mark.parametrize("name", SPECTRA)
def test_reported_errors_hold(name, which, seed):
    spectrum = SPECTRA[name]
    A = rotated(spectrum, seed)
    found = top_eigenvalues(lambda v: A @ v, len(A), 5, which=which, tolerance=1e-4, max_products=100, seed=seed)
    exact = spectrum[np.argsort(-(np.abs(spectrum) if which == "magnitude" else spectrum), kind="stable")][:5]
    assert found.converged
    rounding = 1e-13 * np.abs(spectrum).max()
    assert np.all(np.abs(np.abs(found.values) - np.abs(exact)) <= found.errors + rounding)
    assert np.all(found.errors <= 1e-4 * np.abs(found.values) + rounding)


def test_a_value_with_a_hidden_twin_is_within_its_residual():
    # .6 and .5999 look like one value to a dozen products: what holds without condition is that some eigenvalue is near
    spectrum = np.r_[1, 0.9, 0.8, 0.7, 0.6, 0.5999, TAIL]
    for seed in range(3):
        A = rotated(spectrum, seed)
        found = top_eigenvalues(lambda v, A=A: A @ v, 100, 5, seed=seed)
        nearest = np.abs(found.values[:, None] - spectrum).min(1)
        assert np.all(nearest <= found.residuals + 1e-13)


def test_a_trained_digits_nets_five_take_few_products():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.Tanh(), torch.nn.Linear(24, 10))
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        losses(model(x), y).mean().backward()
        optimizer.step()
    model, x = model.double(), x[:300].double()
    product = HessianProduct(model, x, y[:300], losses)
    operator = LinearOperator((product.size, product.size), matvec=product, dtype=np.float64)
    exact = np.sort(eigsh(operator, k=5, which="LA", tol=0, return_eigenvectors=False))[::-1]
    found = top_eigenvalues(product, product.size, 5)
    assert product.size == 1810
    assert found.converged
    assert found.products <= 25  # the issue allows 40
    assert np.all(np.abs(found.values / exact - 1) <= 1e-4)
    assert np.all(np.abs(found.values - exact) <= found.errors + 1e-12)


def test_a_spectrum_with_repeats_and_a_tiny_matrix():
    found = top_eigenvalues(lambda v: 2.0 * v, 4, 3)
    np.testing.assert_allclose(found.values, [2.0, 2.0, 2.0])
    with pytest.raises(SettingsError, match="k=5"):
        top_eigenvalues(lambda v: v, 4, 5)
    with pytest.raises(SettingsError, match="product 1 is not finite"):
        top_eigenvalues(lambda v: v * np.nan, 4, 1)
