"""Heads in closed form against fits that leave one image out."""

from __future__ import annotations

import pytest
import torch

from vimlight.errors import ConfigError, DataError, UnknownNameError
from vimlight.tasks import SOLVERS, create_task
from vimlight.tasks.closed_form import standardise

CASES = pytest.mark.parametrize(("count", "width", "classes"), [(30, 100, 3), (60, 20, 4)], ids=["wide", "tall"])
SOLVER = pytest.mark.parametrize("solver", list(SOLVERS))


def blobs(count, width, classes, spread=0.6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = spread * torch.randn(classes, width, generator=generator)
    targets = torch.arange(count) % classes
    features = centres[targets] + torch.randn(count, width, generator=generator)
    # Neither centred nor of one scale.
    return features * torch.linspace(0.1, 5, width) + 3, targets


def one_hot(targets, classes):
    return torch.nn.functional.one_hot(targets, classes).double()


def refit_ridge(x, y, image, strength):
    penalty = strength * x.square().sum(dim=1).mean()
    keep = torch.arange(len(x)) != image
    mean, centre = x[keep].mean(dim=0), y[keep].mean(dim=0)
    centred = x[keep] - mean
    inverse = torch.linalg.inv(centred.T @ centred + penalty * torch.eye(x.shape[1]).double())
    return (x[image] - mean) @ inverse @ centred.T @ (y[keep] - centre) + centre


def refit_lda(x, y, image, strength):
    within = x - y @ ((y.T @ x) / y.sum(dim=0)[:, None])
    # The mean eigenvalue over the dimensions that the images span, of all images.
    penalty = strength * within.square().sum() / len(x) / min(x.shape)
    keep = torch.arange(len(x)) != image
    means = (y[keep].T @ x[keep]) / y[keep].sum(dim=0)[:, None]
    rest = x[keep] - y[keep] @ means
    # The solver divides by the number of all images, left out or not.
    precision = torch.linalg.inv(rest.T @ rest / len(x) + (penalty + 1e-9) * torch.eye(x.shape[1]).double())
    return means @ precision @ x[image] - 0.5 * ((means @ precision) * means).sum(dim=1) + 0.5


REFITS = {"ridge": refit_ridge, "lda": refit_lda}


@SOLVER
@CASES
def test_left_out_scores_are_those_of_fits_without_the_image(solver, count, width, classes):
    features, targets = blobs(count, width, classes)
    y = one_hot(targets, classes)
    solution = SOLVERS[solver](features, y)
    x = (features.double() - solution.mean) / solution.scale
    expected = torch.stack([REFITS[solver](x, y, image, solution.strength) for image in range(count)])
    torch.testing.assert_close(solution.left_out, expected, rtol=1e-6, atol=1e-6)


@CASES
def test_rows_of_one_image_are_left_out_together(count, width, classes):
    features, targets = blobs(count, width, classes)
    y = one_hot(targets, classes)
    # Images of one to four rows, neither in order nor side by side.
    images = torch.arange(count)[torch.randperm(count, generator=torch.Generator().manual_seed(1))] // 4 * 7
    images[:3] = 1000 + torch.arange(3)
    leaf = features.clone().requires_grad_()
    solution = SOLVERS["ridge"](leaf, y, images=images)
    x = (features.double() - solution.mean) / solution.scale
    penalty = solution.strength * x.square().sum(dim=1).mean()
    for image in images.unique():
        keep = images != image
        mean, centre = x[keep].mean(dim=0), y[keep].mean(dim=0)
        centred = x[keep] - mean
        inverse = torch.linalg.inv(centred.T @ centred + penalty * torch.eye(width).double())
        expected = (x[~keep] - mean) @ inverse @ centred.T @ (y[keep] - centre) + centre
        torch.testing.assert_close(solution.left_out[~keep].detach(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(solution.loss, (solution.left_out - y).square().mean())
    solution.loss.backward()
    assert leaf.grad.abs().sum() > 0


def test_positions_of_one_image_cannot_vouch_for_each_other():
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(20).repeat_interleave(8)
    # Features that tell the images apart and nothing else, and one answer for all rows of an image.
    features = torch.randn(20, 40, generator=generator)[images] + 0.1 * torch.randn(160, 40, generator=generator)
    y = torch.randn(20, 1, generator=generator).double()[images]
    assert SOLVERS["ridge"](features, y).loss < 0.2 * y.var()
    assert SOLVERS["ridge"](features, y, images=images).loss > 0.9 * y.var()


@SOLVER
@CASES
def test_the_strength_with_the_least_left_out_error_is_taken(solver, count, width, classes):
    features, targets = blobs(count, width, classes)
    y = one_hot(targets, classes)
    losses = {strength: float(SOLVERS[solver](features, y, [strength]).loss) for strength in (1e-3, 1e-1, 1e1, 1e3)}
    chosen = SOLVERS[solver](features, y, list(losses))
    assert chosen.strength == min(losses, key=losses.get)
    torch.testing.assert_close(float(chosen.loss), min(losses.values()), rtol=1e-6, atol=1e-9)


@SOLVER
def test_the_solution_is_the_head_it_says(solver):
    features, targets = blobs(80, 30, 4, spread=1.0)
    solution = SOLVERS[solver](features, one_hot(targets, 4))
    scores = ((features.double() - solution.mean) / solution.scale) @ solution.weight.T + solution.bias
    assert (scores.argmax(dim=1) == targets).float().mean() > 0.95
    assert (solution.left_out.argmax(dim=1) == targets).float().mean() > 0.85
    # The fit on all images and those without one of them agree but for that image's influence.
    assert (scores - solution.left_out).abs().median() < 0.5 * scores.std()


@SOLVER
@CASES
def test_the_gradient_is_that_of_finite_differences(solver, count, width, classes):
    features, targets = blobs(count, width, classes)
    features, y = features.double(), one_hot(targets, classes)
    strength = [SOLVERS[solver](features, y).strength]
    leaf = features.clone().requires_grad_()
    SOLVERS[solver](leaf, y, strength).loss.backward()
    for seed in range(3):
        direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(seed)).double()
        direction *= features.std(dim=0)
        # The unit that the strength multiplies is held fixed, as the strength itself is.
        ahead, behind = (
            float(_loss(solver, features + h * direction, y, features, strength[0])) for h in (1e-5, -1e-5)
        )
        slope = float((leaf.grad * direction).sum())
        assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-3, abs=1e-7)


def _loss(solver, features, y, origin, strength):
    """The loss with the penalty that the strength means at the origin."""
    units = [_unit(solver, standardise(x)[0], y) for x in (origin, features)]
    return SOLVERS[solver](features, y, [strength * float(units[0] / units[1])]).loss


def _unit(solver, x, y):
    if solver == "lda":
        x = x - y @ ((y.T @ x) / y.sum(dim=0)[:, None])
        return x.square().sum() / len(x) / min(x.shape)
    return x.square().sum(dim=1).mean()


@SOLVER
def test_one_shift_and_scale_of_all_features_changes_nothing(solver):
    features, targets = blobs(40, 12, 4)
    y = one_hot(targets, 4)
    first, second = SOLVERS[solver](features, y), SOLVERS[solver](features * 1e-4 - 7e-3, y)
    assert first.strength == second.strength
    torch.testing.assert_close(first.left_out, second.left_out, rtol=1e-3, atol=1e-3)


@SOLVER
def test_features_that_never_move_do_no_harm(solver):
    features, targets = blobs(40, 12, 4)
    y = one_hot(targets, 4)
    still = torch.cat([features, torch.full((40, 3), 2.5)], dim=1)
    with_still, without = SOLVERS[solver](still, y).left_out, SOLVERS[solver](features, y).left_out
    assert (with_still.argmax(dim=1) == without.argmax(dim=1)).float().mean() > 0.9
    assert torch.isfinite(SOLVERS[solver](torch.ones(40, 5), y).weight).all()


def test_ridge_takes_several_labels_an_image():
    features, targets = blobs(60, 20, 4)
    y = torch.stack([targets % 2, targets // 2, torch.ones_like(targets)], dim=1).double()
    solution = SOLVERS["ridge"](features, y)
    assert ((solution.left_out[:, :2] > 0.5) == y[:, :2].bool()).float().mean() > 0.8
    torch.testing.assert_close(solution.left_out[:, 2], y[:, 2])


def test_what_cannot_be_fitted_is_said():
    features, targets = blobs(8, 5, 4)
    y = one_hot(targets, 4)
    with pytest.raises(DataError, match="at least 2 images, got 1"):
        SOLVERS["ridge"](features[:1], y[:1])
    with pytest.raises(DataError, match="at least 2 images, got 1"):
        SOLVERS["ridge"](features, y, images=torch.zeros(8))
    with pytest.raises(ConfigError, match="exactly one label an image; use 'ridge'"):
        SOLVERS["lda"](features, torch.ones_like(y))
    with pytest.raises(ConfigError, match="'lda' needs one example an image; use 'ridge'"):
        SOLVERS["lda"](features, y, images=torch.zeros(8))
    with pytest.raises(DataError, match="of class 3 it got 1"):
        SOLVERS["lda"](features[:7], y[:7])
    features[5, 2] = float("nan")
    for solve in SOLVERS.values():
        with pytest.raises(DataError, match="features of image 5 are not finite"):
            solve(features, y)
    with pytest.raises(UnknownNameError, match="closed-form head 'ridg'; did you mean 'ridge'"):
        SOLVERS["ridg"]


def test_a_solver_from_outside_the_package_fits_a_head():
    from vimlight.tasks import AffineHead, Solution

    @SOLVERS.register("constant")
    def constant(features, targets, strengths=None, *, images=None):
        mean = targets.double().mean(dim=0)
        zeros = torch.zeros(targets.shape[1], features.shape[1])
        left_out = mean.expand(len(features), -1)
        loss = (left_out - targets).square().mean()
        return Solution(zeros, mean, torch.zeros(5), torch.ones(5), 1.0, left_out, loss)

    try:
        head, task = AffineHead(5, 3), create_task("classification", ["a", "b", "c"])
        features, targets = blobs(9, 5, 3)
        head.fit(features, torch.zeros_like(targets), task, "constant")
        assert (head(features).argmax(dim=1) == 0).all()
    finally:
        del SOLVERS._entries["constant"]
