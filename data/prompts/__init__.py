"""Prompt templates: wording with typed slots, in seen and unseen families."""
