import hashlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from data.prompts import library
from data.prompts.template import Template, parse
from methods import hooks
from methods.base import NotRunnable, Requests, Task
from methods.llmrec.method import AUGMENTED, STRATEGIES, LlmRec
from methods.llmrec.pagerank import important_neighbours
from methods.llmrec.texts import augment, describe
from methods.lm.answers import Answer, Generation
from methods.lm.client import LlmClient
from methods.lm.sentences import SentenceEncoder
from methods.registry import MethodError, create, names
from tests.methods.lm.small import make_task

TEMPLATES = {template.id: template for template in library.templates("augment")}
SEEN = [template for template in TEMPLATES.values() if template.family == "seen"]


def record(task: Task, file: Path, unusable: Sequence[str] = (), empty: str = "eng") -> None:
    """Recorded answers to all prompts that say what is in the title; to ``empty`` none for ``unusable`` items."""
    catalogue = task.catalogue
    descriptions = [f"This is about {title}." for title in catalogue.titles]
    neighbours = important_neighbours(task.train, catalogue.n_items)
    asked = {"describe-title": describe(catalogue, TEMPLATES)}
    others = [template for template in TEMPLATES.values() if template.strategy != "original"]
    asked |= {template.id: augment(template, catalogue, descriptions, neighbours) for template in others}
    with file.open("w") as lines:
        for prompt, requests in asked.items():
            for item, title, request, description in zip(
                catalogue.item_ids, catalogue.titles, requests, descriptions, strict=True
            ):
                response = description if prompt == "describe-title" else f"{prompt}: {title}."
                if item in unusable and prompt == empty:
                    response = ""
                digest = hashlib.sha256(request.encode()).hexdigest()
                lines.write(
                    json.dumps({"item_id": item, "prompt": prompt, "request_sha256": digest, "response": response})
                    + "\n"
                )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llmrec")
    record(make_task(folder), folder / "recorded.jsonl", unusable=("i0", "i3"))
    return folder


@pytest.fixture
def task(folder: Path) -> Task:
    return make_task(folder)


def fitted(task: Task, strategy: str, seed: int = 0, **settings: object) -> LlmRec:
    method = LlmRec(strategy, llm=f"recorded:{task.compute.cache / 'recorded.jsonl'}", rate=3e-3, **settings)  # type: ignore[arg-type]
    method.fit(task, seed)
    return method


def worded(requests: Requests, *templates: Template) -> Requests:
    rows = tuple(templates[row % len(templates)] for row in range(len(requests)))
    return replace(requests, templates={"augment": rows})


def test_every_strategy_is_a_row() -> None:
    rows = names(["llmrec/*"])
    assert rows == tuple(f"llmrec/{strategy}" for strategy in STRATEGIES)
    assert [create(row).info.name for row in rows] == list(rows)
    assert create("llmrec").info.roles == {"augment"}
    assert create("llmrec/original").info.roles == frozenset()


@pytest.mark.parametrize("strategy", ["title", "original", "rec-eng"])
def test_tastes_that_the_titles_tell_are_learned(task: Task, strategy: str) -> None:
    scores = fitted(task, strategy).score(task.valid)
    target = np.take_along_axis(scores, task.valid_positive[:, None], axis=1)
    assert (scores.argmax(axis=1) == task.valid_positive).mean() > 0.9
    assert scores.shape == task.valid.candidates.shape and np.isfinite(target).all()


def test_the_same_seed_gives_the_same_bits_whole_or_in_chunks(task: Task) -> None:
    first, second = fitted(task, "rec-eng"), fitted(task, "rec-eng")
    whole = first.score(task.valid)
    rows = np.arange(len(task.valid))
    chunks = [second.score(task.valid.select(chunk)) for chunk in np.array_split(rows, 4)]
    assert np.array_equal(whole, np.concatenate(chunks))
    assert not np.array_equal(whole, fitted(task, "rec-eng", seed=1).score(task.valid))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"neighbour_score": "rank"}, "neighbour_score is 'ppr/degree' or 'ppr', not 'rank'"),
        *(({"restart": share}, "restart is more than 0 and at most 1") for share in (-1.0, 0.0, 1.1)),
        ({"dropout": 1.0}, "dropout is at least 0 and below 1"),
        ({"decay": -0.1}, "decay is at least 0, not -0.1"),
        ({"decay": float("nan")}, "decay is at least 0, not nan"),
        ({"epochs": 0}, "epochs is at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LlmRec("original", **settings)  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="strategy"):
        create("llmrec", {"strategy": "eng"})


def test_rows_with_an_unseen_template_rest_on_the_unseen_answers(task: Task) -> None:
    method = fitted(task, "rec-paraphrase")
    seen = method.score(worded(task.valid, *SEEN))
    mixed = method.score(worded(task.valid, TEMPLATES["eng"], TEMPLATES["basic-summarise-unseen"]))
    assert np.array_equal(seen, method.score(task.valid))
    assert np.array_equal(seen[::2], mixed[::2])
    assert not np.array_equal(seen[1::2], mixed[1::2])


def test_another_unseen_wording_than_the_suites_takes_the_place_of_what_it_replaces(task: Task) -> None:
    own = replace(TEMPLATES["eng"], id="eng-again", family="unseen", replaces="eng")
    with pytest.raises(NotRunnable, match="eng-again"):
        fitted(task, "eng").score(worded(task.valid, replace(own, parts=parse("In a word: {description}"))))
    same_words = fitted(task, "eng")
    assert np.array_equal(same_words.score(worded(task.valid, own)), same_words.score(task.valid))


@pytest.mark.parametrize("strategy", ["title", "original", "basic-characterise", "eng"])
def test_strategies_without_an_unseen_wording_are_not_reached(task: Task, strategy: str) -> None:
    method = fitted(task, strategy)
    unseen = method.score(worded(task.valid, TEMPLATES["rec-eng-unseen"]))
    assert np.array_equal(unseen, method.score(worded(task.valid, *SEEN)))


def test_perturbed_wording_does_not_reach_recorded_answers(task: Task) -> None:
    method = fitted(task, "all")
    typos = [template.map_wording(str.swapcase) for template in SEEN]
    assert np.array_equal(method.score(worded(task.valid, *typos)), method.score(worded(task.valid, *SEEN)))


@pytest.mark.parametrize("strategy", ["title", "rec-eng"])
def test_noise_in_titles_is_encoded_anew(task: Task, strategy: str) -> None:
    method = fitted(task, strategy)
    noisy = replace(task.valid.catalogue, titles=tuple(title[::-1] for title in task.valid.catalogue.titles))
    clean = method.score(task.valid)
    assert not np.allclose(method.score(replace(task.valid, catalogue=noisy)), clean)
    assert np.array_equal(method.score(task.valid), clean)


def test_noise_reaches_the_description_and_the_answers(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    method, encode, read = fitted(task, "rec-eng"), SentenceEncoder.encode, list[str]()

    def reading(encoder: SentenceEncoder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        read.extend(texts)
        return encode(encoder, texts)

    monkeypatch.setattr(SentenceEncoder, "encode", reading)
    clean = method.score(task.valid)
    noisy = method.score(replace(task.valid, noise=lambda text: text[::-1]))
    titles = task.catalogue.titles
    originals = [f"{title}. {f'This is about {title}.'[::-1]}" for title in titles]
    assert read[-2 * len(titles) :] == originals + [f"rec-eng: {title}."[::-1] for title in titles]
    assert not np.allclose(noisy, clean)
    assert np.array_equal(method.score(task.valid), clean)


def test_descriptions_of_the_data_set_come_before_a_language_models(task: Task) -> None:
    texts = tuple(f"About {title}" for title in task.catalogue.titles)
    catalogue = replace(task.catalogue, fields={"description": texts}, name="no answers recorded")
    own = replace(task, catalogue=catalogue, valid=replace(task.valid, catalogue=catalogue))
    method = LlmRec("original", rate=3e-3)
    method.fit(own, seed=0)
    noisy = replace(catalogue, fields={"description": tuple(text[::-1] for text in texts)})
    assert not np.allclose(method.score(own.valid), method.score(replace(own.valid, catalogue=noisy)))


def test_an_item_without_a_description_has_its_title_once_and_is_no_unusable_answer(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles, encoded = task.catalogue.titles, list[str]()
    texts = ("", *(f"About {title}" for title in titles[1:]))
    catalogue = replace(task.catalogue, fields={"description": texts}, name="no answers recorded")
    encode = SentenceEncoder.encode
    monkeypatch.setattr(SentenceEncoder, "encode", lambda self, texts: encoded.extend(texts) or encode(self, texts))
    report = LlmRec("original", epochs=1).fit(
        replace(task, catalogue=catalogue, valid=replace(task.valid, catalogue=catalogue)), 0
    )
    assert encoded == [titles[0], *(f"{title}. About {title}" for title in titles[1:])]
    assert report.note == ""


def test_an_item_whose_description_is_no_usable_answer_has_its_title_once(task: Task, tmp_path: Path) -> None:
    answers = (task.compute.cache / "recorded.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in answers]
    title = task.catalogue.titles[3]
    for record in records:
        if record["item_id"] == "i3" and record["prompt"] == "describe-title":
            record["response"] = ""
    (tmp_path / "recorded.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    method = LlmRec("original", llm=f"recorded:{tmp_path / 'recorded.jsonl'}", epochs=1)
    method.fit(task, seed=0)
    assert method.ledger.note == "1 item without a usable answer to describe"
    assert method._original(task.valid)[3] == title


def test_answers_to_an_unseen_wording_that_cannot_be_used_are_counted_when_it_is_shown(
    task: Task, tmp_path: Path
) -> None:
    record(task, tmp_path / "recorded.jsonl", unusable=("i1", "i2"), empty="rec-eng-unseen")
    method = LlmRec("rec-eng", llm=f"recorded:{tmp_path / 'recorded.jsonl'}", epochs=1)
    method.fit(task, seed=0)
    assert (hooks.unusable(method), hooks.artifacts(method)) == ("", {})
    method.score(worded(task.valid, TEMPLATES["rec-eng-unseen"]))
    assert hooks.unusable(method) == "2 items without a usable answer to rec-eng-unseen"
    assert hooks.ledger(method) == {"fallbacks": {"describe": 0, "rec-eng": 0, "rec-eng-unseen": 2}}
    assert len(hooks.artifacts(method)["unusable-answers.jsonl"].splitlines()) == 2


@pytest.mark.parametrize("strategy", ["rec-eng", "eng", "original", "all"])
def test_the_estimate_counts_what_a_run_asks(task: Task, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        model, parallel, batch_size, retries = "counting", 1, 1, 0

        def answers(self, prompts: Sequence[str], generation: Generation, requests: int) -> tuple[list[Answer], int]:
            asked.extend(prompts)
            return [Answer(prompt) for prompt in prompts], len(prompts)

    asked: list[str] = []
    client = LlmClient(Counting(), cache=task.compute.cache / f"{strategy}.sqlite")
    monkeypatch.setattr("methods.llmrec.method.open_client", lambda *_: client)
    shown = [worded(task.valid, *SEEN), worded(task.valid, TEMPLATES["rec-eng-unseen"])]
    method = LlmRec(strategy, epochs=1)
    said = method.estimate(task, shown)
    method.fit(task, seed=0)
    for requests in shown:
        method.score(requests)
    assert said.startswith(f"{len(asked)} requests") and len(asked) >= task.catalogue.n_items


def test_items_without_a_usable_answer_keep_their_description_and_are_counted(task: Task) -> None:
    method = LlmRec("eng", llm=f"recorded:{task.compute.cache / 'recorded.jsonl'}", epochs=1)
    report = method.fit(task, seed=0)
    assert method.ledger.note == "2 items without a usable answer to eng" and report.note.startswith("no unseen")
    unusable = [json.loads(line) for line in method.artifacts["unusable-answers.jsonl"].splitlines()]
    assert len(unusable) == 2 and {entry["problem"] for entry in unusable} == {"empty"}
    assert method._texts is not None
    assert method._texts.augmented(TEMPLATES["eng"])[0] == method._texts.descriptions()[0]
    assert report.converged is False and report.epochs == 1


@pytest.mark.parametrize("strategy", ["original", *AUGMENTED, "all"])
def test_without_answers_a_row_is_not_run_and_says_how_to_fill_them(task: Task, strategy: str) -> None:
    with pytest.raises(NotRunnable, match=r"python -m methods\.llmrec\.fill --dataset .*two-tastes.* --split"):
        LlmRec(strategy).fit(task, seed=0)


def test_answers_to_other_prompts_are_not_taken(task: Task, tmp_path: Path) -> None:
    other = make_task(tmp_path, seed=5)  # other neighbours, so other prompts
    with pytest.raises(NotRunnable, match="no answer is known"):
        LlmRec("eng", llm=f"recorded:{task.compute.cache / 'recorded.jsonl'}").fit(other, seed=0)


def test_title_needs_no_answers(task: Task) -> None:
    LlmRec("title", epochs=1).fit(task, seed=0)


def test_the_best_strategy_on_validation_is_named(task: Task) -> None:
    method = create("llmrec", {"llm": f"recorded:{task.compute.cache / 'recorded.jsonl'}", "epochs": 3})
    report = method.fit(task, seed=0)
    best = report.note.partition(",")[0]
    shown = report.note.partition("(ndcg@10: ")[2].partition(")")[0]
    quality = dict(part.split() for part in shown.split(", "))
    assert quality.keys() == STRATEGIES.keys() - {"title"}
    assert quality[best] == max(quality.values()) > min(quality.values())
    assert report.trials == len(STRATEGIES) - 1
    single = create(f"llmrec/{best}", {"llm": f"recorded:{task.compute.cache / 'recorded.jsonl'}", "epochs": 3})
    single.fit(task, seed=0)
    assert np.array_equal(method.score(task.valid), single.score(task.valid))


def test_the_best_strategy_may_have_no_prompt_and_says_so(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.llmrec.method.STRATEGIES", {"original": (), "all": ()})
    method = create("llmrec", {"llm": f"recorded:{task.compute.cache / 'recorded.jsonl'}", "epochs": 1})
    assert "its texts come from no prompt" in method.fit(task, seed=0).note


@pytest.mark.parametrize(("row", "walks"), [("llmrec", 1), ("llmrec/all", 1), ("llmrec/rec-summarise", 0)])
def test_neighbours_are_looked_for_once_and_only_for_prompts_that_name_them(
    task: Task, monkeypatch: pytest.MonkeyPatch, row: str, walks: int
) -> None:
    made = []

    def counted(*args: object) -> list[npt.NDArray[np.int64]]:
        made.append(args)
        return important_neighbours(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("methods.llmrec.method.important_neighbours", counted)
    settings = {"llm": f"recorded:{task.compute.cache / 'recorded.jsonl'}", "epochs": 1}
    method = create(row, settings)
    method.fit(task, seed=0)
    method.score(worded(task.valid, TEMPLATES["rec-eng-unseen"]))
    assert len(made) == walks
    create(row, settings).estimate(task, [])
    assert len(made) == 2 * walks


def test_neighbours_are_walked_to_as_is_set(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[object] = []
    monkeypatch.setattr("methods.llmrec.method.important_neighbours", lambda *a: walks.append(a[2:]) or [])
    LlmRec(neighbours=2, restart=0.4, neighbour_score="ppr").open_neighbours(task)()
    assert walks == [(2, 0.4, "ppr")]


def test_the_rate_and_the_decay_are_those_of_the_settings(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    made, adam = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: made.append(k) or adam(*a, **k))
    fitted(task, "original", epochs=1, decay=0.3)
    assert made == [{"lr": 3e-3, "weight_decay": 0.3}]


def test_every_text_of_an_item_is_contrasted_on_its_own(task: Task) -> None:
    method = fitted(task, "eng", epochs=1)
    parts = np.split(method._encode(task.valid, [method._templates["eng"]]), 2, axis=1)
    assert [float((part**2).mean()) for part in parts] == pytest.approx([1.0, 1.0], rel=1e-4)


def test_a_fitted_row_does_not_hold_the_vectors_it_learnt_from(task: Task) -> None:
    method = fitted(task, "all", hidden=1, size=1)
    vectors = 384 * (1 + len(AUGMENTED)) * task.catalogue.n_items * np.dtype(np.float32).itemsize
    assert len(pickle.dumps(method)) < vectors


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="no strategy 'best'"):
        LlmRec("best")
