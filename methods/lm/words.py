"""The word-level tokenizer of the embedded backbones."""

import string
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
ENDINGS = ("s", "ed", "ing", "er", "ers", "ly", "es", "en", "ion", "able", "al", "y", "e", "'")
PIECES = r"\n|\w+|[^\w\s]"
"""A token is a run of word characters, one symbol, or a line break; other white space only separates."""


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Special tokens, every word of the texts, single characters, and endings that make further forms of a word.

    >>> words = vocabulary(["Alien 3"])
    >>> "Alien" in words, "##s" in words
    (True, True)
    """
    cut = _pieces().pre_tokenize_str
    words = sorted({word for text in texts for word, _ in cut(text)})
    printable = set(string.printable) - set(string.whitespace)
    characters = sorted(printable | set("".join(words)) - {"\n"})
    endings = (f"##{ending}" for ending in ENDINGS)
    return list(dict.fromkeys([PAD, UNKNOWN, START, END, "\n", *characters, *endings, *words]))


def _pieces() -> "PreTokenizer":
    """Cuts texts into pieces; Python's own expressions would cut words at combining marks, as this does not."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)


def word_tokenizer(texts: Iterable[str], window: int) -> "PreTrainedTokenizerFast":
    """A fast tokenizer whose vocabulary holds every word of the texts as one token.

    Another word is a known word and an ending (WordPiece), or else one unknown token. Case counts. Tokens never
    span a character that is not a word character, so that pieces of a prompt can be tokenised on their own.

    Args:
        texts: what the vocabulary is made of.
        window: longest sequence of the model.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: number for number, token in enumerate(vocabulary(texts))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = _pieces()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, ids[START])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        model_max_length=window,
        clean_up_tokenization_spaces=False,
    )
