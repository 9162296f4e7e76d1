"""Slips of the finger on a QWERTY keyboard."""

import numpy as np

NEIGHBOURS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk",
    "o": "ipkl", "p": "ol", "a": "qwsz", "s": "adwezx", "d": "sferxc", "f": "dgrtcv", "g": "fhtyvb",
    "h": "gjyubn", "j": "hkuinm", "k": "jliom", "l": "kop", "z": "asx", "x": "zcsd", "c": "xvdf", "v": "cbfg",
    "b": "vngh", "n": "bmhj", "m": "njk", "1": "2", "2": "13", "3": "24", "4": "35", "5": "46", "6": "57",
    "7": "68", "8": "79", "9": "80", "0": "9",
}  # fmt: skip


def neighbouring_key(character: str, rng: np.random.Generator) -> str:
    """A letter or digit beside the given one, in its case; twice the character itself where none is known.

    >>> rng = np.random.default_rng(0)
    >>> neighbouring_key("M", rng), neighbouring_key("7", rng), neighbouring_key("é", rng)
    ('K', '8', 'éé')
    """
    keys = NEIGHBOURS.get(character.lower(), "")
    if not keys:
        return 2 * character
    key = keys[rng.integers(len(keys))]
    return key.upper() if character.isupper() else key
