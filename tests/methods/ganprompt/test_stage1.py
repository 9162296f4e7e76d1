"""Stage 1 makes embeddings more diverse by changing the encoder alone, and stops when the generator collapses."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from methods.base import Task
from methods.ganprompt.discriminator import Discriminator
from methods.ganprompt.diversity import Diversity, cosine_distance, jensen_shannon, mean_pairwise
from methods.ganprompt.stage1 import Game, GeneratorCollapsed, Step, Watch, encoder_part, generate
from methods.ganprompt.stage2 import EncDecAnswers, label_loss
from tests.methods.ganprompt.world import ATTRIBUTES, DIVERSITY, NAMES, answers, batch, lessons, make


@pytest.fixture
def task(tmp_path) -> Task:
    return make(tmp_path)


def game(own: EncDecAnswers, adversarial: str = "cooperative", diversity: Diversity = DIVERSITY) -> Game:
    judge = Discriminator(32, 1 + len(NAMES), 16, 1e-2, 0, own.model.device)
    return Game(own.model, own.reader, own.catalogue, ATTRIBUTES, diversity, adversarial, 0.1, judge, seed=0)


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def run(task: Task, steps: int = 12, rate: float = 3e-3, **settings) -> tuple[Game, EncDecAnswers]:
    own = answers(task)
    played = game(own, **settings)
    generate(played, partial(label_loss, own), lessons(task, 4 * steps, 4), rate)
    return played, own


def test_embeddings_are_those_of_every_class_prompt_on_its_own(task):
    own = answers(task)
    histories = [task.train[0][:3], task.train[1][:5]]
    played = game(own)
    found = played.embeddings(played.prompts(histories, np.random.default_rng(0)))
    assert found.shape == (2, 1 + len(NAMES), 32)
    from methods.ganprompt.prompts import classes

    rng = np.random.default_rng(0)
    for row, history in zip(found, histories, strict=True):
        wording = ATTRIBUTES.wordings[int(rng.integers(len(ATTRIBUTES.wordings)))]
        titles = [task.catalogue.titles[item] for item in history.tolist()]
        for vector, template in zip(row, classes(wording, NAMES), strict=True):
            text = template.fill(task.catalogue.domain, {"history": titles}).text
            ids = torch.tensor([own.encoder.tokenizer(text)["input_ids"]])
            expected = own.model.get_encoder()(input_ids=ids).last_hidden_state[0].mean(0)
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=0)


def test_another_seed_draws_other_wordings(task):
    own, histories = answers(task), [task.train[0][:3]] * 8
    games = (replace(game(own), seed=seed) for seed in (0, 1))
    first, second = ([ids.tolist() for ids in one.prompts(histories, one._rng)] for one in games)
    assert first != second


def test_a_learning_encoder_embeds_equal_prompts_alike_and_with_gradients(task):
    own = answers(task)
    played, learning = game(own), encoder_part(own.model, 1e-3).module.train()
    prompts = played.prompts([task.train[0][:3]], np.random.default_rng(0))
    first, again = played.embeddings(prompts), played.embeddings(prompts)
    assert own.model.config.dropout_rate > 0 and torch.equal(first, again)
    assert first.requires_grad and learning.training


def test_distances_in_bfloat16_are_those_in_single_precision(task):
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        own = answers(task)
        own.model.to(dtype)
        played = game(own)
        embeddings = played.embeddings(played.prompts([task.train[0][:3]], np.random.default_rng(0)))
        found.append([float(mean_pairwise(each, embeddings).detach()) for each in (cosine_distance, jensen_shannon)])
    np.testing.assert_allclose(found[1], found[0], rtol=0.05)


def test_diversity_rises_and_decoder_and_word_embeddings_stay(task):
    own = answers(task)
    before = state(own.model)
    played = game(own)
    generate(played, partial(label_loss, own), lessons(task, 80, 4), 3e-3)
    first, last = played.watch.steps[0], played.watch.steps[-1]
    assert last.diversity > 1.3 * first.diversity and len(played.watch.steps) == 20
    changed = {name for name, value in own.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("encoder.block") or "final_layer_norm" in name for name in changed)
    assert not any(name.startswith(("decoder", "shared", "lm_head")) or "embed_tokens" in name for name in changed)
    assert not any(p.requires_grad for p in own.model.parameters())


def test_without_diversity_term_and_adversary_it_is_the_language_loss_alone(task):
    own = answers(task)
    played = game(own, "none", replace(DIVERSITY, gamma=0.0))
    shown = batch(task)
    language = label_loss(own, shown)
    torch.testing.assert_close(played.loss(shown, language), language)


def test_the_loss_is_the_sum_of_its_parts(task):
    own = answers(task)
    shown, language = batch(task), torch.tensor(2.0)
    losses, wrong = {}, None
    for mode in ("cooperative", "zero-sum", "none"):
        losses[mode] = float(game(own, mode).loss(shown, language))
    fresh = game(own)
    embeddings = fresh.embeddings(fresh.prompts([e.shown.history for e in shown], fresh._rng))
    assert losses["none"] == pytest.approx(2.0 + float(DIVERSITY.term(embeddings)), abs=1e-5)
    judged = game(own)
    judged.discriminator.learn(embeddings)
    wrong = float(judged.discriminator.loss(embeddings))
    assert losses["cooperative"] - losses["none"] == pytest.approx(0.1 * wrong, abs=1e-5)
    assert losses["none"] - losses["zero-sum"] == pytest.approx(0.1 * wrong, abs=1e-5)


def test_a_cooperative_generator_is_easier_to_judge_than_a_deceiving_one(task):
    plain = replace(DIVERSITY, gamma=0.0)
    helped, _ = run(task, 25, adversarial="cooperative", diversity=plain)
    deceived, _ = run(task, 25, adversarial="zero-sum", diversity=plain)
    last = [np.mean([step.accuracy for step in played.watch.steps[-10:]]) for played in (helped, deceived)]
    assert last[0] > last[1]


def test_with_nothing_asked_of_the_embeddings_nothing_about_them_stops_it(task):
    own = answers(task)
    played = game(own, "none", replace(DIVERSITY, gamma=0.0))
    for number in range(1, 200):
        played.watch.see(step(number, accuracy=0.1, diversity=0.0))
    with pytest.raises(GeneratorCollapsed, match="not a number"):
        played.watch.see(step(200, language=float("nan")))


def test_both_halves_of_the_loss_reach_the_encoder(task):
    def moved(language: float, **settings) -> torch.Tensor:
        own = answers(task)
        played = game(own, **settings)
        generate(played, lambda batch: language * label_loss(own, batch), lessons(task, 4, 4), 1e-3)
        return torch.cat([value.flatten() for value in state(own.model.get_encoder()).values()])

    silent = replace(DIVERSITY, gamma=0.0)
    still = moved(0.0, adversarial="none", diversity=silent)
    assert not torch.equal(moved(1.0, adversarial="none", diversity=silent), still)
    assert not torch.equal(moved(0.0, adversarial="none"), still)
    assert not torch.equal(moved(0.0, diversity=silent), still)


def test_every_step_is_logged(task, caplog):
    with caplog.at_level("INFO", "methods.ganprompt.stage1"):
        run(task, 3)
    lines = [record.getMessage() for record in caplog.records if record.name == "methods.ganprompt.stage1"]
    assert len(lines) == 3 and lines[2].startswith("stage 1: step 3, generator ")
    assert all(f"{name} " in lines[0] for name in ("language", "discriminator", "accuracy", "diversity", "js"))


def test_every_step_is_kept_and_the_same_seed_gives_the_same_steps(task):
    first, again = (run(task, 3)[0].watch for _ in range(2))
    assert first.steps == again.steps and [s.step for s in first.steps] == [1, 2, 3]
    assert all(0 < s.js < s.diversity for s in first.steps)
    lines = first.table().splitlines()
    assert lines[0] == "step,generator,language,discriminator,accuracy,diversity,js" and len(lines) == 4


def step(number: int, **changes: float) -> Step:
    return Step(
        number,
        **{"generator": 1.0, "language": 1.0, "discriminator": 1.0}
        | {"accuracy": 0.9, "diversity": 0.1, "js": 0.1}
        | changes,
    )


def seen(steps) -> None:
    watch = Watch(6, "raise gamma", patience=5, warmup=10)
    for one in steps:
        watch.see(one)


def test_a_number_that_is_none_stops_at_once():
    with pytest.raises(GeneratorCollapsed, match=r"step 2 .* not a number; lower stage1_rate"):
        seen([step(1), step(2, generator=float("nan"))])


def test_diversity_that_stays_away_stops_with_what_to_change():
    with pytest.raises(GeneratorCollapsed, match=r"step 6 .* all attributes have become one; raise gamma"):
        seen([step(1), *(step(n, diversity=1e-5) for n in range(2, 20))])


def test_a_guessing_discriminator_stops_after_its_warm_up():
    with pytest.raises(GeneratorCollapsed, match=r"step 15 .* which is guessing; raise gamma"):
        seen(step(n, accuracy=0.17) for n in range(1, 40))


def test_a_discriminator_that_knows_little_but_learns_does_not_stop_it():
    seen(step(n, accuracy=0.17, discriminator=1.79 - 0.001 * n) for n in range(1, 40))
    with pytest.raises(GeneratorCollapsed, match="which is guessing"):
        seen(step(n, accuracy=0.17, discriminator=1.79 - 0.0005 * n) for n in range(1, 40))


def test_short_dips_do_not_stop_it():
    seen(step(n, diversity=1e-5 if n % 4 else 0.1, accuracy=0.17 if n % 4 else 0.9) for n in range(1, 60))


def test_a_generator_that_does_collapse_is_stopped(task):
    own = answers(task)
    played = game(own, "none", Diversity(alpha=1.0, beta=0.0, gamma=-50.0))
    played.watch = Watch(1 + len(NAMES), "raise gamma", patience=5)
    with pytest.raises(GeneratorCollapsed, match="all attributes have become one; raise gamma"):
        generate(played, partial(label_loss, own), lessons(task, 400, 4), 1e-2)
