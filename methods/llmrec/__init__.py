"""LLM-Rec: item texts augmented by a large language model, ranked by a small model."""
