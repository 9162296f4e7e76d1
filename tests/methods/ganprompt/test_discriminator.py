"""The discriminator learns to tell classes apart, and the generator's loss leaves it alone."""

import torch

from methods.ganprompt.discriminator import Discriminator, make_discriminator


def discriminator(seed: int = 0) -> Discriminator:
    return Discriminator(8, 3, 16, 1e-2, seed, device=torch.device("cpu"))


def embeddings(users: int = 40) -> torch.Tensor:
    """Classes with different means; users differ, too."""
    torch.manual_seed(0)
    means = torch.randn(3, 8)
    return torch.randn(users, 1, 8) * 0.3 + means + 0.1 * torch.randn(users, 3, 8)


def test_it_has_three_layers_over_the_classes() -> None:
    layers = [m for m in make_discriminator(8, 6, 16) if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(8, 16), (16, 16), (16, 6)]


def test_it_learns_to_tell_classes_apart() -> None:
    game, shown = discriminator(), embeddings()
    first, accuracy = game.learn(shown)
    assert accuracy < 0.8
    for _ in range(60):
        last, accuracy = game.learn(shown)
    assert accuracy > 0.95 and last < first / 3


def test_learning_gives_the_generator_no_gradient() -> None:
    shown = embeddings().requires_grad_()
    discriminator().learn(shown)
    assert shown.grad is None


def test_the_loss_has_a_gradient_for_the_generator_and_none_for_the_discriminator() -> None:
    game, shown = discriminator(), embeddings().requires_grad_()
    before = [p.clone() for p in game.network.parameters()]
    game.loss(shown).backward()
    assert float(shown.grad.abs().sum()) > 0
    assert all(p.grad is None and torch.equal(p, q) for p, q in zip(game.network.parameters(), before, strict=True))


def test_larger_embeddings_are_no_easier() -> None:
    game, shown = discriminator(), embeddings()
    torch.testing.assert_close(game.loss(shown), game.loss(shown * 100), atol=1e-3, rtol=0)


def test_the_same_seed_gives_the_same_discriminator_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    game, again, other = (list(discriminator(seed).network.parameters()) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(map(torch.equal, game, again)) and not any(map(torch.equal, game, other))
