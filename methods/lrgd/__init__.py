"""LRGD: in-context demonstrations seen as gradient steps on a dual linear model, and chosen by what they do."""
