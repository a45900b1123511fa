"""The process against scikit-learn's, its gradient against differences, and what unseen and noisier points do."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

from lkspace.search import gaussian_process
from lkspace.search.gaussian_process import GaussianProcess, _loss, _priors


def data(n: int = 60, d: int = 4, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, d])
    x = rng.uniform(size=(n, d))
    return x, 3 + 2 * np.sin(3 * x[:, 0]) + x[:, 1] ** 2 + noise * rng.normal(size=n)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_gradient_is_the_slope(shift):
    x, y = data(25)
    theta = _priors(4)[0] + shift
    extra = np.linspace(0, 1, 25)
    slope = approx_fprime(theta, lambda t: _loss(t, x, y - y.mean(), extra)[0], 1e-6)
    assert _loss(theta, x, y - y.mean(), extra)[1] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_predictions_are_scikit_learns_at_the_same_hyperparameters():
    x, y = data()
    extra = np.linspace(0, 0.3, len(y))
    process = GaussianProcess(x, y, rng(), extra)
    theta, d = process._theta, x.shape[1]
    kernel = ConstantKernel(np.exp(theta[-3])) * Matern(np.exp(theta[:d]), nu=2.5) + ConstantKernel(
        np.exp(theta[-2]) / d
    ) * DotProduct(0.0)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    noise = np.exp(theta[-1]) + extra / y.var()
    other = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    other.fit((x - mean) / scale, (y - y.mean()) / y.std())
    places = data(30)[0]
    expected, deviation = other.predict((places - mean) / scale, return_std=True)
    found = process.predict(places)
    assert found[0] == pytest.approx(expected * y.std() + y.mean(), rel=1e-5)
    assert found[1] == pytest.approx(deviation * y.std(), rel=1e-4)


def test_it_learns_the_function_and_the_noise():
    x, y = data(150, noise=0.2)
    process = GaussianProcess(x, y, rng())
    places = data(100, noise=0.0)[0]
    mean, deviation = process.predict(places)
    truth = 3 + 2 * np.sin(3 * places[:, 0]) + places[:, 1] ** 2
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.1
    assert 0.12 < process.noise < 0.3
    assert np.mean(np.abs(mean - truth) < 2 * deviation) > 0.85


def test_what_is_on_its_way_keeps_the_mean_and_takes_uncertainty():
    x, y = data()
    place = np.full((1, 4), 0.5)
    alone, awaited = GaussianProcess(x, y, rng()), GaussianProcess(x, y, rng(), unseen=place)
    assert awaited.predict(x)[0] == pytest.approx(alone.predict(x)[0])
    assert awaited.predict(place)[1] < alone.predict(place)[1]


def test_a_noisier_point_is_believed_less():
    x, y = data(30)
    y[0] += 3.0
    extra = np.zeros(30)
    trusting = GaussianProcess(x, y, rng(), extra).predict(x[:1])[0]
    extra[0] = 100.0
    assert GaussianProcess(x, y, rng(), extra).predict(x[:1])[0] < trusting - 0.3


@pytest.mark.parametrize("n", [1, 2, 5])
def test_constant_values_and_few_points_do_no_harm(n):
    x = np.zeros((n, 3))
    mean, deviation = GaussianProcess(x, np.full(n, 7.0), rng()).predict(np.ones((2, 3)))
    assert mean == pytest.approx([7.0, 7.0])
    assert np.isfinite(deviation).all()


def test_many_points_are_fitted_on_some_and_used_all(monkeypatch):
    monkeypatch.setattr(gaussian_process, "FITTED", 40)
    x, y = data(200, noise=0.01)
    first, second = GaussianProcess(x, y, rng()), GaussianProcess(x, y, rng())
    assert first.predict(x)[0] == pytest.approx(y, abs=0.2)
    assert np.array_equal(first.predict(x), second.predict(x))
