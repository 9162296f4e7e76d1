"""Models with random weights, of the sizes that speed and memory are measured at."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VOCABULARY = {"t5-base": 32128, "llama-1b": 128256}


def tiny_llama(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """The embedded decoder, untrained."""
    from methods.lm.tiny import TinyLlama

    sizes = TinyLlama()
    return llama(len(tokenizer), sizes.width, sizes.inner, sizes.layers, sizes.heads, sizes.heads)


def llama_1b(_: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """A decoder of the sizes of Llama 3.2 1B."""
    return llama(VOCABULARY["llama-1b"], 2048, 8192, 16, 32, 8)


def llama(vocabulary: int, width: int, inner: int, layers: int, heads: int, key_heads: int) -> "PreTrainedModel":
    """A Llama of these sizes with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def tiny_t5(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """The embedded encoder-decoder, untrained."""
    from methods.lm.tiny_t5 import TinyT5, make_tiny_t5

    return make_tiny_t5(TinyT5(), tokenizer)  # type: ignore[arg-type]


def t5_base(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """An encoder-decoder of the sizes of T5 base."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY["t5-base"],
        d_model=768,
        d_kv=64,
        d_ff=3072,
        num_layers=12,
        num_heads=12,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.bos_token_id
    return T5ForConditionalGeneration(config)
