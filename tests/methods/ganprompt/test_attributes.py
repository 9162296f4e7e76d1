"""Attributes come from a lexicon, a masked language model or a client, are counted, cached and logged."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from data.histories import Histories
from data.prompts.template import Prompt, Wording
from methods.base import NotRunnable
from methods.ganprompt.attributes import (
    LexiconSource,
    MaskedSource,
    attributes,
    lexicon,
    most_frequent,
    named,
    open_source,
    prompts,
    whole_words,
)
from methods.lm.open import LlmChoice
from methods.lm.sentences import SentenceEncoder
from methods.lm.words import word_tokenizer
from tests.methods.ganprompt.world import SEEN, make

TEMPLATE = next(t for t in SEEN if t.id == "attribute-generate")


@dataclass
class Fixed:
    """Fills in what it is told to."""

    fillings: Sequence[Sequence[str]]
    identity: str = "fixed"
    asked: int = 0

    def fill(self, prompts: Sequence[Prompt]) -> list[list[str]]:
        self.asked += 1
        return [list(words) for words in self.fillings]


def test_the_most_frequent_fillings_win() -> None:
    assert most_frequent([["a", "b"], ["c", "a"], ["c", "b"], ["a", "c"], ["c", "a"]], 2) == ["c", "a"]


def test_where_too_few_are_ever_the_best_those_that_come_next_follow() -> None:
    assert most_frequent([["a", "b", "c"], ["a", "c", "b"], ["a", "c", "b"]], 3) == ["a", "c", "b"]
    assert most_frequent([[], ["a"]], 3) == ["a"]


def test_the_lexicon_has_the_data_sets_own_categories_and_general_words(tmp_path: Path) -> None:
    catalogue = make(tmp_path).catalogue
    fields = {
        "genres": ["Action, Drama"] + ["Drama"] * (catalogue.n_items - 2) + [""],
        "categories": [""] * (catalogue.n_items - 10) + ["Toys & Games > Puzzles > Toys & Games, Drama"] * 10,
    }
    catalogue = replace(catalogue, fields={name: tuple(texts) for name, texts in fields.items()})
    words = lexicon(catalogue, most=4, everywhere=1.0)
    assert words[:4] == ("drama", "toys & games", "puzzles", "action")
    assert {"plot", "brand"} <= set(words) and "" not in words
    assert lexicon(catalogue, most=4)[0] == "toys & games"  # "drama" tells no user from another


@pytest.mark.parametrize("field", ["class", "genre"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [("Film-Noir Children's", ("film-noir", "children's")), ("Film Noir, Drama", ("film noir", "drama"))],
)
def test_genres_in_the_fields_of_recboles_movielens_files_stand_apart_by_spaces(
    tmp_path: Path, field: str, text: str, expected: tuple[str, str]
) -> None:
    catalogue = make(tmp_path).catalogue
    texts = (text, *["Western"] * (catalogue.n_items - 1))
    words = lexicon(replace(catalogue, fields={field: texts}), everywhere=1.0)
    assert words[:3] == ("western", *expected)


def test_prompts_are_the_papers_template_up_to_the_attribute(tmp_path: Path) -> None:
    task = make(tmp_path)
    asked = prompts(task, TEMPLATE, users=5)
    assert len(asked) == 5
    assert asked[0].prefix.startswith("You are a professional shopper")
    assert asked[0].prefix.endswith("If you recommend movies to this user, you should focus on ")
    titles = [task.catalogue.titles[item] for item in task.train[0].tolist()[-task.history_length :]]
    assert ", ".join(titles) in prompts(task, TEMPLATE, users=100)[0].prefix
    assert sum(asked[0].prefix.count(title) for title in task.catalogue.titles) == task.history_length


def test_the_lexicon_is_ranked_by_similarity_to_the_prompt(tmp_path: Path) -> None:
    task = make(tmp_path)
    catalogue = replace(task.catalogue, titles=("The Cheapest Bargain at the Lowest Cost",) * 32)
    asked = prompts(replace(task, catalogue=catalogue), TEMPLATE, users=2)
    source = LexiconSource(("soundtrack", "price", "director"), SentenceEncoder(cache=tmp_path))
    assert [row[0] for row in source.fill(asked)] == ["price", "price"]


def test_a_masked_language_model_fills_the_mask(tmp_path: Path) -> None:
    task = make(tmp_path)
    asked = prompts(task, TEMPLATE, users=3)
    tokenizer = word_tokenizer([asked[0].prefix, "plot the director Director", "[MASK]"], 256)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **small))
    with torch.no_grad():
        bias = model.cls.predictions.decoder.bias
        for word, value in {"Director": 30.0, "director": 25.0, "plot": 20.0, "the": 40.0, ",": 50.0}.items():
            bias[tokenizer.convert_tokens_to_ids(word)] = value
    model.save_pretrained(tmp_path / "masked")
    tokenizer.save_pretrained(tmp_path / "masked")
    found = MaskedSource(str(tmp_path / "masked")).fill(asked)
    assert [row[:2] for row in found] == [["director", "plot"]] * 3
    assert all(len(set(row)) == len(row) for row in found)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["plot", "##ting", "Cast", "the"], {0: "plot", 2: "cast"}),
        (["Ġplot", "ting", "Cast", "Ġthe"], {0: "plot"}),
        (["▁plot", "ting", "▁Cast", "▁"], {0: "plot", 2: "cast"}),
    ],
)
def test_pieces_that_go_on_with_a_word_are_no_attributes(tokens: list[str], expected: dict[int, str]) -> None:
    assert whole_words(tokens) == expected


def test_a_hub_that_cannot_be_reached_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts(make(tmp_path), TEMPLATE, users=1)
    sources = []

    def spy(**source: object) -> None:
        sources.append(source)
        raise OSError("not here")

    monkeypatch.setattr("methods.lm.hub._hub_reachable", lambda: False)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", spy)
    with pytest.raises(
        NotRunnable, match=r"cannot load masked language model 'some/masked-model': .* was not fetched before"
    ):
        MaskedSource("some/masked-model").fill(asked)
    assert [source["local_files_only"] for source in sources] == [True]


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    asked = prompts(make(tmp_path), TEMPLATE, users=1)
    with pytest.raises(NotRunnable, match=r"cannot load masked language model"):
        MaskedSource(str(tmp_path)).fill(asked)


def test_recorded_answers_of_a_language_model_are_attributes(tmp_path: Path) -> None:
    task = make(tmp_path)
    asked = prompts(task, TEMPLATE, users=3)
    file = tmp_path / "answers.jsonl"
    keys = [hashlib.sha256(prompt.prefix.rstrip().encode()).hexdigest() for prompt in asked]
    answers = ({"item_id": "", "request_sha256": key, "response": "the PLOT, above all."} for key in keys)
    file.write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
    source = open_source(task, "llm", "", LlmChoice(f"recorded:{file}"))
    assert source.fill(asked) == [["plot"]] * 3


def test_sources_that_may_change_behind_their_names_are_asked_again(tmp_path: Path) -> None:
    task = make(tmp_path)
    asked = prompts(task, TEMPLATE, users=3)
    for identity, expected in (("", "cast"), ("a name", "plot")):
        first, later = Fixed([["plot"]], identity), Fixed([["cast"]], identity)
        assert attributes(task, first, asked, 1) == ("plot",)
        assert attributes(task, later, asked, 1) == (expected,)
    assert MaskedSource(str(tmp_path)).identity == "" != MaskedSource("bert-base-uncased").identity


@pytest.mark.parametrize(
    ("answer", "attribute"),
    [
        ("Based on the history, focus on the plot.", ["plot"]),
        ("Sure! Genre.", ["genre"]),
        ("plot", ["plot"]),
        ("The release date, then the plot of this user", ["release date"]),
        ("Sci-Fi", ["sci-fi"]),
        ("As an AI language model, I would be focusing on the plot.", ["plot"]),
        ("The plot is what I would focus on.", ["plot"]),
        ("", []),
    ],
)
def test_the_attribute_of_an_answer_is_a_known_word_or_else_its_last(answer: str, attribute: list[str]) -> None:
    assert named(answer, ("date", "plot", "release date", "sci-fi")) == attribute


def test_without_anybody_to_ask_the_command_that_would_is_given(tmp_path: Path) -> None:
    with pytest.raises(NotRunnable, match=r"no recorded answers for two-tastes.*--llm endpoint:MODEL"):
        open_source(make(tmp_path), "llm", "", LlmChoice())


def test_attributes_are_found_once_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = make(tmp_path)
    asked, source = prompts(task, TEMPLATE, users=2), Fixed([["plot", "cast"], ["cast", "plot"]])
    with caplog.at_level(logging.INFO):
        first, again = (attributes(task, source, asked, 2) for _ in range(2))
    assert first == again == ("cast", "plot") and source.asked == 1
    assert "attributes of two-tastes: cast, plot" in caplog.text


def test_users_who_chose_nothing_are_not_asked_about(tmp_path: Path) -> None:
    task = make(tmp_path)
    rows = [task.train[user] if user % 2 else task.train[user][:0] for user in range(len(task.train))]
    asked = prompts(replace(task, train=Histories.of(rows)), TEMPLATE, len(rows))
    assert len(asked) == len(rows) // 2 and all(s.text for one in asked for s in one.segments if s.slot == "history")


def test_another_source_or_other_prompts_are_asked_anew(tmp_path: Path) -> None:
    task = make(tmp_path)
    asked = prompts(task, TEMPLATE, users=2)
    attributes(task, Fixed([["plot"]]), asked, 1)
    assert attributes(task, Fixed([["cast"]], "other"), asked, 1) == ("cast",)
    assert attributes(task, Fixed([["price"]]), asked[:1], 1) == ("price",)
    longer = replace(TEMPLATE, parts=(*TEMPLATE.parts, Wording(" What a film!")))  # a masked model reads it, too
    assert attributes(task, Fixed([["cast"]]), prompts(task, longer, users=2), 1) == ("cast",)


def test_too_few_attributes_are_an_error(tmp_path: Path) -> None:
    task = make(tmp_path)
    with pytest.raises(NotRunnable, match="1 attributes found, 5 are needed: plot; lower the setting count"):
        attributes(task, Fixed([["plot"]]), prompts(task, TEMPLATE, users=1), 5)
