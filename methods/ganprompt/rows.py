"""The method without or with other parts of it, as rows of the leaderboard."""

from functools import partial

from methods.ganprompt.method import GanPrompt

no_gan = partial(GanPrompt, row="no-gan", gan=False)
no_stage1 = partial(GanPrompt, row="no-stage1", stage1_steps=0)
language_only = partial(GanPrompt, row="language-only", gamma=0.0, adversarial="none")
no_diversity = partial(GanPrompt, row="no-diversity", gamma=0.0)
cosine = partial(GanPrompt, row="cosine", beta=0.0)
js = partial(GanPrompt, row="js", alpha=0.0)
js_100 = partial(GanPrompt, row="js-100", alpha=0.0, beta=100.0)
balanced = partial(GanPrompt, row="balanced", beta=100.0)
euclidean = partial(GanPrompt, row="euclidean", distance="euclidean")
mmd = partial(GanPrompt, row="mmd", distance="mmd")
gamma_tenth = partial(GanPrompt, row="gamma-0.1", gamma=0.1)
gamma_third = partial(GanPrompt, row="gamma-0.3", gamma=0.3)
gamma_triple = partial(GanPrompt, row="gamma-3", gamma=3.0)
gamma_tenfold = partial(GanPrompt, row="gamma-10", gamma=10.0)
literal_sign = partial(GanPrompt, row="literal-sign", literal_sign=True)
zero_sum = partial(GanPrompt, row="zero-sum", adversarial="zero-sum")
no_adversary = partial(GanPrompt, row="no-adversary", adversarial="none")
joint = partial(GanPrompt, row="joint", joint=True)
