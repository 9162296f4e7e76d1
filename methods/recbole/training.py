"""One training by RecBole's trainer, in a folder of its own that is gone afterwards."""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.spelling import near
from data.types import BoolArray, IntArray
from methods.base import Task
from methods.recbole.environment import visible_devices
from methods.recbole.files import NAME

if TYPE_CHECKING:
    import torch
    from recbole.config import Config

RESERVED = frozenset(
    [
        "model",
        "dataset",
        "data_path",
        "checkpoint_dir",
        "benchmark_filename",
        "load_col",
        "alias_of_item_id",
        "eval_args",
        "repeatable",
        "metrics",
        "topk",
        "seed",
        "MAX_ITEM_LIST_LENGTH",
        "gpu_id",
        "use_gpu",
        "device",
        "valid_metric",
        "valid_metric_bigger",
        "metric_decimal_place",
        "eval_step",
        "stopping_step",
        "loss_type",
        "train_neg_sample_args",
        "save_dataset",
        "save_dataloaders",
        "train_stage",
        "pre_model_path",
        "item_attribute",
        "save_step",
        "transform",
        "log_wandb",
    ]
)
"""Options that the adapter sets itself, beside those of the data set."""

TRAINING = frozenset(
    [
        "learner",
        "weight_decay",
        "clip_grad_norm",
        "eval_batch_size",
        "shuffle",
        "worker",
        "enable_amp",
        "enable_scaler",
    ]
)
"""Options that loaders and trainer read, beside the fields of every model."""

UNLISTED = {"LightGCN": frozenset(["require_pow"])}
"""Options that a model reads and RecBole's file of its defaults does not name."""

IDLE = frozenset(["pooling_mode"])
"""Options that such a file names and that change nothing here: items have no features for DIN to pool."""

LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop")
"""RecBole's optimisers, without sparse_adam: no model here has sparse gradients. An unknown name would mean adam."""

VALID_METRIC = "NDCG@10"
GENERAL_SCORES = 1_000_000


@dataclass
class Stage:
    """RecBole's objects around a model in training."""

    config: "Config"
    dataset: Any
    train_data: Any
    valid_data: Any


@dataclass(frozen=True)
class Trained:
    """A model with the parameters of its best epoch.

    Args:
        model: RecBole's model, in evaluation mode.
        users: RecBole's id of every dense user index.
        items: RecBole's id of every dense item index.
        length: items of the lists the model takes.
        epochs: epochs run.
        stopped: whether early stopping ended the training.
        valid: RecBole's own metrics on the validation part at the best epoch, over all items.
    """

    model: "torch.nn.Module"
    users: IntArray
    items: IntArray
    length: int
    epochs: int
    stopped: bool
    valid: Mapping[str, float]


def stage(model: str, task: Task, folder: Path, length: int, settings: Mapping[str, Any], seed: int) -> Stage:
    """RecBole's configuration, data set and loaders for files in ``folder``.

    Args:
        model: class name of the model in RecBole.
        task: for the device.
        folder: where the files are and checkpoints may go.
        length: items of the longest list.
        settings: RecBole's options of the model.
        seed: seed of the loaders.
    """
    import torch
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import ModelType, get_model

    sequential = get_model(model).type == ModelType.SEQUENTIAL
    config = _config(model, {**_protocol(task, folder, length, sequential, seed), **settings})
    config["device"] = torch.device(task.compute.device)
    config["use_gpu"] = config["device"].type == "cuda"
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    return Stage(config, dataset, train_data, valid_data)


def _config(model: str, settings: Mapping[str, Any]) -> "Config":
    from recbole.config import Config

    with visible_devices():
        # No device is named here, since Config would hide all others from CUDA.
        return Config(model, NAME, config_dict={**settings, "gpu_id": ""})


def _protocol(task: Task, folder: Path, length: int, sequential: bool, seed: int) -> dict[str, Any]:
    """What is the same for every model."""
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        # data_preparation wants three parts; nothing is ever asked of the last one.
        "benchmark_filename": ["train", "valid", "valid"],
        "load_col": None,
        "alias_of_item_id": ["item_id_list"] if sequential else None,
        "MAX_ITEM_LIST_LENGTH": length,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "repeatable": sequential,
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": VALID_METRIC,
        "valid_metric_bigger": True,
        # With the default of 4 places equal scores are common, and each one resets the patience.
        "metric_decimal_place": 10,
        "eval_step": 1,
        # General models count users times items, sequential ones rows.
        "eval_batch_size": 1024 if sequential else max(GENERAL_SCORES, task.catalogue.n_items),
        "seed": seed % 2**32,
        "show_progress": False,
        "train_neg_sample_args": None,
    }


def check_options(model: str, options: Mapping[str, Any]) -> None:
    """Refuse options that RecBole would ignore or that the adapter sets itself.

    Raises:
        ValueError: naming the option, and the nearest known one or the values it can have.
    """
    from recbole.utils import argument_list

    reserved = RESERVED.union(argument_list.dataset_arguments)
    known = TRAINING.union(_own_options(model), UNLISTED.get(model, ())) - reserved - IDLE
    for option in options:
        if option in reserved:
            raise ValueError(f"RecBole option {option!r} is set by the suite and cannot be changed")
        if option not in known:
            raise ValueError(f"{model} reads no option {option!r}: {near(option, known)}".rstrip(": "))
    if "learner" in options and str(options["learner"]).lower() not in LEARNERS:
        raise ValueError(f"learner is {', '.join(LEARNERS[:-1])} or {LEARNERS[-1]}, not {options['learner']!r}")


def _own_options(model: str) -> Set[str]:
    """Options in the file of defaults that RecBole has for a model."""
    import yaml

    file = resources.files("recbole").joinpath("properties", "model", f"{model}.yaml")
    options: dict[str, object] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return options.keys()


def build(prepared: Stage) -> "torch.nn.Module":
    """The model of the stage, freshly initialised."""
    from recbole.utils import get_model

    built = get_model(prepared.config["model"])(prepared.config, prepared.train_data.dataset)
    model: torch.nn.Module = built.to(prepared.config["device"])
    return model


def pretrain(prepared: Stage, epochs: int, path: Path) -> "torch.nn.Module":
    """S3Rec after pretraining, ready for finetuning.

    Args:
        prepared: configuration and data, in the stage ``pretrain``; is taken to the stage ``finetune``.
        epochs: passes over the training rows.
        path: file through which the parameters pass from one stage to the next.
    """
    import torch
    from recbole.utils import get_trainer

    config = prepared.config
    config["pretrain_epochs"] = epochs
    model = build(prepared)
    get_trainer(config["MODEL_TYPE"], config["model"])(config, model).fit(prepared.train_data, verbose=False)
    torch.save({"state_dict": model.state_dict()}, path)
    config["train_stage"], config["pre_model_path"] = "finetune", str(path)
    return build(prepared)


def train(prepared: Stage, model: "torch.nn.Module", task: Task, on_epoch: Callable[[], object]) -> Trained:
    """Train until the validation metric no longer improves, and go back to the best epoch.

    Args:
        prepared: configuration and data.
        model: the model to train.
        task: for the numbers of users and items.
        on_epoch: called after every epoch that is validated.
    """
    from recbole.utils import get_trainer

    config = prepared.config
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    best: dict[str, Any] = {}
    log = logging.getLogger("methods.recbole")

    def keep(epoch: int, score: float) -> None:
        on_epoch()
        log.info("epoch %d: validation %s %.4f", epoch, config["valid_metric"], score)
        # The trainer's own rule: at a score at least as good as the best one it sets the step to 0.
        if trainer.cur_step == 0 and not math.isnan(score):
            best.update(copy.deepcopy(model.state_dict()))

    trainer.fit(prepared.train_data, prepared.valid_data, verbose=False, saved=False, callback_fn=keep)
    model.load_state_dict(best)
    if hasattr(model, "restore_user_e"):
        # LightGCN keeps the propagated embeddings of the last epoch it was evaluated at.
        vars(model).update(restore_user_e=None, restore_item_e=None)
    model.eval()
    return Trained(
        model=model,
        users=_ids(prepared.dataset.field2token_id["user_id"], task.catalogue.n_users),
        items=_ids(prepared.dataset.field2token_id["item_id"], task.catalogue.n_items),
        length=config["MAX_ITEM_LIST_LENGTH"],
        epochs=len(trainer.train_loss_dict),
        stopped=trainer.cur_step > trainer.stopping_step,
        valid=dict(trainer.best_valid_result or {}),
    )


def average_users(trained: Trained, known: BoolArray) -> int:
    """Give every user of whom a model has learnt nothing the mean vector of the others, in place of a random one.

    Args:
        trained: the model.
        known: whether it was trained on rows of a user, by dense index.

    Returns:
        How many users got it; 0 where the model has no vector per user.
    """
    import torch

    model = trained.model
    embedding = getattr(model, "user_embedding", None)
    if embedding is None or known.all() or not known.any():
        return 0
    with torch.no_grad():
        vectors = embedding.weight
        if hasattr(model, "restore_user_e"):  # LightGCN ranks with what its graph makes of the vectors
            vectors, items = model.forward()
            vars(model).update(restore_user_e=vectors, restore_item_e=items)
        vectors[torch.from_numpy(trained.users[~known])] = vectors[torch.from_numpy(trained.users[known])].mean(dim=0)
    return int((~known).sum())


def _ids(tokens: Mapping[str, int], count: int) -> IntArray:
    return np.array([tokens[str(index)] for index in range(count)], np.int64)
