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
    with jax.enable_x64(True):
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


def test_a_spectrum_with_repeats_and_a_tiny_matrix():
    found = top_eigenvalues(lambda v: 2.0 * v, 4, 3)
    np.testing.assert_allclose(found.values, [2.0, 2.0, 2.0])
    with pytest.raises(SettingsError, match="k=5"):
        top_eigenvalues(lambda v: v, 4, 5)
    with pytest.raises(SettingsError, match="product 1 is not finite"):
        top_eigenvalues(lambda v: v * np.nan, 4, 1)
