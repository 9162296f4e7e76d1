"""On a GPU, scores are those of the CPU, whatever is batched together; skipped where there is none."""

import numpy as np
import pytest
import torch

from methods.base import Requests
from methods.lm.encdec import EncDecScorer
from methods.lm.prompts import Encoder
from methods.lm.scoring import Scorer
from tests.methods.lm.small import FAMILIES, make_model, make_task, make_tokenizer
from tests.methods.lm.test_encdec import make_t5
from tests.methods.lm.test_encdec import make_tokenizer as make_t5_tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
FORMS = ("label_odds", "title_likelihood")


@pytest.fixture
def requests(tmp_path) -> Requests:
    return make_task(tmp_path, users=40).valid


def decoder(family: str, **settings: object) -> Scorer:
    tokenizer = make_tokenizer()
    return Scorer(make_model(family, len(tokenizer)).to(**settings), Encoder(tokenizer, 256, True))


def t5(**settings: object) -> EncDecScorer:
    tokenizer = make_t5_tokenizer()
    return EncDecScorer(make_t5("t5", len(tokenizer)).to(**settings), Encoder(tokenizer, 256, True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", [*FAMILIES, "t5"])
def test_scores_are_those_of_the_cpu(requests, family, form):
    def scores(**settings: object) -> np.ndarray:
        scorer = t5(**settings) if family == "t5" else decoder(family, **settings)
        return getattr(scorer, form)(requests, "recommend")

    expected = scores(device="cpu")
    np.testing.assert_allclose(scores(device="cuda"), expected, atol=1e-4)
    half = scores(device="cuda", dtype=torch.bfloat16)
    assert np.corrcoef(half.ravel(), expected.ravel())[0, 1] > 0.99
