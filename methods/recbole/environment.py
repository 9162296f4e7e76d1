"""What RecBole 1.2.1 needs from the process while it runs, and putting everything back afterwards.

RecBole was written for NumPy 1, SciPy 1.10 and a process of its own: its configuration parses
``sys.argv``, rewrites NumPy's namespace and YAML's loader, seeds every global generator and logs to the
root logger. Nothing of that may outlive a training.
"""

import copy
import importlib.util
import logging
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from methods.base import NotRunnable

PACKAGE = "recbole==1.2.1"
PARTS = {
    "yaml": "pyyaml",
    "colorlog": "colorlog",
    "colorama": "colorama",
    "tensorboard": "tensorboard",
    "texttable": "texttable",
    "sklearn": "scikit-learn",
    "tqdm": "tqdm",
    "pandas": "pandas<3",
    "scipy": "scipy",
    "torch": "torch",
}
"""Module -> requirement: all that RecBole's training imports; ray, which its metadata also asks for, it does not."""

_log = logging.getLogger("methods.recbole")
_log.addHandler(logging.NullHandler())


def require() -> None:
    """See that RecBole can be imported here.

    Raises:
        NotRunnable: with the command that installs what is missing.
    """
    if importlib.util.find_spec("recbole") is None:
        raise NotRunnable(f"needs RecBole: pip install --no-deps {PACKAGE}")
    missing = [f"'{part}'" for module, part in PARTS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise NotRunnable(f"RecBole needs more packages: pip install {' '.join(missing)}")
    import pandas

    # pandas 3 breaks RecBole in silence: its fillna(inplace=True) on a column then does nothing.
    if int(pandas.__version__.split(".")[0]) >= 3:
        raise NotRunnable(f"RecBole needs pandas 2, found {pandas.__version__}: pip install 'pandas<3'")


@contextmanager
def shims(seed: int, threads: int) -> Iterator[None]:
    """Let RecBole run in this process: global state is as RecBole wants it inside and as it was outside.

    Args:
        seed: seed of the random, NumPy and torch generators inside.
        threads: CPU threads of torch inside.
    """
    with ExitStack() as stack:
        for context in (  # what generators make is run when it is entered
            # without the command line, of which ``Config`` would take ``--epochs=3`` for a setting of its own
            *(warnings.catch_warnings(action="ignore"), _records(), _attributes(sys, argv=["recbole"])),
            *(_numpy(), _scipy(), _yaml()),
            *(torch_threads(threads), _no_anomaly_detection(), _generators(seed), _no_tensorboard(), _masks()),
        ):
            stack.enter_context(context)
        yield


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Compute with so many CPU threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _records() -> Iterator[None]:
    """Hand what is logged to the root logger, as RecBole does, to the logger ``methods.recbole``."""

    def forward(record: logging.LogRecord) -> bool:
        plain = copy.copy(record)
        plain.name, plain.args = _log.name, ()
        plain.msg = re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage())
        _log.handle(plain)
        return False

    # The root's filters see what is logged to the root itself and not what its children pass on.
    root = logging.getLogger()
    root.addFilter(forward)
    try:
        yield
    finally:
        root.removeFilter(forward)


@contextmanager
def _numpy() -> Iterator[None]:
    """Names that NumPy 2 dropped; the other ones ``Config`` sets itself."""
    set_by_config = ("bool", "int", "float", "complex", "object", "str", "long", "unicode")
    kept = {name: vars(np)[name] for name in set_by_config if name in vars(np)}
    with _attributes(np, float_=np.float64, complex_=np.complex128, unicode_=np.str_, **kept):
        try:
            yield
        finally:
            for name in set_by_config:
                vars(np).pop(name, None)


@contextmanager
def _scipy() -> Iterator[None]:
    """``dok_matrix._update``, which LightGCN calls and SciPy 1.13 dropped."""
    from scipy.sparse import dok_matrix

    def update(matrix: Any, entries: dict[tuple[int, int], float]) -> None:
        matrix._dict.update(entries)

    with _attributes(dok_matrix, _update=getattr(dok_matrix, "_update", update)):
        yield


@contextmanager
def _yaml() -> Iterator[None]:
    """Undo the float resolver that every ``Config`` adds to the shared loader class."""
    import yaml

    with _attributes(yaml.FullLoader, yaml_implicit_resolvers=copy.deepcopy(yaml.FullLoader.yaml_implicit_resolvers)):
        yield


@contextmanager
def visible_devices() -> Iterator[None]:
    """Undo what ``Config`` does to CUDA_VISIBLE_DEVICES, before CUDA is started and reads it."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _generators(seed: int) -> Iterator[None]:
    """Seed the global generators as ``recbole.utils.init_seed`` does, and restore their states."""
    import torch

    cudnn = torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = flags
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _no_anomaly_detection() -> Iterator[None]:
    """Undo what importing RecBole's SINE does: it turns on NaN checks of every gradient, a third of the time."""
    import torch

    before = torch.is_anomaly_enabled()
    import recbole.model.sequential_recommender  # noqa: F401

    torch.autograd.set_detect_anomaly(before)
    yield


@contextmanager
def _no_tensorboard() -> Iterator[None]:
    """Keep the trainer from writing ``./log_tensorboard``."""
    import recbole.trainer.trainer as trainer

    with _attributes(trainer, get_tensorboard=lambda logger: _Silent()):
        yield


@contextmanager
def _masks() -> Iterator[None]:
    """Draw the masks of a batch again where none counts: RecBole's BERT4Rec divides its loss by their number.

    It does not count a mask on the first item of a list, and the last batch may be a few short lists.
    """
    from recbole.data.transform import MaskItemSequence

    draw = MaskItemSequence.__call__

    def drawn(transform: Any, dataset: Any, interaction: Any) -> Any:
        masked = draw(transform, dataset, interaction)
        while not masked[transform.MASK_INDEX].any():
            masked = draw(transform, dataset, interaction)
        return masked

    with _attributes(MaskItemSequence, __call__=drawn):
        yield


class _Silent:
    """Accepts every call of a TensorBoard writer."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@contextmanager
def _attributes(target: object, **values: object) -> Iterator[None]:
    """Attributes set inside, and set back or deleted outside."""
    own = vars(target)
    before = {name: own[name] for name in values if name in own}
    for name, value in values.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(target, name, before[name])
            else:
                delattr(target, name)
