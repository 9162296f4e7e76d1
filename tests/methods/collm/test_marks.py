"""Marks stand where they are said to, whatever the wording, and every shortcut of scoring stays exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data.histories import Histories
from data.prompts.library import templates
from methods.base import NotRunnable, Requests
from methods.collm.marks import MarkedEmbedding, add_marks, extend, marked
from methods.lm.prompts import Encoder, question_group
from methods.lm.scoring import Scorer
from tests.methods.lm.small import FAMILIES, make_model, make_task, make_tokenizer
from tests.methods.lm.test_scoring import SHORTCUTS, plain_odds


@pytest.fixture
def requests(tmp_path) -> Requests:
    return make_task(tmp_path, users=7).valid


def text_of(requests: Requests, row: int, column: int) -> str:
    title = requests.catalogue.titles[requests.candidates[row, column]]
    return requests.prompt("recommend", row).with_value("target", title).text


def test_marks_stand_before_the_prompt_and_behind_the_target(requests):
    few = replace(requests, histories=Histories.of([np.array([3, 4])] * 7), candidates=np.full((7, 1), 17))
    assert [text_of(marked(few), row, 0) for row in range(3)] == [
        "<user 0>They watched Black Space, White Space. Will they watch Blue Love<item 17> next? Answer:",
        "<user 1>Is Blue Love<item 17> the next choice after Black Space, White Space?",
        "<user 2>Black Space, White Space; then Blue Love<item 17>. Is Blue Love<item 17> right, Yes or No:",
    ]


def test_marks_begin_as_the_mean_word_as_the_model_reads_it():
    class Scaled(nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return 8 * super().forward(ids)

    for words in (nn.Embedding(20, 6), Scaled(20, 6)):
        read = words(torch.arange(20)).detach()
        marks = MarkedEmbedding(words, 20, torch.randn(3, 4), hidden=5)
        assert torch.allclose(marks(torch.tensor([21])), read.mean(dim=0))
        assert marks.scale == pytest.approx(float(read.std()))


@pytest.mark.parametrize("local", [True, False], ids=["pieces", "whole"])
def test_without_its_marks_a_prompt_is_what_it_was(requests, local):
    wordings = templates("recommend")
    assert {template.family for template in wordings} == {"seen", "unseen"}
    tokenizer = make_tokenizer()
    first = add_marks(tokenizer, requests.catalogue)
    encoder = Encoder(tokenizer, 256, local)
    for template in wordings:
        worded = replace(requests, templates={"recommend": (template,) * len(requests)})
        plain, shown = (question_group(encoder, r, "recommend", 3) for r in (worded, marked(worded)))
        assert first + 3 in shown.prefix
        for item, before, after in zip(requests.candidates[3], plain.suffixes, shown.suffixes, strict=True):
            before, after = np.concatenate([plain.prefix, before]), np.concatenate([shown.prefix, after])
            np.testing.assert_array_equal(after[after < first], before)
            times = template.slots.count("target")
            own = first + requests.catalogue.n_users + item
            assert after[after >= first].tolist() == [first + 3] + [own] * times


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_one_prompt_at_a_time(requests, family, shortcut):
    tokenizer = make_tokenizer()
    model, first = make_model(family, len(tokenizer)), add_marks(tokenizer, requests.catalogue)
    plain = Scorer(model, Encoder(tokenizer, 256)).label_odds(requests, "recommend")
    extend(model, first, torch.randn(7 + 32, 5, generator=torch.Generator().manual_seed(0)), 8, seed=0)
    torch.nn.init.normal_(model.get_input_embeddings().mlp[2].weight)
    scores = Scorer(model, Encoder(tokenizer, 256, local=True), shortcut=shortcut).label_odds(
        marked(requests), "recommend"
    )
    np.testing.assert_allclose(scores, plain_odds(model, tokenizer, marked(requests)), atol=1e-4)
    assert np.abs(scores - plain).max() > 1e-3


def test_words_keep_their_embeddings_and_only_the_mlp_learns():
    model = make_model("llama", 50)
    ids = torch.tensor([[3, 51, 7, 50]])
    weight = model.get_input_embeddings().weight
    vectors = torch.arange(6.0).view(2, 3)
    extend(model, 50, vectors, 4, seed=1)
    embedding = model.get_input_embeddings()
    assert torch.equal(embedding(ids)[0], torch.stack([weight[3], weight.mean(0), weight[7], weight.mean(0)]))
    torch.nn.init.normal_(embedding.mlp[2].weight)
    expected = weight.mean(0) + weight.std() * embedding.mlp(vectors)
    torch.testing.assert_close(embedding(ids)[0], torch.stack([weight[3], expected[1], weight[7], expected[0]]))
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"mlp"}


def test_a_tokenizer_that_knows_a_mark_is_refused(requests):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<user 3>"])
    with pytest.raises(NotRunnable, match="knows some of the marks <user 0> to <item 31> already"):
        add_marks(tokenizer, requests.catalogue)


def test_a_mark_is_never_cut_off_with_the_history(requests):
    tokenizer = make_tokenizer()
    first = add_marks(tokenizer, requests.catalogue)
    encoder = Encoder(tokenizer, 26, local=True)
    group = question_group(encoder, marked(requests), "recommend", 2)
    assert encoder.shortened and first + 2 in group.prefix
