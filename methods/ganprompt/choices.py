"""Names that settings choose by."""

from typing import Literal

AttributeSource = Literal["lexicon", "llm", "masked"]
DistanceName = Literal["cosine-js", "euclidean", "mmd"]
Adversarial = Literal["cooperative", "zero-sum", "none"]
TargetSide = Literal["encoder", "decoder"]
Scoring = Literal["plain", "mean"]
