"""The losses of USRGAN: who wants what from whom, and what stands still meanwhile."""

import math

import pytest
import torch
from torch.nn import functional as F

from pipeline.training.features import features_of, random_features
from pipeline.training.objectives import Adversary, Discriminator, Pixels
from pipeline.training.recipe import Gan

GAN = Gan(width=4, learning_rate=1e-3)


def adversary(gan: Gan = GAN) -> Adversary:
    return Adversary(gan, features_of(random_features()), torch.device("cpu"), seed=0)


def images(seed: int) -> torch.Tensor:
    return torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(seed))


def test_the_pixel_loss_is_l1_and_learns_nothing() -> None:
    terms = Pixels().terms(images(0), images(1))
    assert list(terms) == ["l1"]
    torch.testing.assert_close(terms["l1"], (images(0) - images(1)).abs().mean())
    assert Pixels().learn(images(0), images(1), 1.0) == {}


def test_what_equals_the_original_costs_only_the_coin_toss_of_the_discriminator() -> None:
    terms = adversary().terms(images(0), images(0))
    assert terms["l1"] == 0
    assert terms["perceptual"] == 0
    assert float(terms["adversarial"]) / 0.005 == pytest.approx(math.log(2), rel=0.05)


def test_the_adversarial_loss_is_the_relativistic_average_of_both_sides() -> None:
    judge = adversary()
    judge.discriminator.eval()
    sr, hr = images(0), images(1)
    fake, real = judge.discriminator(sr), judge.discriminator(hr)
    up = F.binary_cross_entropy_with_logits(fake - real.mean(), torch.ones(4))
    down = F.binary_cross_entropy_with_logits(real - fake.mean(), torch.zeros(4))
    torch.testing.assert_close(judge.terms(sr, hr)["adversarial"], 0.005 * (up + down) / 2)


def test_terms_are_weighted() -> None:
    plain, heavy = (adversary(gan).terms(images(0), images(1)) for gan in (GAN, Gan(2, 3, 0.05, width=4)))
    for name, factor in (("l1", 2), ("perceptual", 3), ("adversarial", 10)):
        torch.testing.assert_close(heavy[name], factor * plain[name])


def test_the_networks_terms_leave_the_discriminator_alone() -> None:
    judge = adversary()
    before = {key: value.clone() for key, value in judge.discriminator.state_dict().items()}
    sr = images(0).requires_grad_()
    torch.stack(list(judge.terms(sr, images(1)).values())).sum().backward()
    assert sr.grad is not None
    assert all(weight.grad is None for weight in judge.discriminator.parameters())
    assert all(torch.equal(before[key], value) for key, value in judge.discriminator.state_dict().items())
    assert all(weight.requires_grad for weight in judge.discriminator.parameters())


def test_the_discriminator_learns_to_tell_and_the_networks_loss_rises() -> None:
    judge, sr, hr = adversary(Gan(width=8, learning_rate=5e-3)), 0.5 * images(0), images(1)
    before = float(judge.terms(sr, hr)["adversarial"])
    losses = [float(judge.learn(sr, hr, 1.0)["discriminator"]) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    assert float(judge.terms(sr, hr)["adversarial"]) > before


def test_it_learns_at_the_rate_it_is_told() -> None:
    judge = adversary()
    judge.learn(images(0), images(1), 0.5)
    assert judge.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)


def test_no_logit_depends_on_the_rest_of_the_batch() -> None:
    judge = Discriminator(4).eval()
    torch.testing.assert_close(judge(images(0))[:2], judge(images(0)[:2]))
