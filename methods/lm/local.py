"""A causal language model on this machine, from a Hugging Face id or folder."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.fingerprint import fingerprint, stamps
from methods.lm.answers import Answer, Generation, LlmError, judge
from methods.lm.reloaded import Reloaded


@dataclass
class LocalModel(Reloaded):
    """A model that answers in this process.

    Args:
        name: Hugging Face id or folder.
        device: torch device.
        dtype: torch floating point type.
        batch_size: prompts per call.
    """

    name: str
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 8
    parallel: int = 1
    retries: int = 0

    @property
    def model(self) -> str:
        """Name, and what else its answers depend on."""
        folder = Path(self.name)
        held = f" of {fingerprint(stamps(folder))[:12]}" if folder.is_dir() else ""
        return f"{self.name}{held} in {self.dtype} on {self.device.partition(':')[0]}"

    def answers(self, prompts: Sequence[str], generation: Generation, attempts: int) -> tuple[list[Answer], int]:
        """Answers to prompts, through the model's chat template where it has one.

        An answer ends at the latest where the model's window does.

        Raises:
            LlmError: if the model cannot be loaded, or a prompt fills its window.
        """
        import torch

        from methods.lm.backbone import window

        tokenizer, model = self._loaded
        batch = tokenizer(
            [self._worded(prompt) for prompt in prompts],
            return_tensors="pt",
            padding=True,
            add_special_tokens=not tokenizer.chat_template,
        )
        batch = batch.to(self.device)
        length, limit = batch["input_ids"].shape[1], window(model.config, tokenizer, unsaid=sys.maxsize)
        if length >= limit:
            raise LlmError(f"a prompt of {length} tokens leaves no room for an answer of {self.name!r}: {limit} fit")
        sampling = (
            {"do_sample": False}
            if generation.temperature == 0
            else {"do_sample": True, "temperature": generation.temperature}
        )
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(generation.seed)
            written = model.generate(
                **batch,
                max_new_tokens=min(generation.max_tokens, limit - length),
                pad_token_id=tokenizer.pad_token_id,
                **sampling,
            )[:, length:]
        ends = _end_tokens(model, tokenizer)
        lengths_in = batch["attention_mask"].sum(dim=1).tolist()
        return [self._answer(row, ends, length) for row, length in zip(written.tolist(), lengths_in, strict=True)], 1

    def _answer(self, ids: list[int], ends: set[int], tokens_in: int) -> Answer:
        tokenizer, _ = self._loaded
        stop = next((n for n, token in enumerate(ids) if token in ends), None)
        text, problem = judge(
            tokenizer.decode(ids[:stop], skip_special_tokens=True), "length" if stop is None else "stop"
        )
        return Answer(text, problem, tokens_in, len(ids) if stop is None else stop + 1)

    def _worded(self, prompt: str) -> str:
        tokenizer, _ = self._loaded
        if not tokenizer.chat_template:
            return prompt
        chat = [{"role": "user", "content": prompt}]
        told = {"add_generation_prompt": True, "enable_thinking": False}  # templates ignore what they do not know
        return str(tokenizer.apply_chat_template(chat, tokenize=False, **told))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from methods.lm.backbone import floating
        from methods.lm.hub import BackboneError, load_model, load_part, source_of

        try:
            source = source_of(self.name)
            tokenizer = load_part(AutoTokenizer, self.name, source | {"padding_side": "left"}, "local model")
            model = load_model(AutoModelForCausalLM, self.name, source, "local model", dtype=floating(self.dtype))
        except BackboneError as error:
            raise LlmError(str(error)) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer, model.to(self.device).eval()


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return {token for token in (*ends, tokenizer.eos_token_id) if token is not None}
