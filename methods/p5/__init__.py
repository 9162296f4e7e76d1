"""P5: one encoder-decoder for several families of prompts."""
