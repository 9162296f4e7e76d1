"""GANPrompt: a generator of diverse prompt embeddings, and a decoder tuned behind it (arXiv 2408.09671)."""
