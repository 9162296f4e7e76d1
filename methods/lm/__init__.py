"""Language models as rankers: backbones, prompts as tokens, scoring and LoRA."""
