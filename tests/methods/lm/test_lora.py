"""Adapters: fresh ones change nothing, merged ones score alike, saved ones come back."""

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoConfig, AutoModelForCausalLM

from methods.lm.hub import BackboneError
from methods.lm.lora import Lora, add_lora, inner, load_adapters, merged, save_adapters
from methods.lm.prompts import Encoder
from methods.lm.scoring import Scorer
from tests.methods.lm.small import FAMILIES, OTHERS, make_model, make_tokenizer


def odds(model, task):
    return Scorer(model.eval(), Encoder(make_tokenizer(), 256, True)).label_odds(task.valid, "recommend")


def tuned(family):
    return taught(make_model(family, len(make_tokenizer())))


def taught(model):
    """The model with adapters whose weights are random in place of trained."""
    model = add_lora(model, Lora())
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_adapters_start_neutral_then_matter_and_merge_exactly(task, family):
    plain = odds(make_model(family, len(make_tokenizer())), task)
    fresh = add_lora(make_model(family, len(make_tokenizer())), Lora())
    np.testing.assert_allclose(odds(inner(fresh), task), plain, atol=1e-5)
    model = tuned(family)
    apart = odds(inner(model), task)
    assert np.abs(apart - plain).max() > 1e-2
    np.testing.assert_allclose(odds(merged(model), task), apart, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt_neox", "bloom", "falcon"])
def test_families_with_one_matrix_for_attention_take_adapters_that_merge_exactly(family):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()
    ids = torch.arange(3, 20)[None]
    adapted = taught(model).eval()
    with torch.no_grad():
        apart = inner(adapted)(ids).logits
        with adapted.disable_adapter():
            assert (inner(adapted)(ids).logits - apart).abs().max() > 1e-2
        torch.testing.assert_close(merged(adapted)(ids).logits, apart, atol=1e-5, rtol=0)


def test_in_half_precision_small_adapters_still_count(task):
    words = len(make_tokenizer())
    model = add_lora(make_model("llama", words).to(torch.bfloat16), Lora())
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=3e-3)  # what they add is less than a bit of the weights
    plain, apart = odds(make_model("llama", words).to(torch.bfloat16), task), odds(inner(model), task)
    assert (apart != plain).any()
    beside = merged(model)
    np.testing.assert_array_equal(odds(beside, task), apart)
    assert not any(isinstance(module, torch.nn.Dropout) and module.p for module in beside.modules())


def test_quantised_weights_take_no_adapters_in():
    model = tuned("llama")
    inner(model).is_quantized = True
    assert any(isinstance(module, LoraLayer) for module in merged(model).modules())


def test_only_adapters_learn():
    model = add_lora(make_model("llama", 100), Lora())
    learnt = {name.split(".")[-3] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learnt == {"lora_A", "lora_B"}


def test_adapters_have_the_scale_and_the_dropout_that_are_given():
    layers = [m for m in add_lora(make_model("llama", 100), Lora(4, 12, 0.3)).modules() if isinstance(m, LoraLayer)]
    assert {layer.scaling["default"] for layer in layers} == {3.0}
    assert {layer.lora_dropout["default"].p for layer in layers} == {0.3}


def test_another_seed_gives_other_adapters():
    models = (add_lora(make_model("llama", 100), Lora(), seed) for seed in (0, 1))
    assert not torch.equal(*(next(p for p in model.parameters() if p.requires_grad) for model in models))


def test_saved_adapters_come_back(task, tmp_path):
    model = tuned("llama")
    save_adapters(model, tmp_path / "adapters")
    back = load_adapters(make_model("llama", len(make_tokenizer())), tmp_path / "adapters")
    np.testing.assert_array_equal(odds(inner(back), task), odds(inner(model), task))


def test_a_model_without_the_layers_is_refused():
    with pytest.raises(BackboneError, match="no layers nothing to adapt"):
        add_lora(make_model("llama", 100), Lora(targets=("nothing",)))
