"""What observations settle, against closed forms of Gaussian processes."""

import numpy as np
import pytest

from wlm.core import design
from wlm.core.design import Courses, Disagreement, Price, contest, directions, even_orders, greedy, sketch
from wlm.core.metrics import w2


@pytest.mark.parametrize("dim", [1, 2, 5, 30])
def test_the_distance_of_sketches_is_the_length_of_a_shift(dim):
    rng = np.random.default_rng(0)
    x, shift = rng.normal(size=(70, dim)), rng.normal(size=dim)
    along = directions(dim)
    assert len(along) >= design.N_DIRECTIONS and np.allclose((along**2).sum(1), 1)
    gap = np.linalg.norm(sketch(x + shift, along) - sketch(x, along))
    assert gap == pytest.approx(np.linalg.norm(shift)) == pytest.approx(w2(x, x + shift))


def test_a_sketch_does_not_depend_on_the_order_and_a_batch_is_one_of_each():
    x = np.random.default_rng(0).normal(size=(3, 50, 4))
    along = directions(4)
    assert np.allclose(sketch(x[:, ::-1], along), sketch(x, along))
    assert np.allclose(sketch(x, along)[1], sketch(x[1], along))


def test_sampling_noise_is_that_of_fresh_samples():
    rng, along = np.random.default_rng(0), directions(2)
    population = rng.normal(size=(200_000, 2))
    c = design.sampling_noise(population[:2000], along, rng, n_draws=20)
    for n in (100, 400):
        samples = np.stack([sketch(population[rng.integers(200_000, size=n)], along) for _ in range(200)])
        assert c / n == pytest.approx(samples.var(axis=0, ddof=1).sum(), rel=0.15)


def test_the_covariance_of_courses_is_that_of_their_sketches_and_of_samples_of_them():
    sketches = np.random.default_rng(0).normal(size=(9, 4, 6))
    courses = Courses.of(sketches)

    def direct(s):
        centred = s - s.mean(axis=0)
        return np.einsum("mtf,muf->tu", centred, centred) / (len(s) - 1)

    assert len(courses) == 9 and np.allclose(courses.covariance(), direct(sketches), rtol=1e-4)
    rows = np.array([0, 0, 3, 5, 8, 8, 8])
    assert np.allclose(courses.covariance(rows), direct(sketches[rows]), rtol=1e-4)


def brownian(ends, rates, n=33):
    """A Brownian bridge in each interval, of its own rate: its covariance is known."""
    times = np.unique(np.concatenate([np.linspace(a, b, n) for a, b in zip(ends[:-1], ends[1:], strict=True)]))
    covariance = np.zeros((len(times),) * 2)
    for a, b, rate in zip(ends[:-1], ends[1:], rates, strict=True):
        i = np.flatnonzero((times >= a) & (times <= b))
        s, t = np.meshgrid(times[i], times[i])
        covariance[np.ix_(i, i)] = rate * (np.minimum(s, t) - a) * (b - np.maximum(s, t)) / (b - a)
    half = np.diff(times) / 2
    weights = np.append(half, 0) + np.insert(half, 0, 0)
    return Disagreement(times, covariance, np.full(len(times), 1e-12), weights / weights.sum())


def free(found, n_cells=None):
    return Price(np.zeros(len(found.times)), 0.0, n_cells, 10**6)


def test_what_is_left_of_a_bridge_are_two_bridges():
    found = brownian([0, 1], [2.0])
    k = int(np.argmin(np.abs(found.times - 0.25)))
    left, truth = found.after(k, 1e9), brownian([0, 0.25, 1], [2.0, 2.0], 33)
    assert np.allclose(left.open, np.interp(found.times, truth.times, truth.open), atol=0.02)
    assert left.open[k] == pytest.approx(0, abs=1e-6) and found.mean == pytest.approx(np.sqrt(2) * np.pi / 8, rel=0.01)


def test_noise_of_the_sample_is_left():
    found = brownian([0, 1], [1.0])
    found = Disagreement(found.times, found.covariance, np.full(33, 8.0), found.weights)
    middle = 16
    assert found.half(middle) == pytest.approx(32)
    assert found.after(middle, 32).covariance[middle, middle] == pytest.approx(found.covariance[middle, middle] / 2)
    assert free(found).cells(found, middle) == 288  # nine times as many settle 90 %
    priced = Price(np.full(33, 200.0), 0.5, None, 10**6)
    n = priced.cells(found, middle)
    assert n == np.ceil(np.sqrt(32 * 200 / 0.5))
    settled = [m / (m + 32) / priced.of(middle, m) for m in range(2, 1000)]
    assert 2 + int(np.argmax(settled)) == pytest.approx(n, abs=1), "no other number settles more per cost"
    assert Price(np.zeros(33), 0.0, 7, 10).cells(found, middle) == 7
    lively = Disagreement(found.times, 1e3 * found.covariance, found.noise, found.weights)
    assert free(lively).cells(lively, middle) == design.LEAST
    assert Price(np.zeros(33), 0.0, None, 100).cells(found, middle) == 100, "at most"


def test_the_middle_of_a_bridge_gains_most_then_the_quarters():
    found = brownian([0, 1], [1.0])
    picks = greedy(found, range(1, 32), 3, free(found))
    assert [found.times[pick.k] for pick in picks] == pytest.approx([0.5, 0.25, 0.75]) or [
        found.times[pick.k] for pick in picks
    ] == pytest.approx([0.5, 0.75, 0.25])
    assert picks[0].gain == pytest.approx(found.mean * (1 - np.sqrt(0.5)), rel=0.03)


def test_the_livelier_interval_is_picked_and_a_price_can_change_that():
    found = brownian([0, 1, 2], [1.0, 9.0])
    inside = [k for k, t in enumerate(found.times) if t not in (0, 1, 2)]
    assert found.times[greedy(found, inside, 1, free(found))[0].k] == pytest.approx(1.5)
    dear = Price(np.where(found.times > 1, 10.0, 1.0), 0.0, 100, 10**6)
    assert found.times[greedy(found, inside, 1, dear)[0].k] == pytest.approx(0.5)


def test_even_spacing_takes_the_middle_of_the_longest_gap_in_every_order_of_equal_ones():
    times = np.arange(0, 8.5, 0.5)
    observed, places = np.array([0.0, 2.0, 4.0, 8.0]), [k for k, t in enumerate(times) if t not in (0, 2, 4, 8)]
    assert [times[list(o)].tolist() for o in even_orders(observed, times, places, 1)] == [[6.0]]
    assert {times[list(o)].tolist()[1] for o in even_orders(observed, times, places, 2)} == {1.0, 3.0, 5.0, 7.0}
    assert times[list(even_orders(np.array([0.0, 4.0]), times, [10, 12], 1)[0])].tolist() == [6.0], "past the last"


def test_courses_that_differ_in_one_interval_beat_even_spacing_and_like_ones_do_not():
    rng = np.random.default_rng(0)
    for rates, better in (([1.0, 16.0], True), ([1.0, 1.0], False)):
        truth = brownian([0, 1, 2], rates, 9)
        root = np.linalg.cholesky(truth.covariance + 1e-9 * np.eye(17))
        courses = Courses.of(np.einsum("tu,mfu->mtf", root, rng.normal(size=(48, 20, 17))) / np.sqrt(20))
        found = Disagreement(truth.times, courses.covariance(), truth.noise, truth.weights)
        places = [k for k in range(17) if k not in (0, 8, 16)]
        result, drawn = contest(
            *(found, courses, np.array([0.0, 1.0, 2.0]), places, 1, free(found)), scale=1.0, n_boot=60, seed=0
        )
        assert result.better is better and result.low < result.value < result.high and drawn.shape == (60, 17)
