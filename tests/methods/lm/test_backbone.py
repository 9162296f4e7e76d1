"""Backbones from folders and the hub, and the messages where there is none."""

import socket
from dataclasses import replace

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BartConfig,
    BloomConfig,
    Gemma3Config,
    MT5Config,
    MT5ForConditionalGeneration,
    Phi3Config,
    T5Config,
    T5ForConditionalGeneration,
)

from methods.lm.backbone import load_backbone, window
from methods.lm.hub import BackboneError
from tests.methods.lm.small import FAMILIES, make_model, make_tokenizer


def with_backbone(task, name, **settings):
    return replace(task, compute=replace(task.compute, backbone=str(name), **settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_local_folder_is_loaded(task, saved, family):
    backbone = load_backbone(with_backbone(task, saved(family)), "tiny-llama", ("decoder",))
    assert backbone.architecture == "decoder" and backbone.model.config.model_type == family
    assert backbone.window == 256 and not backbone.embedded and family in backbone.description
    assert not backbone.model.training


def test_dtype_is_respected(task, saved):
    backbone = load_backbone(with_backbone(task, saved(), dtype="bfloat16"), "tiny-llama")
    assert str(next(backbone.model.parameters()).dtype) == "torch.bfloat16"
    for other in ("int8", "float8_e4m3fn"):
        with pytest.raises(BackboneError, match=f"no floating point type '{other}': dtypes are float32, bfloat16, "):
            load_backbone(with_backbone(task, saved(), dtype=other), "tiny-llama")


def test_a_missing_pad_token_becomes_the_end_token(task, saved):
    folder = saved()
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    backbone = load_backbone(with_backbone(task, folder), "tiny-llama")
    assert backbone.tokenizer.pad_token == tokenizer.eos_token


@pytest.fixture
def t5(tmp_path):
    folder = tmp_path / "hub-t5"
    config = T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def test_the_wrong_architecture_is_refused(task, t5):
    assert load_backbone(with_backbone(task, t5), "tiny-llama").architecture == "encoder-decoder"
    with pytest.raises(BackboneError, match=r"encoder-decoder, but this method needs decoder; .*tiny-llama"):
        load_backbone(with_backbone(task, t5), "tiny-llama", ("decoder",))


def test_the_wrong_architecture_is_refused_before_it_is_trained(task, tmp_path):
    with pytest.raises(BackboneError, match="encoder-decoder, but this method needs decoder"):
        load_backbone(with_backbone(task, "tiny-t5", cache=tmp_path / "new"), "tiny-llama", ("decoder",))
    assert not (tmp_path / "new").exists()


def test_what_overflows_in_half_precision_stays_single(task, t5):
    model = load_backbone(with_backbone(task, t5, dtype="float16"), "tiny-llama").model
    single = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert model.dtype == torch.float16 and single and all("wo" in name for name in single)


def test_a_model_that_sees_what_comes_after_is_refused(task, saved):
    folder = saved()
    config = AutoConfig.for_model("xlm", vocab_size=200, emb_dim=32, n_layers=2, n_heads=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(BackboneError, match="is xlm, which sees what comes after a token: it would be scored wrong"):
        load_backbone(task, str(folder))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gemma2", {"head_dim": 8}),  # caps at 30
        ("cohere", {}),  # times 0.0625
        ("granite", {"logits_scaling": 8.0}),
        ("falcon_h1", {"lm_head_multiplier": 0.5, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8}),
        ("bert", {"is_decoder": True}),  # a layer in between
    ],
)
def test_a_model_whose_output_layer_is_not_all_is_refused(task, saved, family, settings):
    folder, sizes = saved(), {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(family, vocab_size=200, **sizes, **heads, **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(BackboneError, match=rf"is {family}, whose logits .* scored wrong; .*tiny-llama"):
        load_backbone(with_backbone(task, folder), "tiny-llama", ("decoder",))


def test_an_unknown_id_without_network_says_so(task, monkeypatch):
    def unreachable(*_, **__):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(BackboneError, match=r"nobody/nothing.*hub cannot be reached.*no network: tiny-llama"):
        load_backbone(with_backbone(task, "nobody/nothing"), "tiny-llama")
    with pytest.raises(BackboneError, match="did you mean 'tiny-llama'"):
        load_backbone(with_backbone(task, "tiny-lama"), "tiny-llama")


def test_a_folder_without_a_model_is_named(task, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match=r"cannot be read here \(Unrecognized model"):
        load_backbone(with_backbone(task, tmp_path / "empty"), "tiny-llama")
    with pytest.raises(BackboneError, match=r"no folder '/nowhere/model/here'"):
        load_backbone(with_backbone(task, "/nowhere/model/here"), "tiny-llama")


def shortened(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def widened(folder):
    config = AutoConfig.from_pretrained(folder)
    config.intermediate_size += 8
    config.save_pretrained(folder)


@pytest.mark.parametrize("spoil", [shortened, widened])
def test_damaged_weights_are_named(task, saved, spoil):
    folder = saved()
    spoil(folder)
    with pytest.raises(BackboneError, match=f"{folder}': its weights are damaged or do not fit its configuration"):
        load_backbone(with_backbone(task, folder), "tiny-llama")


def test_weights_that_are_not_there_are_not_drawn_at_random(task, saved):
    folder = saved()
    make_model("llama", 100).base_model.save_pretrained(folder)
    with pytest.raises(BackboneError, match=r"comes without lm_head.weight: random weights would stand in"):
        load_backbone(with_backbone(task, folder), "tiny-llama")


def test_an_encoder_decoder_of_another_family_is_refused_before_its_weights_are_read(task, tmp_path):
    BartConfig(d_model=8, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path / "bart")
    with pytest.raises(BackboneError, match="is bart, which cannot score: encoder-decoders known here are t5, mt5"):
        load_backbone(with_backbone(task, tmp_path / "bart"), "tiny-t5")


def test_a_tokenizer_that_the_hub_has_only_as_sentencepiece_is_read(task, tmp_path):
    texts = [template.source for template in task.templates["recommend"]] + list(task.catalogue.titles)
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(tmp_path / "spiece"), vocab_size=60, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    config = MT5Config(vocab_size=160, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, decoder_start_token_id=0)
    MT5ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    tokenizer = load_backbone(with_backbone(task, tmp_path), "tiny-t5").tokenizer
    assert tokenizer.decode(tokenizer("Blue Love")["input_ids"], skip_special_tokens=True) == "Blue Love"


def test_the_window_is_that_of_the_part_that_reads_texts():
    config = Gemma3Config(text_config={"max_position_embeddings": 640})
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 10**30
    assert window(config, tokenizer) == 640


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (BloomConfig(seq_length=900), 900),
        (Phi3Config(max_position_embeddings=900), 900),
        (
            Phi3Config(
                max_position_embeddings=900,
                original_max_position_embeddings=300,
                rope_parameters={
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0] * 48,
                    "long_factor": [2.0] * 48,
                },
            ),
            300,
        ),
    ],
    ids=["bloom", "phi3", "longrope"],
)
def test_the_window_is_the_longest_in_which_a_prompt_does_not_change_others(config, longest):
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 10**30
    assert window(config, tokenizer) == longest


def test_a_row_says_how_its_prompts_begin(task, saved):
    folder, tokenizer = saved(), make_tokenizer()
    assert load_backbone(with_backbone(task, folder), "tiny-llama").description.endswith("prompts begin with '<s>'")
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(folder)
    found = load_backbone(with_backbone(task, folder), "tiny-llama")
    assert found.description.endswith("prompts without a start token")


def test_a_missing_tokenizer_is_called_one(task, tmp_path):
    make_model("llama", 100).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"cannot load tokenizer of backbone .* from one of: \(1\) "):
        load_backbone(with_backbone(task, tmp_path), "tiny-llama")


def test_a_model_that_does_not_show_its_states_is_refused(task, saved):
    folder = saved()
    config = AutoConfig.for_model(
        "llama4_text", vocab_size=len(make_tokenizer()), hidden_size=16, intermediate_size=16, intermediate_size_mlp=16,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8, num_local_experts=2,
        pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(BackboneError, match="is llama4_text, whose states transformers does not show apart"):
        load_backbone(with_backbone(task, folder), "tiny-llama")


def test_a_tokenizer_of_another_model_is_refused(task, saved):
    folder = saved()
    make_model("llama", 10).save_pretrained(folder)
    with pytest.raises(BackboneError, match=r"has vectors of 10 tokens and a tokenizer with token \d+"):
        load_backbone(with_backbone(task, folder), "tiny-llama")


def test_tokens_that_were_only_added_may_lack_vectors(task, saved):
    folder, tokenizer = saved(), make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    assert len(load_backbone(with_backbone(task, folder), "tiny-llama").tokenizer) == len(tokenizer)
