import difflib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from data.dataset import Domain
from data.prompts.library import check_disjoint, read_templates, templates
from data.prompts.template import (
    DOMAIN,
    ListStyle,
    Role,
    Segment,
    Slot,
    Template,
    TemplateError,
    Wording,
    parse,
)

MOVIES = Domain("movie", "movies", "watch", "watched", "watching", "viewer")
RECOMMEND = templates("recommend")
SEEN = [template for template in RECOMMEND if template.family == "seen"]
UNSEEN = [template for template in RECOMMEND if template.family == "unseen"]


def make(text: str, **values: object) -> Template:
    return Template("t", "recommend", "seen", parse(text), **values)  # type: ignore[arg-type]


def words(template: Template) -> list[str]:
    wording = " ".join(part.text for part in template.parts if isinstance(part, Wording))
    return re.findall(r"[a-z]+", wording.lower())


def write(path: Path, *tables: str, role: str = "recommend") -> Path:
    path.write_text(f'role = "{role}"\n' + "".join(f"[[template]]\n{table}\n" for table in tables))
    return path


def test_parse_keeps_wording_and_slots_in_order() -> None:
    assert parse("Seen: {history}. Next {target}") == (
        Wording("Seen: "),
        Slot("history"),
        Wording(". Next "),
        Slot("target"),
    )


def test_parse_of_the_source_gives_the_template_back() -> None:
    for template in RECOMMEND:
        assert parse(template.source) == template.parts


def test_an_unknown_slot_is_named_with_the_known_ones() -> None:
    with pytest.raises(TemplateError, match=r"unknown slot \{histroy\}.*attribute, candidates"):
        parse("Given {histroy}")


@pytest.mark.parametrize("text", ["Given {history", "Given history}", "Given {}", "Given { history }"])
def test_an_unmatched_brace_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError, match="unmatched brace"):
        parse(text)


def test_filling_writes_titles_domain_words_and_labels() -> None:
    template = make("{consumer} {consumed} {history}. {target}? {positive}/{negative}:", labels=("Sure", "Never"))
    prompt = template.fill(MOVIES, {"history": ["Alien", "Brazil"], "target": "Cube"})
    assert prompt.text == "viewer watched Alien, Brazil. Cube? Sure/Never:"


def test_a_slot_without_value_stays_open_until_it_gets_one() -> None:
    prompt = make("After {history}, is {target} next? {target}:").fill(MOVIES, {"history": ["Alien"]})
    with pytest.raises(TemplateError, match=r"slot \{target\} has no value"):
        _ = prompt.text
    assert prompt.prefix == "After Alien, is "
    assert prompt.with_value("target", "Cube").text == "After Alien, is Cube next? Cube:"


def test_a_prompt_knows_which_slot_each_segment_fills() -> None:
    prompt = make("After {history}:").fill(MOVIES, {"history": ["Alien"]})
    assert prompt.segments == (Segment("After "), Segment("Alien", "history"), Segment(":"))


@pytest.mark.parametrize("values", [{"history": "Alien"}, {"target": ["Alien"]}])
def test_a_value_of_the_wrong_type_is_an_error(values: dict[str, str]) -> None:
    with pytest.raises(TemplateError, match="takes"):
        make("After {history}, is {target} next?").fill(MOVIES, values)


def test_a_list_style_leaves_the_titles_alone() -> None:
    style = ListStyle(separator="\n", before='{n}. "', after='"')
    assert style.join(["{n}", "Alien, 3"]) == '1. "{n}"\n2. "Alien, 3"'


def test_mapping_the_wording_leaves_slots_and_labels_alone() -> None:
    template = make("after {history}: {positive}?", labels=("yes", "no")).map_wording(str.upper)
    assert template.source == "AFTER {history}: {positive}?"
    assert template.labels == ("yes", "no")


def test_templates_are_read_from_a_file(tmp_path: Path) -> None:
    table = 'id = "x"\nfamily = "unseen"\ntext = """\nAfter {history}, {target}?"""\nlabels = ["Sure", "Never"]'
    (template,) = read_templates(write(tmp_path / "own.toml", table))
    assert (template.id, template.role, template.family) == ("x", "recommend", "unseen")
    assert template.source == "After {history}, {target}?"
    assert template.labels == ("Sure", "Never")


GOOD = 'id = "x"\nfamily = "seen"\ntext = "After {history}, {target}?"'


def test_a_template_that_demonstrates_has_a_place_for_demonstrations(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'role = "demonstrate"\n[[template]]\n{GOOD}\n', encoding="utf-8")
    with pytest.raises(TemplateError, match=r"role 'demonstrate' needs slots \['demonstrations'\]"):
        read_templates(path)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            ['id = "x"\nfamily = "seen"\ntext = "After {history}?"'],
            r"'x': role 'recommend' needs slots \['target'\]",
        ),
        (['id = "x"\nfamily = "seen"\ntext = "{history} {titel}"'], r"'x': unknown slot \{titel\}"),
        (
            ['id = "x"\nfamily = "seen"\ntext = "{history} {target} {attribute}"'],
            r"'x': role 'recommend' has no values for slots \['attribute'\]; it has \['history', 'target'\]",
        ),
        (
            ['id = "x"\nfamily = "hidden"\ntext = "{history} {target}"'],
            "family is 'seen' or 'unseen', not 'hidden'",
        ),
        (['family = "seen"\ntext = "{history} {target}"'], r"template 1: missing keys \['id'\]"),
        ([GOOD + '\ncolour = "red"'], r"unknown keys \['colour'\]"),
        ([GOOD + '\nlabels = ["Yes"]'], "labels are two different words"),
        *(
            ([GOOD + f"\nlabels = {labels}"], "labels are two different words")
            for labels in (["Yes", "Yes"], ["Yes ", " Yes"], ["Yes", " "], ["Yes", 1])
        ),
        *(
            ([GOOD.replace('"x"', value)], "id is a text that is not empty")
            for value in ("7", '["x"]', "true", '""', '" "')
        ),
        *(
            ([GOOD + f"\n{key} = {value}"], f"'x': {key} is a text that is not empty, not {value}")
            for key, value in (("replaces", 3), ("strategy", 1.5), ("separator", 3), ("separator", "''"))
        ),
        (['id = "x"\nfamily = "seen"\ntext = 3'], "'x': text is a text that is not empty, not 3"),
        ([GOOD, GOOD], "'x': id used twice"),
    ],
)
def test_an_unusable_template_is_named_with_its_file(tmp_path: Path, tables: list[str], message: str) -> None:
    with pytest.raises(TemplateError, match=r"own\.toml.*" + message):
        read_templates(write(tmp_path / "own.toml", *tables))


def test_a_file_without_role_names_the_missing_key(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f"[[template]]\n{GOOD}\n")
    with pytest.raises(TemplateError, match=r"own\.toml: missing keys \['role'\], unknown keys \[\]"):
        read_templates(tmp_path / "own.toml")


@pytest.mark.parametrize(
    "content",
    [
        "",
        'role = "recommend"',
        "role =",
        'role = "recomend"\n[[template]]\nid = "x"',
        'role = "recommend"\n[template]\nid = "x"',
        'role = "recommend"\ntemplate = ["x"]',
        'role = "recommend" # \xe9',
    ],
)
def test_a_file_that_is_no_template_file_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(TemplateError, match=r"own\.toml: "):
        read_templates(path)
    with pytest.raises(TemplateError, match=r"none\.toml: cannot be read: No such file"):
        read_templates(tmp_path / "none.toml")


def test_further_files_add_templates_of_their_role_only(tmp_path: Path) -> None:
    own = write(tmp_path / "own.toml", GOOD)
    other = write(tmp_path / "other.toml", 'id = "y"\nfamily = "seen"\ntext = "About {history}"', role="sequential")
    assert [t.id for t in templates("recommend", [own, other])] == [*(t.id for t in RECOMMEND), "x"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            f'id = "copy"\nfamily = "unseen"\ntext = "{RECOMMEND[1].source}"',
            "'recommend-seen-02' and 'copy' have the same",
        ),
        (GOOD.replace('"x"', '"recommend-seen-02"'), r"used twice: \['recommend-seen-02'\]"),
    ],
)
def test_a_template_that_repeats_one_of_another_file_is_named_with_the_files(
    tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(TemplateError, match=rf"recommend\.toml, own\.toml: template.*{message}"):
        templates("recommend", [write(tmp_path / "own.toml", table)])


def test_a_role_without_templates_is_an_error_that_names_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.prompts.library.resources.files", lambda _: Path(__file__).parent)
    with pytest.raises(TemplateError, match="no templates for role 'recommend'; roles with templates are"):
        templates("recommend")


@pytest.mark.parametrize(
    "text",
    [
        "After {history}, is {target} next?",
        "AFTER {history} is\n{target} -- next: ",
        "After {history}; is {target}, next.",
    ],
)
def test_an_unseen_template_with_the_words_of_a_seen_one_is_caught(text: str) -> None:
    seen = make("After {history}, is {target} next?")
    copy = replace(make(text), id="u", family="unseen")
    with pytest.raises(TemplateError, match="templates 't' and 'u' have the same words"):
        check_disjoint([seen, copy])


def test_templates_with_other_words_or_another_order_are_different() -> None:
    check_disjoint(
        [
            make("After {history}, is {target} next?"),
            replace(make("Following {history}, is {target} next?"), id="u"),
            replace(make("After {target}, is {history} next?"), id="v"),
        ]
    )


def test_an_id_used_twice_is_caught() -> None:
    with pytest.raises(TemplateError, match=r"template ids used twice: \['t'\]"):
        check_disjoint([make("After {history}, is {target} next?"), make("Is {target} after {history}?")])


def test_both_families_have_at_least_twelve_templates() -> None:
    assert len(SEEN) >= 12
    assert len(UNSEEN) >= 12


@pytest.mark.parametrize("role", ["recommend", "rank"])
def test_templates_are_named_after_role_and_family(role: Role) -> None:
    for name in ("seen", "unseen"):
        family = [template for template in templates(role) if template.family == name]
        assert [template.id for template in family] == [f"{role}-{name}-{n:02}" for n in range(1, len(family) + 1)]
    assert len(family) == len(UNSEEN)


@pytest.mark.parametrize("template", RECOMMEND, ids=lambda template: template.id)
def test_the_next_word_after_a_recommend_template_is_the_label(template: Template) -> None:
    last = template.parts[-1]
    assert isinstance(last, Wording), "a template ends with its own words, not with a value"
    assert re.search(r"[?:;\w]$", last.text), "the sentence is left for the label to finish"


@pytest.mark.parametrize("template", [*RECOMMEND, *templates("rank")], ids=lambda template: template.id)
def test_a_template_holds_for_every_domain(template: Template) -> None:
    hard_coded = r"\b(movies?|films?|watch\w*|view\w*|books?|read|products?|bought|buy\w*|purchas\w*|customers?)\b"
    found = re.findall(hard_coded, " ".join(words(template)))
    assert found in ([], ["read"]), "words of a domain are slots"
    slots = "|".join(DOMAIN)
    assert not re.search(rf"\ban? \{{({slots})\}}", template.source, re.IGNORECASE), "a or an depends on the domain"
    assert not re.search(rf"(^|[.?!\n] ?)\{{({slots})\}}", template.source), "domain words are in lower case"
    assert not re.search(rf"\{{({slots})\}}\w", template.source), "endings depend on the domain"
    assert "user" not in template.slots, "ids mean nothing to a language model"
    assert template.labels == ("Yes", "No")
    filled = template.fill(MOVIES, {"history": ["Alien", "Brazil"], "target": "Cube", "candidates": ["Cube"]}).text
    assert filled.count("Alien, Brazil") == 1
    assert filled.count("Cube") == 1


@pytest.mark.parametrize("role", ["recommend", "rank", "demonstrate"])
def test_an_unseen_template_is_no_near_copy_of_a_seen_one(role: Role) -> None:
    family = {name: [t for t in templates(role) if t.family == name] for name in ("seen", "unseen")}
    known = {word for seen in family["seen"] for word in words(seen)}
    for unseen in family["unseen"]:
        ratios = [difflib.SequenceMatcher(None, words(unseen), words(seen)).ratio() for seen in family["seen"]]
        assert max(ratios) < 0.5
        assert len(set(words(unseen)) - known) >= 2


@pytest.mark.parametrize("family", [SEEN, UNSEEN], ids=["seen", "unseen"])
def test_each_family_varies_in_length_order_and_instruction(family: list[Template]) -> None:
    lengths = [len(words(template)) for template in family]
    assert min(lengths) <= 8
    assert max(lengths) >= 60
    target_first = [t for t in family if t.slots.index("target") < t.slots.index("history")]
    assert 2 <= len(target_first) <= 3
    instructed = [t for t in family if "positive" in t.slots]
    assert 0 < len(instructed) < len(family)


@pytest.mark.parametrize("role", ["recommend", "sequential", "demonstrate"])
def test_known_words_are_those_of_seen_recommend_templates_in_another_order(role: Role) -> None:
    known = {word for template in SEEN for word in re.findall(r"\w+", template.source)}
    everything = templates(role, ["known-words"])
    assert everything[:-6] == templates(role)
    for new in everything[-6:]:
        assert new.family == "unseen" and "-known-" in new.id
        text = " ".join(part.text for part in new.parts if isinstance(part, Wording))
        assert set(re.findall(r"\w+", text)) <= known
        assert all(
            difflib.SequenceMatcher(None, words(new), words(seen)).ratio() < 0.6
            for seen in everything
            if seen.family == "seen"
        )


def test_set_that_is_not_there_is_answered_with_its_neighbour() -> None:
    with pytest.raises(TemplateError, match="no templates 'known-word': did you mean 'known-words'"):
        templates("recommend", ["known-word"])


def test_a_byte_order_mark_before_templates_is_none_of_them(tmp_path: Path) -> None:
    text = f'role = "recommend"\n[[template]]\nid = "mine"\nfamily = "unseen"\ntext = "{UNSEEN[0].source}"\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8-sig")
    assert [template.id for template in read_templates(tmp_path / "mine.toml")] == ["mine"]
