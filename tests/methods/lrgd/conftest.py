"""Random decoders of every family, in double precision, and token ids."""

import pytest
import torch

from methods.lm.attention import FAMILIES
from methods.lrgd.check import random_model


@pytest.fixture(scope="session", params=FAMILIES)
def decoder(request):
    return random_model(request.param).double()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(500, (1, 40), generator=torch.Generator().manual_seed(3))
