"""GANPrompt's rows: what each is named after."""

import pytest

from benchmarks import suite
from methods import registry
from methods.base import Task
from methods.ganprompt import stage1, stage2
from methods.ganprompt.diversity import Diversity
from methods.ganprompt.method import GanPrompt
from tests.methods.ganprompt.world import Stopped, without

ROWS = [name for name in registry.REGISTRY if name.startswith("ganprompt")]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_name_it_is_registered_under_and_settings_of_its_own(row: str) -> None:
    method, full = registry.create(row), registry.create("ganprompt")
    assert method.info.name == row and method.info.roles == {"recommend"}
    others = {name for name in GanPrompt.__dataclass_fields__ if getattr(method, name) != getattr(full, name)}
    both = row in ("ganprompt/js-100", "ganprompt/language-only")
    assert row == "ganprompt" or len(others) == 2 + both  # its name, and what it is about


def test_a_row_does_not_take_the_settings_that_make_it() -> None:
    for row in ROWS:
        for setting in registry.fixed(row):
            with pytest.raises(registry.MethodError, match=f"{row!r}: {setting} makes the row what it is"):
                registry.create(row, {setting: getattr(registry.create(row), setting)})


GAMES = {
    "ganprompt": (Diversity(), "cooperative"),
    "ganprompt/language-only": (Diversity(gamma=0.0), "none"),
    "ganprompt/no-diversity": (Diversity(gamma=0.0), "cooperative"),
    "ganprompt/cosine": (Diversity(beta=0.0), "cooperative"),
    "ganprompt/js": (Diversity(alpha=0.0), "cooperative"),
    "ganprompt/js-100": (Diversity(alpha=0.0, beta=100.0), "cooperative"),
    "ganprompt/balanced": (Diversity(beta=100.0), "cooperative"),
    "ganprompt/euclidean": (Diversity(distance="euclidean"), "cooperative"),
    "ganprompt/mmd": (Diversity(distance="mmd"), "cooperative"),
    **{f"ganprompt/gamma-{gamma:g}": (Diversity(gamma=gamma), "cooperative") for gamma in (0.1, 0.3, 3.0, 10.0)},
    "ganprompt/literal-sign": (Diversity(literal_sign=True), "cooperative"),
    "ganprompt/zero-sum": (Diversity(), "zero-sum"),
    "ganprompt/no-adversary": (Diversity(), "none"),
    "ganprompt/joint": (Diversity(), "cooperative"),
    "ganprompt/no-gan": None,
    "ganprompt/no-stage1": None,
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_plays_the_game_it_is_named_after(task: Task, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    played: list[stage1.Game] = []
    monkeypatch.setattr(stage1, "generate", lambda game, *_: played.append(game))

    def tuned(*_: object, joint: tuple[stage1.Game, float] | None, **more: object) -> None:
        assert (joint is not None) == (row == "ganprompt/joint")
        played.extend(joint[:1] if joint else [])
        raise Stopped

    monkeypatch.setattr(stage2, "tune", tuned)
    with pytest.raises(Stopped):
        registry.create(row, without("stage1_steps") | {"adversarial_weight": 0.5}).fit(task, seed=0)
    assert [(game.diversity, game.adversarial) for game in played] == [GAMES[row]] * (GAMES[row] is not None)
    assert all(game.weight == 0.5 for game in played)


@pytest.mark.parametrize("name", ["ablation-ganprompt", "ablation-ganprompt-long"])
def test_the_suites_run_every_row_with_a_stage_2(name: str) -> None:
    found = suite.load(name)
    rows = {row: registry.create(row, found.settings[row]) for row in registry.names(found.methods)}
    assert set(rows) == set(ROWS) == set(GAMES)
    assert {row.least_epochs for row in rows.values()} == {1}  # type: ignore[attr-defined]
    assert rows["ganprompt/no-stage1"].stage1_steps == 0  # type: ignore[attr-defined]
