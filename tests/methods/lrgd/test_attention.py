"""The changed step in the model is the changed step of the dual model."""

import numpy as np
import pytest
import torch

from methods.lm.attention import NAME, Tree, installed, tree_attention
from methods.lm.layout import Group
from methods.lm.prompts import common_prefix
from methods.lrgd.attention import Material, Step, Strength, mean_values, shape, step_attention, step_implementation
from methods.lrgd.dual import Dual, perturbed
from methods.lrgd.packed import Packed
from methods.lrgd.record import record

EXACT = {"atol": 1e-10, "rtol": 0.0}
DEMONSTRATION = torch.arange(40).sub(5).lt(23) & torch.arange(40).ge(5)


def material(model) -> Material:
    negative = torch.randn(shape(model)[0], *shape(model)[1:], generator=torch.Generator().manual_seed(1))
    return Material.of(model, 64, negative.to(model.dtype))


def step(model, strength: Strength, tokens=DEMONSTRATION, positions=None) -> Step:
    positions = torch.arange(len(tokens)) if positions is None else positions
    return Step(tokens[None], positions[None], strength, material(model))


def changed(model, ids, strength: Strength, **options) -> torch.Tensor:
    with torch.no_grad(), step_implementation(model):
        states = model.base_model(ids, use_cache=False, step=step(model, strength, **options))
    return states.last_hidden_state


def first_layer(model, ids, strength: Strength):
    """The recorded first layer, and what the changed attention gives for its inputs."""
    with torch.no_grad():
        trace = record(model, ids)[0][0]
        module = next(m for m in model.modules() if getattr(m, "layer_idx", None) == 0 and hasattr(m, "scaling"))
        keys, values = (states[:, :: trace.repeats] for states in (trace.key, trace.value))
        output, _ = step_attention(
            module, trace.query, keys, values, None, step=step(model, strength), scaling=trace.scaling
        )
    return trace, output.transpose(1, 2)


def test_without_strength_the_model_is_the_plain_one_bit_for_bit(decoder, ids):
    with torch.no_grad():
        plain = decoder.base_model(ids, use_cache=False).last_hidden_state
    assert torch.equal(changed(decoder, ids, Strength()), plain)
    for strength in (Strength(alpha=0.2), Strength(beta=0.2), Strength(eps=0.2)):
        assert (changed(decoder, ids, strength) - plain).abs().max() > 1e-3


def test_regularised_attention_is_the_regularised_dual_model(decoder, ids):
    trace, output = first_layer(decoder, ids, Strength(alpha=0.3))
    dual = Dual.of_trace(trace)
    torch.testing.assert_close(dual.apply(dual.regularised(DEMONSTRATION, 0.3)), output, **EXACT)


def test_contrasted_attention_is_the_contrasted_dual_model(decoder, ids):
    trace, output = first_layer(decoder, ids, Strength(beta=0.7))
    dual = Dual.of_trace(trace)
    negative = material(decoder).negative[0].repeat_interleave(trace.repeats, dim=0)[None]
    torch.testing.assert_close(dual.apply(dual.contrasted(DEMONSTRATION, 0.7, negative)), output, **EXACT)


def test_perturbed_attention_is_the_perturbed_dual_model(decoder, ids):
    trace, output = first_layer(decoder, ids, Strength(eps=0.5))
    noise = material(decoder).noise[0][:, :40].repeat_interleave(trace.repeats, dim=0)[None]
    noise = 0.5 * trace.key.norm(dim=-1, keepdim=True) * trace.key.shape[-1] ** -0.5 * noise
    dual = perturbed(trace.query, trace.key, trace.value, trace.visible[:, None], trace.scaling, noise, DEMONSTRATION)
    plain = dual.start(DEMONSTRATION) + dual.update(DEMONSTRATION)
    torch.testing.assert_close(dual.apply(plain), output, **EXACT)
    assert (output - trace.output.transpose(1, 2)).abs().max() > 1e-3


@pytest.mark.parametrize("strength", [Strength(), Strength(0.2, 0.3, 0.4)], ids=["plain", "changed"])
def test_a_shared_prefix_gives_what_whole_prompts_give(decoder, strength):
    rng = np.random.default_rng(0)
    prefix = rng.integers(500, size=30).tolist()
    sequences = [[*prefix, *rng.integers(500, size=size).tolist()] for size in (4, 6, 2)]
    group = common_prefix(sequences)
    packed = Packed.of([group], dtype=torch.float64)
    ends = len(group.prefix) - 1 + torch.tensor([len(suffix) for suffix in group.suffixes]).cumsum(0)
    flat = torch.zeros_like(packed.ids[0], dtype=torch.bool)
    flat[: len(group.prefix)] = (torch.arange(len(group.prefix)) >= 5) & (torch.arange(len(group.prefix)) < 20)
    at_zero = Step(flat[None], packed.positions, strength, material(decoder))
    with torch.no_grad(), step_implementation(decoder):
        shared = decoder.base_model(
            input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packed=packed, step=at_zero
        ).last_hidden_state[0, ends]
    for n, sequence in enumerate(sequences):
        tokens = (torch.arange(len(sequence)) >= 5) & (torch.arange(len(sequence)) < 20)
        alone = changed(decoder, torch.tensor([sequence]), strength, tokens=tokens)
        # Norms of the library work in single precision.
        torch.testing.assert_close(shared[n], alone[0, -1], atol=3e-6, rtol=0.0)


def test_packed_attention_is_tree_attention(decoder):
    rng = np.random.default_rng(1)
    groups = [
        Group(rng.integers(500, size=size), tuple(rng.integers(500, size=n) for n in (3, 1, 8, 2))) for size in (9, 21)
    ]
    tree, packed = Tree.of(groups), Packed.of(groups, dtype=torch.float64)
    assert torch.equal(tree.ids, packed.ids) and torch.equal(tree.positions, packed.positions)
    with torch.no_grad(), installed(decoder, NAME, tree_attention):
        expected = decoder.base_model(tree.ids, position_ids=tree.positions, use_cache=False, tree=tree)
    with torch.no_grad(), step_implementation(decoder):
        states = decoder.base_model(packed.ids, position_ids=packed.positions, use_cache=False, packed=packed)
    torch.testing.assert_close(states.last_hidden_state, expected.last_hidden_state, atol=3e-6, rtol=0.0)


def test_noise_comes_again_in_windows_that_are_very_long(decoder, ids, monkeypatch):
    strength = Strength(eps=0.3)
    monkeypatch.setattr("methods.lrgd.attention.LONGEST", 16)
    assert material(decoder).noise.shape[2] == 16
    key = torch.ones(1, shape(decoder)[1], 40, shape(decoder)[2], dtype=torch.float64)
    shaken = step(decoder, strength, tokens=torch.ones(40, dtype=torch.bool)).keys(key, 1)
    assert torch.equal(shaken[:, :, :24], shaken[:, :, 16:]) and not torch.equal(shaken[:, :, :8], shaken[:, :, 8:16])


def test_noise_depends_on_the_seed_alone(decoder):
    assert torch.equal(Material.of(decoder, 8, seed=1).noise, Material.of(decoder, 8, seed=1).noise)
    assert not torch.equal(Material.of(decoder, 8, seed=1).noise, Material.of(decoder, 8, seed=2).noise)


def test_mean_values_are_those_of_the_chosen_tokens(decoder, ids):
    tokens = torch.zeros(1, 40, dtype=torch.bool)
    tokens[0, [3, 7]] = True
    with torch.no_grad():
        traces, _ = record(decoder, ids)
    expected = torch.stack([t.value[0, :: t.repeats, [3, 7]].mean(1) for t in traces])
    torch.testing.assert_close(mean_values(traces, tokens), expected, **EXACT)
