"""Interactions, item texts, splits, candidates and prompts; knows neither models nor metrics."""
