"""RecBole's models, trained by RecBole's trainer on the suite's split and scored on its candidates.

Source: Zhao et al., "RecBole: towards a unified, comprehensive and efficient framework for recommendation
algorithms", 2021. Adding a model is one class in ``methods/recbole/models.py`` and one registration line.
"""
