"""The client against a real server: ``transformers serve`` on loopback, with a small model made here."""

import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from methods.lm.answers import Generation, LlmError
from methods.lm.client import LlmClient
from methods.lm.endpoint import Endpoint
from methods.lm.local import LocalModel

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "describe", "the", "film", "a", "quiet", "story", "about", "trains", ":"]


def make_chat_model(folder: Path) -> Path:
    """A random two-layer Llama over a few words, with a chat template, as the hub would have it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.decoder = decoders.Sequence([decoders.Replace("</w>", " ")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.chat_template = "{% for m in messages %}<s> {{ m['content'] }} {% endfor %}:"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("chat-model"))


def test_a_local_model_answers_the_same_alone_and_in_a_batch(tmp_path: Path, folder: Path) -> None:
    prompts = ["describe the film", "a quiet story about trains", "describe the quiet story"]
    asked = LlmClient(LocalModel(str(folder)), cache=tmp_path / "a", generation=Generation(max_tokens=12))
    alone = LlmClient(LocalModel(str(folder), batch_size=1), cache=tmp_path / "b", generation=asked.generation)
    answers = asked.ask(prompts)
    assert answers == alone.ask(prompts)
    assert [entry.problem for entry in asked.ledger] == [entry.problem for entry in alone.ledger]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_local_model_answers_in_the_type_asked_for(tmp_path: Path, folder: Path, dtype: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16").save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    _, model = LocalModel(str(tmp_path), dtype=dtype)._loaded
    assert str(model.dtype) == f"torch.{dtype}"


def test_a_pickle_of_a_local_model_is_its_name(folder: Path) -> None:
    used = LocalModel(str(folder))
    answer, kept = used.answers(["describe the film"], Generation(max_tokens=2), 1), pickle.dumps(used)
    assert len(kept) < 1000
    assert pickle.loads(kept).answers(["describe the film"], Generation(max_tokens=2), 1) == answer


def test_answers_of_another_model_in_the_same_folder_are_its_own(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "model"))
    before = LocalModel(str(own)).model
    assert before.startswith(f"{own} of ") and LocalModel(str(own)).model == before
    (own / "adapter.json").write_text("{}")
    assert LocalModel(str(own)).model != before
    assert LocalModel("Qwen/Qwen3-0.6B").model == "Qwen/Qwen3-0.6B in float32 on cpu"


def test_a_local_model_that_never_ends_is_truncated(folder: Path) -> None:
    (answer,), requests = LocalModel(str(folder)).answers(["describe the film"], Generation(max_tokens=2), 1)
    assert (answer.problem, answer.tokens_out, requests) == ("truncated", 2, 1)
    assert answer.tokens_in == 5


def test_a_local_model_answers_within_its_window(folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=8, bos_token_id=1, eos_token_id=2)
    ).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    (answer,), _ = LocalModel(str(tmp_path)).answers(["the film"], Generation(max_tokens=50), 1)
    assert answer.tokens_in == 4 and 0 < answer.tokens_out <= 4
    with pytest.raises(LlmError, match=r"prompt of 8 tokens leaves no room for an answer of .*: 8 fit"):
        LocalModel(str(tmp_path)).answers(["a film", "the quiet story about trains the"], Generation(), 1)


def test_an_encoder_decoder_is_no_local_model_in_one_line(tmp_path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer, T5Config

    T5Config(d_model=8, num_layers=1, num_heads=1).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(LlmError, match="cannot load local model") as error:
        LocalModel(str(tmp_path)).answers(["film"], Generation(), 1)
    assert "\n" not in str(error.value)


def test_models_that_can_think_are_asked_not_to(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(folder, tmp_path / "thinker")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ messages[0].content }}{% if enable_thinking is false %} quiet{% endif %}"
    tokenizer.save_pretrained(tmp_path / "thinker")
    assert LocalModel(str(tmp_path / "thinker"))._worded("film") == "film quiet"


def test_a_local_model_that_lacks_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shutil.copytree(folder, tmp_path / "headless")
    AutoModelForCausalLM.from_pretrained(folder).base_model.save_pretrained(tmp_path / "headless")
    with pytest.raises(LlmError, match=r"comes without lm_head\.weight"):
        LocalModel(str(tmp_path / "headless")).answers(["film"], Generation(), 1)


def test_a_missing_local_model_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(LlmError, match=r"no folder .* to load a model from"):
        LlmClient(LocalModel(str(tmp_path / "none")), cache=tmp_path / "a").ask(["p"])


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for package in ("fastapi", "uvicorn", "rich"):
        pytest.importorskip(package)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("hub")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = (home / "log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 240
        while not _healthy(port):
            assert server.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_a_served_model_answers_as_it_does_here(
    url: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    prompts = ["describe the film", "a quiet story about trains", "describe the quiet story", "the film"]
    generation = Generation(max_tokens=12)
    served, here = Endpoint(str(folder), timeout=60), LocalModel(str(folder))
    for prompt in prompts:
        (answer,), requests = served.answers([prompt], generation, 3)
        (expected,), _ = here.answers([prompt], generation, 1)
        assert requests == 1
        assert (answer.text, answer.problem) == (expected.text, expected.problem)
        assert answer.tokens_in == expected.tokens_in
    client = LlmClient(served, cache=tmp_path / "answers.sqlite", generation=generation)
    first = client.ask(prompts)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert LlmClient(Endpoint(str(folder)), cache=client.cache, generation=generation).ask(prompts) == first
