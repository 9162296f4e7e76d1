"""CTRL: a collaborative model aligned with a text encoder, then tuned and served alone."""
