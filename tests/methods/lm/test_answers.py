import json

import pytest

from data import recorded
from methods.lm.answers import Generation, judge, key


@pytest.mark.parametrize(
    ("text", "finish", "problem"),
    [
        ("A quiet film about trains.", "stop", None),
        ("Sorry, Wrong Number is a thriller.", "stop", None),
        ("Sorry I Missed You is a drama.", "stop", None),
        ("I'm Sorry, We Have a Baby\nAlien", "stop", None),
        ("Sorry, I\u2019d rather not.", "stop", "refused"),
        ("sorry, but I can't", "stop", "refused"),
        ("  \n", "stop", "empty"),
        (None, "stop", "empty"),
        (None, "tool_calls", "non-text"),
        (["a", "list"], "stop", "non-text"),
        ("... • !!", "stop", "non-text"),
        ("3, 1, 2", "stop", None),
        ("broken \ufffd\ufffd", "stop", "non-text"),
        ("I\u2019m sorry, but I can\u2019t help with that.", "stop", "refused"),
        ("I cannot describe this film.", "stop", "refused"),
        ("As an AI language model, I have not seen it.", "stop", "refused"),
        ("", "content_filter", "refused"),
        ("A film about a man who", "length", "truncated"),
    ],
)
def test_unusable_answers_are_told_from_usable_ones(text: object, finish: str, problem: str | None) -> None:
    assert judge(text, finish)[1] == problem


def test_recorded_answers_are_all_usable() -> None:
    file = recorded.path("ml-100k")
    assert file is not None
    responses = [json.loads(line)["response"] for line in file.read_text(encoding="utf-8").splitlines()]
    assert [response for response in responses if judge(response)[1]] == []


def test_key_depends_on_model_prompt_and_arguments() -> None:
    plain = Generation()
    keys = {key("m", "p", plain), key("n", "p", plain), key("m", "q", plain), key("m", "p", plain.again())}
    assert len(keys) == 4 and key("m", "p", Generation()) in keys
