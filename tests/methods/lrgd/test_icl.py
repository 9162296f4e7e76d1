"""Prompts with demonstrations, and what they are worth to a model."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

from benchmarks.throughput import byte_tokenizer
from data.prompts.library import templates
from data.prompts.template import Template, parse
from methods.base import NotRunnable
from methods.lm.prompts import Encoder, PromptError
from methods.lm.scoring import ScoringError
from methods.lrgd.attention import Material, Strength
from methods.lrgd.demonstrations import Demonstration
from methods.lrgd.icl import IclScorer, Query, _by_offsets, encode, parts, write
from methods.lrgd.packed import Packed
from tests.methods.lm.small import WORDS
from tests.methods.lrgd.world import DEMONSTRATE, make_decoder, make_encoder, make_world

SHOWN = (Demonstration(0, (0, 1), 2), Demonstration(1, (3,), 4))


@pytest.fixture
def query(tmp_path) -> Query:
    return Query(DEMONSTRATE[1], make_world(tmp_path).catalogue, (5, 6), SHOWN)


def test_a_prompt_reads_as_its_template_says(query):
    instruction, shown, asked = write(query)
    assert instruction + "".join(shown) + asked == (
        "Which is next?\nAfter Red Space, Blue Space?\nAnswer: Green Space\nAfter Black Space?\nAnswer: White Space"
        "\nAfter Gold Space, Iron Space?\nAnswer:"
    )
    assert write(replace(query, demonstrations=()))[0] == instruction


def test_every_token_knows_its_demonstration(query):
    encoder = make_encoder()
    prompt = encode(encoder, query, ["Red Love"])
    words = {n: encoder.tokenizer.decode(prompt.ids[prompt.owner == n]) for n in (-1, 0, 1)}
    assert "Red Space" in words[0] and "Green Space" in words[0] and "Black" not in words[0]
    assert "Black Space" in words[1] and "White Space" in words[1] and "Gold" not in words[1]
    assert "Which is next" in words[-1] and "Gold Space" in words[-1] and "Green" not in words[-1]
    shown = prompt.shown()
    assert shown.answer == 2 and encoder.tokenizer.decode(shown.ids[-2:]) == "Red Love"
    assert shown.demonstrations == 2


@pytest.mark.parametrize("shots", [0, 1, 2])
def test_pieces_give_the_tokens_of_the_whole_prompt(query, shots):
    one = replace(query, demonstrations=SHOWN[:shots])
    whole, pieces = (encode(replace(make_encoder(), local=local), one, ["Red Love"]) for local in (False, True))
    for name in ("ids", "owner"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))
    glued = replace(
        one, template=Template("g", "demonstrate", "seen", parse("So{demonstrations}far {history} {target}"))
    )
    whole, glued_pieces = (encode(replace(make_encoder(), local=local), glued, ["Red"]) for local in (False, True))
    assert np.array_equal(whole.ids, glued_pieces.ids) and whole.owner.max() == shots - 1


def test_a_start_token_belongs_to_no_demonstration_though_nothing_stands_before_them(query):
    bare = replace(query, template=replace(DEMONSTRATE[1], parts=DEMONSTRATE[1].parts[1:]))
    whole, pieces = (encode(replace(make_encoder(), local=local), bare, ["Red"]) for local in (False, True))
    assert whole.owner[:2].tolist() == pieces.owner[:2].tolist() == [-1, 0]


def test_a_long_prompt_loses_its_first_demonstrations_and_then_its_oldest_items(query):
    whole = len(encode(make_encoder(), query, ["Red"]).ids)
    encoder = make_encoder(window=whole - 1)
    prompt = encode(encoder, query, ["Red"])
    assert prompt.owner.max() == 0 and encoder.shortened == 1
    bare = len(encode(make_encoder(), replace(query, demonstrations=()), ["Red"]).ids)
    decoded = encoder.tokenizer.decode(encode(make_encoder(window=bare), query, ["Red"]).ids)
    assert "Iron Space" in decoded and "Gold" not in decoded
    least = len(encode(make_encoder(), replace(query, demonstrations=(), history=()), ["Red"]).ids)
    with pytest.raises(PromptError, match=f"'asked' needs {least + 2} tokens"):
        encode(make_encoder(window=least + 1), query, ["Red", "Red Love"])


@pytest.mark.parametrize(
    "text", ["{history} {demonstrations} {target}", "{demonstrations} {history} {target}?", "{history} {target}"]
)
def test_a_template_of_another_shape_is_refused(text):
    with pytest.raises(PromptError, match=r"slots .demonstrations., .history. and .target. once each"):
        parts(Template("odd", "demonstrate", "seen", parse(text)))


def test_the_suites_templates_can_all_be_used():
    found = templates("demonstrate")
    assert [sum(t.family == family for t in found) for family in ("seen", "unseen")] == [8, 12]
    for template in found:
        instruction, question = parts(template)
        assert instruction.parts and question.source.startswith("\n")


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_likelihood_is_that_of_whole_prompts(tmp_path, query, family, batch_size):
    encoder = make_encoder()
    model = make_decoder(encoder, family)
    titles = ["Red Love", "Alien", "Blue Space Space Love", "Red Love"]
    queries = [query, replace(query, template=DEMONSTRATE[0]), replace(query, demonstrations=(), history=(1,))]
    prompts = [encode(encoder, one, titles) for one in queries]
    expected = np.empty((3, 4))
    for row, prompt in enumerate(prompts):
        for column, answer in enumerate(prompt.answers):
            whole = np.concatenate([prompt.ids, answer])
            with torch.no_grad():
                logp = model(torch.from_numpy(whole)[None]).logits[0].log_softmax(-1)
            places = range(len(prompt.ids) - 1, len(whole) - 1)
            expected[row, column] = sum(float(logp[n, whole[n + 1]]) for n in places)
    scores = IclScorer(model, encoder, batch_size, workers=2).answer_likelihood(prompts)
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert scores[0, 0] == pytest.approx(scores[0, 3], abs=1e-4)


def test_many_answers_are_computed_in_blocks(query, monkeypatch):
    encoder = make_encoder()
    titles = [f"{word} Space Love Alien"[:length] for word in WORDS for length in (5, 12, 30)]
    prompts = [encode(encoder, one, titles) for one in (query, replace(query, history=(1,)))]
    scorer = IclScorer(make_decoder(encoder), encoder)
    whole, groups = scorer.answer_likelihood(prompts), [prompt.group for prompt in prompts]
    assert len(Packed.of(groups).blocks) == 2
    monkeypatch.setattr("methods.lrgd.packed.MOST", 8)
    assert max(len(block.mask) for block in Packed.of(groups).blocks) < 8 + max(map(len, groups[0].suffixes))
    np.testing.assert_allclose(scorer.answer_likelihood(prompts), whole, atol=1e-5)


def test_answers_of_one_token_need_no_suffix(query):
    encoder = make_encoder()
    scorer = IclScorer(make_decoder(encoder), encoder)
    prompt = encode(encoder, query, ["Alien", "Red"])
    both = encode(encoder, query, ["Alien", "Red Love"])
    assert scorer.answer_likelihood([prompt])[0, 0] == pytest.approx(scorer.answer_likelihood([both])[0, 0], abs=1e-4)


def test_a_changed_step_without_strength_scores_as_the_plain_model(query):
    encoder = make_encoder()
    model = make_decoder(encoder)
    scorer, prompt = IclScorer(model, encoder), encode(encoder, query, ["Red Love", "Alien"])
    material = Material.of(model, 256, torch.ones_like(Material.of(model, 256).negative))
    plain = scorer.answer_likelihood([prompt])
    assert np.array_equal(scorer.answer_likelihood([prompt], Strength(), material), plain)
    for strength in (Strength(alpha=0.1), Strength(beta=0.1), Strength(eps=0.1)):
        assert np.abs(scorer.answer_likelihood([prompt], strength, material) - plain).max() > 1e-4


@pytest.mark.parametrize("strength", [Strength(), Strength(0.1, 0.2, 0.3)], ids=["plain", "changed"])
def test_half_precision_keeps_candidates_apart(query, strength):
    encoder = make_encoder()
    titles = [" ".join(words) for words in itertools.product(WORDS, repeat=2)]
    prompt = encode(encoder, query, titles)

    def scores(model):
        return IclScorer(model, encoder).answer_likelihood([prompt], strength, Material.of(model, 256))[0]

    half = make_decoder(encoder).bfloat16()
    found, whole = scores(half), scores(make_decoder(encoder).bfloat16().float())
    assert len(set(found.tolist())) == len(titles)
    assert spearmanr(found, whole)[0] > 0.95


def test_a_change_of_demonstrations_leaves_prompts_without_them_alone_but_for_alpha(query):
    encoder = make_encoder()
    model = make_decoder(encoder)
    scorer, prompt = IclScorer(model, encoder), encode(encoder, replace(query, demonstrations=()), ["Red Love"])
    material = Material.of(model, 256)
    np.testing.assert_array_equal(
        scorer.answer_likelihood([prompt], Strength(eps=0.5, beta=0.5), material), scorer.answer_likelihood([prompt])
    )


def test_scores_that_are_no_numbers_name_the_prompt(query):
    encoder = make_encoder()
    model = make_decoder(encoder)
    with torch.no_grad():
        model.get_input_embeddings().weight[encoder.word("Alien")[0]] = float("nan")
    prompts = [encode(encoder, query, ["Red Love", title]) for title in ("Blue", "Alien Love")]
    # Attention has all answers of a prompt side by side: none of them is a number.
    with pytest.raises(ScoringError, match=r"2 of 4 scores are not a number.*Iron Space.*Red Love'. Try --dtype"):
        IclScorer(model, encoder).answer_likelihood(prompts)


def test_a_model_without_known_attention_is_refused():
    encoder = make_encoder()
    model = make_decoder(encoder)
    model.config.model_type = "mamba"
    with pytest.raises(NotRunnable, match="mamba"):
        IclScorer(model, encoder)


def test_every_token_of_a_demonstration_is_its_own_whatever_offsets_the_tokenizer_gives():
    """A byte-level tokenizer that trims offsets gives a blank before a digit an empty one."""
    tokenizer = byte_tokenizer(["Silent Night 1 2 3 => Red Day"])
    trimmed = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.backend_tokenizer.post_processor = Sequence([ByteLevel(trim_offsets=True), trimmed])
    texts = ["Say what is next.", "\nSilent Night 3 => Red", "\nRed =>"]
    ids, stretch = _by_offsets(Encoder(tokenizer, 256), texts)
    empty = [start == end for start, end in tokenizer("".join(texts), return_offsets_mapping=True)["offset_mapping"]]
    assert sum(empty) > 1 and stretch[0] == 0
    found = ["".join(tokenizer.convert_ids_to_tokens(ids[stretch == n])) for n in range(3)]
    assert [text.replace("Ġ", " ").replace("Ċ", "\n").removeprefix("<s>") for text in found] == texts
