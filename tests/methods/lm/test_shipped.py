"""The weights that come with the project rank test users well, before any tuning."""

import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.protocol import Protocol, prepare
from data.prompts import library
from data.prompts.template import Wording
from methods.base import Compute, Requests
from methods.lm.backbone import load_backbone
from methods.lm.encdec import EncDecScorer
from methods.lm.scoring import Scorer
from methods.lm.tiny import CONTINUED

USERS, CANDIDATES = 150, 40


@pytest.fixture(scope="module")
def problem():
    pytest.importorskip("recbole")
    return prepare("ml-100k", Protocol(users=USERS, valid_users=2), {"recommend": library.templates("recommend")})


@pytest.fixture(scope="module")
def lists(problem) -> Requests:
    """Test users with the positive in column 0."""
    requests, positive = problem.test_requests(), problem.test.positive
    order = np.argsort(np.arange(requests.candidates.shape[1])[None] != positive[:, None], axis=1, kind="stable")
    shown = np.take_along_axis(requests.candidates, order, axis=1)[:, :CANDIDATES]
    return Requests(requests.users, requests.histories, shown, requests.catalogue, requests.templates)


@pytest.mark.parametrize(
    ("name", "scorer", "form", "least"),
    [
        ("tiny-llama", Scorer, "label_odds", 0.74),
        ("tiny-llama", Scorer, "title_likelihood", 0.80),
        ("tiny-t5", EncDecScorer, "decoded_odds", 0.74),
        ("tiny-t5", EncDecScorer, "title_likelihood", 0.74),
    ],
)
def test_shipped_backbones_rank_before_they_are_tuned(problem, lists, tmp_path, name, scorer, form, least):
    from methods.lm.tuning import list_auc

    options = {"normalised": False} if form == "title_likelihood" else {}
    if name == "tiny-llama" and options:  # a decoder writes titles where the history simply goes on
        bare = (replace(lists.templates["recommend"][0], parts=CONTINUED),) * len(lists)
        lists = replace(lists, templates={"recommend": bare})
    backbone = load_backbone(problem.task(Compute(cache=tmp_path)), name, ("decoder", "encoder-decoder"))
    score = getattr(scorer(backbone.model, backbone.encoder()), form)
    assert list_auc(score(lists, "recommend", **options)) >= least
    assert not list(tmp_path.iterdir()), "nothing was trained"


@pytest.mark.parametrize(
    ("name", "scorer", "form"), [("tiny-llama", Scorer, "label_odds"), ("tiny-t5", EncDecScorer, "decoded_odds")]
)
def test_bfloat16_moves_few_ranks(problem, lists, tmp_path, name, scorer, form):
    from scipy.stats import spearmanr

    from methods.lm.tuning import list_auc

    few, scores = lists.select(np.arange(40)), []
    for dtype in ("float32", "bfloat16"):
        compute = Compute(cache=tmp_path, dtype=dtype)
        backbone = load_backbone(problem.task(compute), name, ("decoder", "encoder-decoder"))
        scores.append(getattr(scorer(backbone.model, backbone.encoder()), form)(few, "recommend"))
    exact, short = scores
    correlations = [spearmanr(a, b).statistic for a, b in zip(exact, short, strict=True)]
    assert np.mean(correlations) > 0.99 and abs(list_auc(exact) - list_auc(short)) < 0.005


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_shipped_backbones_know_a_third_of_the_words_of_unseen_templates_and_all_known_words(problem, tmp_path, name):
    tokenizer = load_backbone(problem.task(Compute(cache=tmp_path)), name, ("decoder", "encoder-decoder")).tokenizer

    def unknown(role, ids, further=()):
        parts = [part for t in library.templates(role, further) if ids in t.id for part in t.parts]
        words = re.findall(r"[\w']+", " ".join(part.text for part in parts if isinstance(part, Wording)))
        return np.mean([tokenizer.unk_token_id in tokenizer(word).input_ids for word in words])

    roles = ("recommend", "sequential", "demonstrate")
    assert all(0.6 < unknown(role, "-unseen-") < 0.7 for role in roles)
    assert all(unknown(role, "-known-", ["known-words"]) == 0 for role in roles)
    assert unknown("recommend", "-seen-") == 0
    assert 0.1 < unknown("demonstrate", "-seen-") < 0.2
