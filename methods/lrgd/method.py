"""The recommender with demonstrations in its prompts."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data.prompts.template import Role
from data.random import generator
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Space, Task, require_templates
from methods.checks import check_least, check_types
from methods.lrgd.demonstrations import Demonstration, Order, PoolSize, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from methods.lm.backbone import Backbone
    from methods.lrgd.attention import Material
    from methods.lrgd.icl import Prompt
    from methods.lrgd.robust import Choice

PAPER = "our variant of arXiv 2504.04386"
ROLE: Role = "demonstrate"
DEFAULT_BACKBONE = "tiny-llama"
LEAST = {"shots": 0, "own": 0, "others": 0, "targets": 0, "training_steps": 0} | dict.fromkeys(
    ("shown", "valid_users", "valid_negatives", "negatives", "backbone_steps"), 1
)
STRENGTHS = ("alpha", "beta", "eps")


@dataclass
class Lrgd:
    """In-context recommender: demonstrations selected by Effect_D (stage 1), a changed dual step (stage 2).

    Args:
        shots: demonstrations per prompt.
        strategy: ``effect``, ``random``, ``recent`` or ``similar``.
        own: demonstrations to choose from: of the user's own earlier behaviour.
        others: of similar users.
        shown: history items of a demonstration.
        redundancy: weight of the redundancy penalty of stage 1.
        targets: pseudo-targets per user.
        order: first-order effect, ``removal`` or ``update``.
        stage_two: whether alpha, beta and eps are chosen.
        alpha: regularised start; chosen on the validation part if None.
        beta: negative demonstrations; chosen if None.
        eps: noise on demonstration keys; chosen if None.
        valid_users: validation users stage 2 looks at, with every seen template.
        valid_negatives: negatives of each of them.
        negatives: prompts with wrong choices that mean(v_neg) is taken over.
        training_steps: steps with demonstrations an embedded backbone gets.
        told: share of the prompts of that training whose answers are choices that a demonstration shows, where it
            shows any.
        backbone_steps: optimiser steps of an embedded backbone; its recipe's own if None.
        row: name of the row.
    """

    shots: int = 4
    strategy: Strategy = "effect"
    own: int = 4
    others: int = 12
    shown: int = 3
    redundancy: float = 0.5
    targets: int = 2
    order: Order = "removal"
    stage_two: bool = True
    alpha: float | None = None
    beta: float | None = None
    eps: float | None = None
    valid_users: int = 80
    valid_negatives: int = 49
    negatives: int = 32
    training_steps: int = 400
    told: float = 0.8
    backbone_steps: int | None = None
    row: str = ""

    space: ClassVar[Space] = {"shown": (2, 3, 5), "others": (6, 12, 24), "redundancy": (0.0, 0.5, 1.0)}

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, LEAST)
        for name, most in {"redundancy": np.inf, "told": 1, "alpha": 1, "beta": np.inf, "eps": np.inf}.items():
            value = getattr(self, name)
            if value is not None and not (0 <= value <= most and np.isfinite(value)):
                raise ValueError(f"{name} is between 0 and {most}, not {value}")
        counts = {"recent": ("own",), "similar": ("others",)}.get(self.strategy, ("own", "others"))
        if self.shots > (available := sum(getattr(self, name) for name in counts)):
            raise ValueError(f"shots is at most {' + '.join(counts)}, which is {available}, not {self.shots}")
        given = [name for name in STRENGTHS if getattr(self, name) is not None]
        if given and not (self.stage_two and self.shots):
            raise ValueError(f"without demonstrations or stage_two nothing is changed: leave {', '.join(given)} out")
        # The embedded backbone learns from the role recommend.
        self.info = MethodInfo(
            name="/".join(filter(None, ("lrgd", self.row))),
            paper=PAPER,
            roles=frozenset({ROLE}),
            learns=frozenset({"recommend"}),
            needs=frozenset({"text", "language model"}),
            cost=160.0 if self.stage_two else 120.0,
        )

    def fit(self, task: Task, seed: int) -> FitReport:
        """Accustom an embedded backbone to demonstrations; choose the strength of stage 2.

        Raises:
            NotRunnable: if there is no seen template, the backbone is not to be had, or a setting makes no sense.
        """
        from methods.lm.backbone import load_backbone
        from methods.lrgd.attention import Strength
        from methods.lrgd.icl import IclScorer
        from methods.lrgd.selection import Selection, Selector
        from methods.lrgd.training import IclTraining, accustomed

        require_templates(self.info, task)
        size = PoolSize(self.own, self.others, self.shown)

        def load(dtype: str) -> "Backbone":
            where = replace(task, compute=replace(task.compute, dtype=dtype))
            return load_backbone(where, DEFAULT_BACKBONE, ("decoder",), self.backbone_steps)

        training = IclTraining(steps=self.training_steps, told=self.told, seed=seed)
        # Nobody chooses an item twice: own earlier choices would only teach that demonstrations are to be ignored.
        backbone, learnt = accustomed(load, task, training, replace(size, own=0))
        selection = Selection(self.strategy, self.shots, size, self.redundancy, self.targets, self.order)
        self.scorer = IclScorer(backbone.model, backbone.encoder(), task.compute.batch_size)
        self.selector = Selector(task, backbone.model, backbone.encoder(), selection, seed)
        self._strength, choice = Strength(), None
        self._material: Material | None = None
        self.forget()
        if self.stage_two and self.shots:
            choice = self._second_stage(task, backbone, seed)
        return FitReport(
            epochs=round(learnt.interactions / max(1, len(task.train.items))),
            interactions=learnt.interactions,
            tokens=backbone.tokens + learnt.tokens,
            reused=backbone.reused,
            trials=choice.trials if choice else 0,
            note=f"{backbone.description}; {self._account(choice)}",
            loss="cross-entropy of the next token" if learnt.tokens else "",
            negatives="all tokens" if learnt.tokens else "",
        )

    def forget(self) -> None:
        """Score everything anew: what many conditions leave as it was is otherwise scored once."""
        self._known: dict[bytes, FloatArray] = {}

    def score(self, requests: Requests) -> FloatArray:
        """Log-probability of every candidate's title as the answer, shape ``[rows, candidates]``."""
        prompts = self._prompts(requests)
        new = {prompt.key: prompt for prompt in prompts if prompt.key not in self._known}
        if new:
            scores = self.scorer.answer_likelihood(list(new.values()), self._strength, self._material)
            self._known.update(zip(new, scores, strict=True))
        return np.stack([self._known[prompt.key] for prompt in prompts])

    def demonstrated(self, requests: Requests) -> list[tuple[Demonstration, ...]]:
        """The demonstrations of every row, as they are shown."""
        users, showing = requests.users.tolist(), requests.showing
        chosen = ((user, self.selector.demonstrations(user, showing.count)) for user in users)
        return [showing.ordered(shown, requests.catalogue.user_ids[user]) for user, shown in chosen]

    def prompt(self, requests: Requests, row: int, shown: tuple[Demonstration, ...]) -> "Prompt":
        """The prompt of a row with some demonstrations, and its candidates' titles as answers."""
        from methods.lrgd.icl import Query, encode

        history = tuple(requests.histories[row].tolist())
        titles = requests.catalogue.named(requests.candidates[row])
        query = Query(requests.templates[ROLE][row], requests.catalogue, history, shown)
        return encode(self.scorer.encoder, query, titles)

    def _prompts(self, requests: Requests) -> "list[Prompt]":
        return [self.prompt(requests, row, shown) for row, shown in enumerate(self.demonstrated(requests))]

    def _second_stage(self, task: Task, backbone: "Backbone", seed: int) -> "Choice":
        """Set the strength: given values as they are, others chosen for the worst seen template."""
        from methods.lm.tuning import valid_sample
        from methods.lrgd.attention import UNCHANGED, Material, Strength
        from methods.lrgd.robust import GRID, choose, worst
        from methods.ranks import mid_rank, ndcg

        negative = self._negative(task, backbone, seed)
        self._material = Material.of(backbone.model, backbone.window, negative, seed)
        given = {name: getattr(self, name) for name in STRENGTHS if getattr(self, name) is not None}
        requests = valid_sample(task, self.valid_users, self.valid_negatives, seed)
        rows = ({ROLE: (template,) * len(requests)} for template in task.templates[ROLE])
        worded = [self._prompts(replace(requests, templates=templates)) for templates in rows]

        def quality(strength: Strength) -> float:
            each = (self.scorer.answer_likelihood(prompts, strength, self._material) for prompts in worded)
            return worst([ndcg(mid_rank(scores)) for scores in each])

        grid = {name: values for name, values in GRID.items() if name not in given}
        choice = choose(lambda strength: quality(replace(strength, **given)), grid)
        self._strength = replace(choice.strength, **given)
        return replace(choice, strength=self._strength, plain=quality(UNCHANGED) if given else choice.plain)

    def _negative(self, task: Task, backbone: "Backbone", seed: int) -> "Tensor":
        """Mean value of the tokens of demonstrations that end in an item not chosen by the user they are shown to.

        Items can share a title: a demonstration that would end in one of the user's is left out.
        """
        import torch

        from methods.lm.questions import pick
        from methods.lrgd.attention import mean_values
        from methods.lrgd.icl import Query, encode
        from methods.lrgd.record import record

        rng, titles = generator(seed, "lrgd negatives"), task.catalogue.titles
        items, means, weights = np.unique(task.train.items), [], []
        able = np.flatnonzero(task.train.lengths > 1)
        for user in able[rng.permutation(len(able))[: self.negatives]].tolist():
            others = np.setdiff1d(items, task.train[user])
            if not len(others):
                continue
            wrong = rng.choice(others, self.shots)
            shown = self.selector.demonstrations(user)
            chosen = {titles[item] for item in task.train[user].tolist()}
            demonstrations = tuple(
                replace(one, choice=item)
                for one, item in zip(shown, wrong.tolist(), strict=False)
                if titles[item] not in chosen
            )
            template = pick(task.templates[ROLE], rng)
            history = tuple(task.train[user][-task.history_length :].tolist())
            prompt = encode(backbone.encoder(), Query(template, task.catalogue, history, demonstrations), ["x"])
            tokens = torch.from_numpy(prompt.owner >= 0)[None]
            if tokens.any():
                with torch.no_grad():
                    traces, _ = record(backbone.model, torch.from_numpy(prompt.ids)[None].to(backbone.model.device))
                means.append(mean_values(traces, tokens.to(backbone.model.device)))
                weights.append(int(tokens.sum()))
        if not means:
            raise NotRunnable(
                f"{self.info.name}: there is nothing to demonstrate, because training histories are too short or share "
                "no items, titles do not tell items apart, or no demonstration fits into the model's window"
            )
        return sum(mean * weight for mean, weight in zip(means, weights, strict=True)) / sum(weights)  # type: ignore[return-value]

    def _account(self, choice: "Choice | None") -> str:
        if choice is None:
            return f"{self.shots} demonstrations"
        chosen = self._strength
        return (
            f"{self.shots} demonstrations; alpha {chosen.alpha:g}, beta {chosen.beta:g}, eps {chosen.eps:g}: worst "
            f"seen template ndcg@10 {choice.quality:.4f} on validation, {choice.plain:.4f} unchanged"
        )
