"""Controlled changes of what a method is shown: one file per family."""
