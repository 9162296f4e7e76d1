"""Scores are those of a plain forward pass, prompt by prompt, whatever shortcut is taken."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.histories import Histories
from data.prompts.template import Template, parse
from methods.base import Requests
from methods.lm import logits
from methods.lm.batches import batches, tokens_of
from methods.lm.forward import hidden_states, remembered, shortcut_for
from methods.lm.last_layer import ALONE
from methods.lm.layout import Group
from methods.lm.lora import Lora, add_lora, inner
from methods.lm.prompts import Encoder, PromptError, as_ids, common_prefix
from methods.lm.scoring import Scorer, ScoringError
from tests.methods.lm.small import FAMILIES, OTHERS, make_model, make_task, make_tokenizer

SHORTCUTS = ("tree", "repeat", "none")


@pytest.fixture
def requests(tmp_path) -> Requests:
    return make_task(tmp_path, users=7).valid


def text_of(requests: Requests, row: int, column: int) -> str:
    title = requests.catalogue.titles[requests.candidates[row, column]]
    return requests.prompt("recommend", row).with_value("target", title).text


def log_probabilities(model, tokenizer, text: str, answer: str) -> float:
    """Log-probability of the answer after the text: one plain forward pass over the one prompt."""
    start = tokenizer(text)["input_ids"]
    both = tokenizer(f"{text} {answer}")["input_ids"]
    assert both[: len(start)] == start
    with torch.inference_mode():
        logp = model(torch.tensor([both])).logits[0].log_softmax(-1)
    return sum(float(logp[n - 1, both[n]]) for n in range(len(start), len(both)))


def plain_odds(model, tokenizer, requests: Requests) -> np.ndarray:
    scores = np.empty(requests.candidates.shape)
    for row, column in np.ndindex(*scores.shape):
        text = text_of(requests, row, column)
        yes, no = requests.templates["recommend"][row].labels
        scores[row, column] = log_probabilities(model, tokenizer, text, yes) - log_probabilities(
            model, tokenizer, text, no
        )
    return scores


@pytest.mark.parametrize("local", [True, False], ids=["pieces", "whole"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_label_odds_are_those_of_one_prompt_at_a_time(requests, family, shortcut, local):
    tokenizer = make_tokenizer()
    model = make_model(family, len(tokenizer))
    scorer = Scorer(model, Encoder(tokenizer, 256, local), shortcut=shortcut)
    expected = plain_odds(model, tokenizer, requests)
    assert expected.std() > 0.01
    np.testing.assert_allclose(scorer.label_odds(requests, "recommend"), expected, atol=1e-4)


@pytest.mark.parametrize("family", ALONE)
@pytest.mark.parametrize("lora", [False, True], ids=["plain", "adapters"])
def test_the_last_layer_computes_what_is_read_alone(family, lora):
    torch.manual_seed(1)
    model = make_model(family, 50).eval()
    for parameter in model.parameters():  # no bias is 0 and no norm 1
        torch.nn.init.normal_(parameter, 0.2, 0.3)
    if lora:
        model = inner(add_lora(model, Lora(4, 8, 0.5), 0)).eval()
        torch.nn.init.normal_(model.base_model.layers[-1].self_attn.q_proj.lora_B["default"].weight)
    ids = [np.arange(start, start + n) for start, n in ((3, 5), (9, 1), (20, 4), (30, 7), (40, 2))]
    groups = [Group(ids[0], (ids[1],)), Group(ids[1][:0], (ids[2], ids[3], ids[4])), Group(ids[4], (ids[0], ids[2]))]
    seen = []
    handle = model.base_model.layers[-1].mlp.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].shape[1])
    )
    with torch.inference_mode():
        alone, expected = (hidden_states(model, groups, shortcut) for shortcut in ("tree", "none"))
        several = hidden_states(model, groups, "tree", [1, 2, 1, 1, 1, 1])
    handle.remove()
    np.testing.assert_allclose(alone, expected, atol=1e-4)
    np.testing.assert_allclose(several[[0, 2, 3, 4, 5, 6]], expected, atol=1e-4)
    assert seen[0] == 6 and min(seen[1:]) > 6
    hidden_states(model, groups, "tree").sum().backward()  # with gradients all is as transformers has it


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tested_family_shares_prefixes(family):
    assert shortcut_for(make_model(family, 100)) == "tree"


def test_layers_that_see_a_window_only_share_nothing():
    model = make_model("mistral", 100)
    assert shortcut_for(model) == "tree"
    model.config.sliding_window = 8
    assert shortcut_for(model) == "none"


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_several_tokens_are_scored_whole_and_said_once(requests, family, shortcut, caplog):
    tokenizer = make_tokenizer()
    model = make_model(family, len(tokenizer))
    template = replace(requests.templates["recommend"][0], labels=("Reds", "No"))
    requests = replace(requests, templates={"recommend": (template,) * len(requests)})
    scorer = Scorer(model, Encoder(tokenizer, 256, True), shortcut=shortcut)
    with caplog.at_level(logging.WARNING):
        scores = scorer.label_odds(requests, "recommend")
        scorer.label_odds(requests, "recommend")
    assert [r.getMessage() for r in caplog.records if "whole words" in r.getMessage()].__len__() == 1
    np.testing.assert_allclose(scores, plain_odds(model, tokenizer, requests), atol=1e-4)


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_title_likelihood_is_the_sum_over_the_tokens_of_the_title(requests, shortcut):
    tokenizer = make_tokenizer()
    model = make_model("llama", len(tokenizer))
    template = Template("t", "recommend", "seen", parse("Seen {history}, {target} and nothing else"))
    requests = replace(requests, templates={"recommend": (template,) * len(requests)})
    scorer = Scorer(model, Encoder(tokenizer, 256, True), shortcut=shortcut)
    blank = replace(requests, histories=Histories.of(np.empty(0, np.int64) for _ in range(len(requests))))
    expected, prior, length = np.empty((3, *requests.candidates.shape))
    for row, column in np.ndindex(*expected.shape):
        title = requests.catalogue.titles[requests.candidates[row, column]]
        for shown, into in ((requests, expected), (blank, prior)):
            text = shown.prompt("recommend", row).prefix.rstrip()
            into[row, column] = log_probabilities(model, tokenizer, text, title)
        length[row, column] = len(tokenizer(title, add_special_tokens=False)["input_ids"])
    score = scorer.title_likelihood
    np.testing.assert_allclose(score(requests, "recommend", normalised=False), expected, atol=1e-4)
    np.testing.assert_allclose(score(requests, "recommend"), expected / length, atol=1e-4)
    corrected = score(requests, "recommend", normalised=False, prior=0.5)
    np.testing.assert_allclose(corrected, expected - 0.5 * prior, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_pooling_is_the_mean_of_the_last_hidden_states(family):
    tokenizer = make_tokenizer()
    model = make_model(family, len(tokenizer))
    encoder = Encoder(tokenizer, 256)
    prompts = [np.array(row) for row in encoder.encode(["Red Night", "Blue Day, Green River and Gold", "Iron"])]
    with torch.inference_mode():
        expected = [model.base_model(torch.tensor(p)[None]).last_hidden_state[0].mean(0).numpy() for p in prompts]
    np.testing.assert_allclose(Scorer(model, encoder).pooled(prompts), expected, atol=1e-5)


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_what_is_asked_twice_is_computed_once(requests, shortcut, monkeypatch):
    import methods.lm.scoring as scoring

    tokenizer = make_tokenizer()
    scorer = Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256, True), shortcut=shortcut)
    real, read = scoring.hidden_states, []

    def counted(model, groups, shortcut, reads=None):
        read.append(sum(len(group.suffixes) for group in groups))
        return real(model, groups, shortcut, reads)

    monkeypatch.setattr(scoring, "hidden_states", counted)
    first = requests.select(np.array([0]))
    once = scorer.label_odds(first, "recommend")
    computed = sum(read)
    twice = scorer.label_odds(requests.select(np.array([0, 0])), "recommend")
    assert sum(read) == 2 * computed
    np.testing.assert_allclose(twice, np.repeat(once, 2, axis=0), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 5, None])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_batch_size_does_not_matter(requests, batch_size, shortcut):
    tokenizer = make_tokenizer()
    model = make_model("llama", len(tokenizer))
    scores = Scorer(model, Encoder(tokenizer, 256, True)).label_odds(requests, "recommend")
    again = Scorer(model, Encoder(tokenizer, 256, True), batch_size, shortcut).label_odds(requests, "recommend")
    np.testing.assert_allclose(again, scores, atol=1e-4)


def test_out_of_memory_halves_the_batch_and_goes_on(requests, monkeypatch, caplog):
    import methods.lm.scoring as scoring

    tokenizer = make_tokenizer()
    scorer = Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256, True))
    expected = scorer.label_odds(requests, "recommend")
    real, sizes = scoring.hidden_states, []

    def small_memory(model, groups, shortcut, reads=None):
        sizes.append(sum(len(group.suffixes) for group in groups))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("no memory left")
        return real(model, groups, shortcut, reads)

    monkeypatch.setattr(scoring, "hidden_states", small_memory)
    np.testing.assert_allclose(scorer.label_odds(requests, "recommend"), expected, atol=1e-4)
    assert max(sizes) > 4 and "out of memory" in caplog.text


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_budget_smaller_than_a_prompt_does_not_matter(requests, shortcut):
    tokenizer = make_tokenizer()
    scorer = Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256, True), None, shortcut, workers=1)
    expected = scorer.label_odds(requests, "recommend")
    scorer._budget = 12
    np.testing.assert_allclose(scorer.label_odds(requests, "recommend"), expected, atol=1e-4)


@pytest.mark.parametrize("shortcut", ["tree", "none"])
def test_batches_that_wait_are_made_to_fit_what_has_shown_to_fit(requests, monkeypatch, caplog, shortcut):
    import methods.lm.scoring as scoring

    tokenizer = make_tokenizer()
    scorer = Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256, True), None, shortcut, workers=1)
    expected = scorer.label_odds(requests, "recommend")
    real, whole = scoring.hidden_states, []

    def memory(model, groups, packing, reads=None):
        whole.append(tokens_of(groups, packing))
        if whole[-1] > 100:
            raise RuntimeError("CUDA error: out of memory")
        return real(model, groups, packing, reads)

    monkeypatch.setattr(scoring, "hidden_states", memory)
    scorer._budget = 180  # several batches, each of which is too large
    np.testing.assert_allclose(scorer.label_odds(requests, "recommend"), expected, atol=1e-4)
    assert 50 <= scorer._budget <= 100 and caplog.text.count("out of memory") == sum(size > 100 for size in whole) == 1


def test_in_bfloat16_scores_are_not_rounded_until_candidates_tie():
    model = make_model("llama", 500).to(torch.bfloat16)
    states = (torch.randn(400, model.config.hidden_size, generator=torch.manual_seed(0)) * 4).to(torch.bfloat16)
    weight = model.get_output_embeddings().weight.float()
    exact = states.float() @ weight.T
    odds = logits.head(model, states, torch.tensor([3, 7]))
    torch.testing.assert_close(odds, exact[:, [3, 7]])
    said = logits.log_probabilities(model, states, torch.full((400,), 3))
    assert len(said.unique()) > 390
    torch.testing.assert_close(said, exact.log_softmax(-1)[:, 3], atol=0.1, rtol=0)


def test_prompts_of_other_shapes_wait_for_their_own_batch():
    short = [Group(as_ids(range(60)), tuple(as_ids([n]) for n in range(40))) for _ in range(8)]
    long = Group(as_ids([]), tuple(as_ids(range(70)) for _ in range(40)))
    made = list(batches([*short, long], 10**6, None, "tree"))
    assert [len(batch.groups) for batch in made] == [1, 8]
    assert len(list(batches([*short, long], 10**6, None, "none"))) == 1


def test_out_of_memory_with_one_prompt_is_an_error(requests, monkeypatch):
    import methods.lm.scoring as scoring

    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(scoring, "hidden_states", no_memory)
    tokenizer = make_tokenizer()
    with pytest.raises(torch.OutOfMemoryError):
        Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256, True)).label_odds(requests, "recommend")


def test_scores_that_are_no_numbers_name_the_prompt(requests):
    tokenizer = make_tokenizer()
    model = make_model("llama", len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ScoringError, match=r"template 'last'.*They watched"):
        Scorer(model, Encoder(tokenizer, 256, True)).label_odds(requests, "recommend")


def test_a_long_prompt_loses_its_oldest_items_and_keeps_its_question(requests):
    tokenizer = make_tokenizer()
    model = make_model("llama", len(tokenizer))
    window = len(tokenizer(text_of(requests, 0, 0))["input_ids"]) - 4
    first = requests.select(np.array([0]))
    encoder = Encoder(tokenizer, window, True)
    scores = Scorer(model, encoder).label_odds(first, "recommend")
    assert encoder.shortened == first.candidates.size
    shorter = replace(first, histories=first.histories.last(len(first.histories[0]) - 2))
    np.testing.assert_allclose(scores, plain_odds(model, tokenizer, shorter), atol=1e-4)


def test_of_a_shortened_prompt_nothing_but_the_title_is_scored(requests):
    tokenizer = make_tokenizer()
    model = make_model("llama", len(tokenizer))
    template = Template("t", "recommend", "seen", parse("Seen {history}, {target} and nothing else"))
    first = replace(requests.select(np.array([0])), templates={"recommend": (template,)})
    window = len(tokenizer(text_of(first, 0, 0))["input_ids"]) - len(tokenizer(" and nothing else")["input_ids"])
    encoder = Encoder(tokenizer, window, True)
    scores = Scorer(model, encoder).title_likelihood(first, "recommend")
    assert encoder.shortened == first.candidates.size
    shorter = replace(first, histories=first.histories.last(len(first.histories[0]) - 1))
    expected = Scorer(model, Encoder(tokenizer, 256, True)).title_likelihood(shorter, "recommend")
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_titles_that_nothing_stands_before_are_an_error(requests):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None  # no start token
    template = Template("t", "recommend", "seen", parse("{target} after {history}"))
    requests = replace(requests, templates={"recommend": (template,) * len(requests)})
    scorer = Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256))
    with pytest.raises(PromptError, match="'t' begins with the target, and the tokenizer sets no start token"):
        scorer.title_likelihood(requests, "recommend")


def test_a_question_longer_than_the_window_is_an_error(requests):
    encoder = Encoder(make_tokenizer(), 8, True)
    with pytest.raises(PromptError, match=r"'last' needs \d+ tokens without any history.* title it asks about is '"):
        Scorer(make_model("llama", 200), encoder).label_odds(requests, "recommend")


def test_identical_candidates_score_alike(requests):
    tokenizer = make_tokenizer()
    same = replace(requests, candidates=np.repeat(requests.candidates[:, :1], 3, axis=1))
    scores = Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256, True)).label_odds(same, "recommend")
    np.testing.assert_allclose(scores, scores[:, :1].repeat(3, axis=1), atol=1e-5)


def test_common_prefix_leaves_every_sequence_a_token():
    group = common_prefix([[1, 2], [1, 2, 3], [1, 2, 3, 4]])
    assert group.prefix.tolist() == [1]
    assert [suffix.tolist() for suffix in group.suffixes] == [[2], [2, 3], [2, 3, 4]]


def test_label_words_the_tokenizer_does_not_know_are_refused(requests):
    tokenizer = make_tokenizer()
    scorer = Scorer(make_model("llama", len(tokenizer)), Encoder(tokenizer, 256))
    template = replace(requests.templates["recommend"][0], labels=("Absolutely", "No"))
    with pytest.raises(ScoringError, match="does not know the label words Absolutely and No"):
        scorer.label_odds(replace(requests, templates={"recommend": (template,) * len(requests)}), "recommend")


class Recent(torch.nn.Module):
    def forward(self, cache=None, **inputs):
        return SimpleNamespace(last_hidden_state=(cache, inputs))


class Earlier(torch.nn.Module):
    def forward(self, past_key_values=None, **inputs):
        return SimpleNamespace(last_hidden_state=(past_key_values, inputs))


@pytest.mark.parametrize("base", [Recent(), Earlier()], ids=lambda base: type(base).__name__)
def test_a_cache_has_the_name_that_the_version_of_transformers_gives_it(base):
    assert remembered(base, "known", input_ids=1) == ("known", {"input_ids": 1, "use_cache": True})
    assert remembered(base, None, input_ids=1) == (None, {"input_ids": 1, "use_cache": False})
