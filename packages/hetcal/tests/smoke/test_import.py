"""What the installed wheel must be able to do with its declared dependencies alone."""

import importlib.metadata
import subprocess
import sys

import hetcal
import numpy as np


def test_import_and_version() -> None:
    assert importlib.metadata.version("hetcal") == "0.1.0"
    assert hetcal.__all__ == sorted(hetcal.__all__)
    assert all(getattr(hetcal, name) is not None for name in hetcal.__all__)


def test_fit_save_score(tmp_path) -> None:
    rng = np.random.default_rng(0)
    X, z = rng.normal(size=(3000, 2)), rng.normal(size=3000)
    y = rng.random(3000) < 1 / (1 + np.exp(-z - 2 * np.sign(X[:, 0])))
    for way in ("tree", "bag"):
        model = hetcal.HeterogeneousCalibrator(way).fit(X, y, logits=z)
        assert model.selection_.chosen == way
        scorer = hetcal.load(hetcal.save(model, tmp_path / f"{way}.json"))
        expected = model.predict_proba(X, logits=z)[:, 1]
        np.testing.assert_allclose(scorer.predict_proba(X, logits=z), expected, atol=1e-12)


def test_torch_is_not_needed() -> None:
    program = "import sys, hetcal; hetcal.HeterogeneousCalibrator; assert not {'torch', 'lightgbm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
