"""CoLLM: collaborative vectors as tokens inside the prompt of a tuned language model."""
