"""The dual model gives what the model's own attention gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methods.lrgd.check import check, main, random_model, splits
from methods.lrgd.dual import Dual, perturbed
from methods.lrgd.feature import bi_features, kernel
from methods.lrgd.record import causal, record

EXACT = {"atol": 1e-10, "rtol": 0.0}


def duals(decoder, ids):
    with torch.no_grad():
        traces, _ = record(decoder, ids)
        return [(trace, Dual.of_trace(trace), trace.output.transpose(1, 2)) for trace in traces]


def some_split(length: int = 40) -> torch.Tensor:
    demonstration = torch.zeros(length, dtype=torch.bool)
    demonstration[5:28] = True
    return demonstration


def test_recording_changes_nothing(decoder, ids):
    with torch.no_grad():
        plain = decoder.base_model(ids, use_cache=False).last_hidden_state
        traces, recorded = record(decoder, ids)
        after = decoder.base_model(ids, use_cache=False).last_hidden_state
    assert torch.equal(plain, recorded) and torch.equal(plain, after)
    assert [trace.layer for trace in traces] == [0, 1, 2]


def test_recorded_queries_keys_and_values_are_those_behind_the_output(decoder, ids):
    with torch.no_grad():
        for trace in record(decoder, ids)[0]:
            products = trace.query @ trace.key.transpose(-1, -2) * trace.scaling
            weights = products.masked_fill(~causal(40), float("-inf")).softmax(-1)
            torch.testing.assert_close((weights @ trace.value).transpose(1, 2), trace.output, **EXACT)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_the_identity_holds_for_any_split(decoder, ids, chosen):
    demonstration = torch.tensor(chosen)
    for _, dual, output in duals(decoder, ids):
        torch.testing.assert_close(dual.apply(dual.start(demonstration) + dual.update(demonstration)), output, **EXACT)


@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_the_features_are_exact_at_any_size_of_the_keys(factor):
    rng = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 60, 16, generator=rng, dtype=torch.float64) * factor for _ in range(2))
    values = kernel(query, key, causal(60), 0.25)
    phi_query, phi_key = bi_features(values)
    torch.testing.assert_close(phi_query @ phi_key.transpose(-1, -2), values, atol=1e-12, rtol=0.0)


def test_the_update_is_minus_eta_times_the_gradient_of_the_dual_loss(decoder, ids):
    demonstration = some_split()
    for _, dual, _ in duals(decoder, ids):
        weight = dual.start(demonstration).requires_grad_()
        (slope,) = torch.autograd.grad(dual.loss(weight, demonstration, eta=0.3).sum(), weight)
        torch.testing.assert_close(-0.3 * slope, dual.update(demonstration, eta=0.3), **EXACT)


def test_steps_token_by_token_give_the_same_weights(decoder, ids):
    demonstration = some_split()
    for _, dual, _ in duals(decoder, ids):
        once = dual.start(demonstration) + dual.update(demonstration)
        torch.testing.assert_close(dual.token_by_token(demonstration), once, **EXACT)


def test_attention_is_a_mixture_of_attention_to_both_parts(decoder, ids):
    demonstration = some_split()
    for trace, dual, output in duals(decoder, ids):
        share = dual.share(demonstration)
        assert share[..., :5].abs().max() < 1e-12 and share[..., 28:].min() > 0 and share.max() <= 1 + 1e-12
        products = trace.query @ trace.key.transpose(-1, -2) * trace.scaling
        for tokens, weight in ((demonstration, share), (~demonstration, 1 - share)):
            alone = products.masked_fill(~(causal(40) & tokens), float("-inf")).softmax(-1).nan_to_num() @ trace.value
            assert (alone - dual.attention(tokens)).abs()[weight > 1e-3].max() < 1e-9
        mixed = (1 - share)[..., None] * dual.attention(~demonstration) + share[..., None] * dual.attention(
            demonstration
        )
        torch.testing.assert_close(mixed, output, **EXACT)


def test_forms_without_strength_are_the_plain_step(decoder, ids):
    demonstration = some_split()
    for trace, dual, output in duals(decoder, ids):
        negative = torch.ones_like(dual.value[..., 0, :])
        for weight in (dual.regularised(demonstration, 0.0), dual.contrasted(demonstration, 0.0, negative)):
            torch.testing.assert_close(dual.apply(weight), output, **EXACT)
        noise = torch.zeros_like(trace.key)
        same = perturbed(
            trace.query, trace.key, trace.value, trace.visible[:, None], trace.scaling, noise, demonstration
        )
        torch.testing.assert_close(same.apply(same.start(demonstration) + same.update(demonstration)), output, **EXACT)


def test_the_check_reports_the_error_of_every_precision(capsys):
    shapes = {
        "random-llama": ["3", "4", "2"],
        "random-gpt2": ["3", "4", "4"],
        "tiny-llama": ["4", "4", "4"],
    }
    assert main(["--backbone", *shapes, "--tokens", "48"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    limits = {"float64": 1e-10, "float32": 1e-3, "bfloat16": 5e-2}
    assert len(rows) == 9
    for name, dtype, *shape, one, many, mixture, _ in rows:
        errors = (one, many, mixture)
        assert shape == shapes[name]
        assert max(map(float, errors)) < limits[dtype]


def test_the_check_sees_an_output_that_is_not_the_dual_models(ids, monkeypatch):
    model = random_model("llama").double()
    good = check("good", model, ids, splits(40))
    original = Dual.of_trace
    monkeypatch.setattr(Dual, "of_trace", lambda trace, dtype: original(replace(trace, scaling=1.01 * trace.scaling)))
    bad = check("bad", model, ids, splits(40))
    assert good.error < 1e-10 < 1e-4 < bad.error


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no random model 'bert': families are llama, qwen2, qwen3, mistral, gemma"):
        random_model("bert")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--backbone", "./nowhere"), "no folder './nowhere' to load a model from"),
        (("--backbone", "tiny-t5"), "it cannot be read here"),
        (("--backbone", "random-bert"), "no random model 'bert'"),
        (("--device", "warp"), "warp cannot be used here"),
    ],
)
def test_what_the_check_cannot_use_is_a_sentence(capsys, flags, said):
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_splits_hold_a_block_and_scattered_tokens():
    block, *scattered = splits(40, number=3)
    assert np.flatnonzero(np.diff(block.numpy())).tolist() == [4, 29]
    assert len(scattered) == 2 and not any(torch.equal(block, split) for split in scattered)
