"""Recommenders under one contract: fit once, score any request."""
