"""Effect_D: what a demonstration does to the log-probability of the answer."""

import numpy as np
import pytest
import torch

from methods.lrgd.check import random_model
from methods.lrgd.effect import Shown, exact_effects, first_order_effects
from methods.lrgd.record import record


def shown(demonstrations: int = 4, size: int = 6) -> Shown:
    """Four tokens of instruction, demonstrations, five of the query, an answer of two."""
    rng = np.random.default_rng(5)
    owner = np.concatenate([np.full(4, -1), np.repeat(np.arange(demonstrations), size), np.full(7, -1)])
    return Shown(rng.integers(500, size=len(owner)), owner, answer=2)


def log_probability(model, ids: np.ndarray, positions: np.ndarray, answer: int) -> float:
    with torch.no_grad():
        # Without a mask the library takes a gap in the positions for the start of another sequence.
        logits = model(
            torch.tensor(ids)[None],
            attention_mask=torch.ones(1, len(ids)),
            position_ids=torch.tensor(positions)[None],
            use_cache=False,
        ).logits[0]
    logp = logits.double().log_softmax(-1)
    return sum(float(logp[len(ids) - n - 1, ids[-n]]) for n in range(answer, 0, -1))


def test_the_exact_effect_is_that_of_leaving_the_tokens_out(decoder):
    prompt = shown()
    everywhere = np.arange(len(prompt.ids))
    plain = log_probability(decoder, prompt.ids, everywhere, 2)
    expected = []
    for number in range(4):
        kept = prompt.owner != number
        # The same tokens, gone from the prompt: positions of the others stay.
        expected.append(plain - log_probability(decoder, prompt.ids[kept], everywhere[kept], 2))
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(exact_effects(decoder, prompt), expected, atol=1e-5)


def test_batches_of_variants_do_not_change_the_effects(decoder):
    np.testing.assert_allclose(exact_effects(decoder, shown(), batch=2), exact_effects(decoder, shown()), atol=1e-5)


def test_the_first_order_update_is_the_slope_of_the_loss_along_the_update(decoder):
    """A numerical derivative: every head's output moved a little against Delta W_D phi(q)."""
    from methods.lm.attention import installed
    from methods.lrgd.record import recording_attention

    prompt = shown()
    tokens = torch.tensor(prompt.owner == 1)
    ids = torch.tensor(prompt.ids)[None]

    def moved(amount: float):
        def attention(module, query, key, value, attention_mask=None, **options):
            traces = []
            output, _ = recording_attention(module, query, key, value, attention_mask, traces=traces, **options)
            (trace,) = traces
            products = (trace.query @ trace.key.transpose(-1, -2) * trace.scaling).masked_fill(
                ~trace.visible[:, None], float("-inf")
            )
            update = ((products.softmax(-1) * tokens) @ trace.value).transpose(1, 2)
            # Only this layer's own change counts: what it does to later layers is in their queries and keys.
            update = torch.where(tokens[None, :, None, None], 0.0, update.detach())
            return output - amount * update, None

        with torch.no_grad(), installed(decoder, "moved", attention):
            logits = decoder(ids, use_cache=False).logits[0].log_softmax(-1)
        return sum(float(logits[len(prompt.ids) - n - 1, prompt.ids[-n]]) for n in (1, 2))

    # Norms of the library work in single precision: a smaller step would drown in rounding.
    slope = (moved(-3e-3) - moved(3e-3)) / 6e-3
    assert abs(slope) > 1e-4
    assert first_order_effects(decoder, prompt, "update")[1] == pytest.approx(slope, rel=0.01, abs=1e-4)


def test_a_demonstration_nobody_attends_to_has_no_effect():
    model = random_model("llama").double()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.zero_()
    for effects in (
        exact_effects(model, shown()),
        *(first_order_effects(model, shown(), o) for o in ("removal", "update")),
    ):
        np.testing.assert_allclose(effects, 0, atol=1e-9)


def test_removal_at_first_order_agrees_with_the_exact_effect_for_weak_attention():
    """With small values the network is close to linear in what attention adds."""
    model = random_model("llama").double()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(1e-3)
    prompt = shown(demonstrations=6)
    np.testing.assert_allclose(first_order_effects(model, prompt), exact_effects(model, prompt), rtol=0.05, atol=1e-5)


def test_effects_leave_no_gradient_in_the_model(decoder):
    first_order_effects(decoder, shown())
    assert all(parameter.grad is None for parameter in decoder.parameters())


def test_recording_refuses_cached_keys(decoder):
    from methods.lrgd.record import recording_attention

    query, key = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="use no cache"):
        recording_attention(torch.nn.Identity(), query, key, key, traces=[])
    assert len(record(decoder, torch.tensor([[1, 2]]))[0]) == 3
