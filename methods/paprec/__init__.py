"""PAP-REC: prompts searched for a frozen recommendation language model."""
