"""Have a language model write the texts of a data set: ``python -m methods.llmrec.fill --help``.

The answers go to ``CACHE-DIR/recorded/DATASET.jsonl``, where ``--methods 'llmrec/*'`` finds them. A data set that comes
with recorded answers, such as ml-100k, is ranked with those: there the file has to be named, ``--llm recorded:FILE``.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from data import sources
from data.dataset import Dataset
from data.errors import InputError
from data.prompts import library
from data.split import SPLITS
from methods.base import Compute
from methods.checks import check_least, check_shares
from methods.llmrec.pagerank import NeighbourScore, important_neighbours
from methods.llmrec.texts import ItemTexts, Job, Once
from methods.lm.answers import LlmError
from methods.lm.batch import export_batch, import_batch
from methods.lm.client import LlmClient
from methods.lm.open import LlmChoice, open_client, recorded_file


def job(dataset: Dataset, client: LlmClient, split: str, count: int, restart: float, score: NeighbourScore) -> Job:
    """The prompts of a data set, with the important neighbours of the training part of a split.

    Args:
        dataset: whose items.
        client: whom to ask.
        split: name of the split.
        count: neighbours per item at most.
        restart: restart probability of the random walk.
        score: what neighbours are ranked by.
    """
    templates = {template.id: template for template in library.templates("augment")}
    train, n_items = SPLITS[split](dataset).train, dataset.catalogue.n_items
    neighbours = Once(partial(important_neighbours, train, n_items, count, restart, score))
    others = tuple(template for template in templates.values() if template.strategy != "original")
    return Job(ItemTexts(client, dataset.catalogue, templates, neighbours), others)


def write(records: Sequence[dict[str, str]], path: Path) -> None:
    """Write recorded answers, replacing the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.partial")
    unfinished.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
    )
    unfinished.replace(path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m methods.llmrec.fill", description=__doc__, allow_abbrev=False)
    command.add_argument("--dataset", required=True, help="name of a data set, or its folder")
    command.add_argument("--llm", required=True, help="endpoint:MODEL (OPENAI_BASE_URL, OPENAI_API_KEY) or local:MODEL")
    command.add_argument(
        "--llm-budget", default="", help="hard caps: requests=1000,tokens=2e6,usd=5,usd-in=0.15,usd-out=0.6"
    )
    command.add_argument("--parallel", type=int, default=8, help="requests under way at once")
    command.add_argument(
        "--split", choices=sorted(SPLITS), default="leave-one-out", help="whose training part gives the neighbours"
    )
    command.add_argument("--neighbours", type=int, default=3, help="important neighbours per item")
    command.add_argument(
        "--neighbour-score",
        choices=get_args(NeighbourScore),
        default="ppr/degree",
        help="what ranks them; ppr as in the paper",
    )
    command.add_argument("--restart", type=float, default=0.15, help="restart probability of the walk that finds them")
    command.add_argument("--min-rating", type=float, default=4.0, help="least rating of a positive")
    command.add_argument("--min-count", type=int, default=5, help="least number of positives of users and items")
    command.add_argument("--device", default="cpu", help="torch device of a local model")
    command.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="its type")
    command.add_argument("--cache-dir", dest="cache", type=Path, default=Path(".cache"), help="folder of the answers")
    action = command.add_mutually_exclusive_group()
    action.add_argument("--dry-run", action="store_true", help="print requests and tokens, ask nothing")
    action.add_argument(
        "--batch-export", type=Path, metavar="FILE", help="write open requests for the OpenAI Batch API"
    )
    action.add_argument("--batch-import", type=Path, metavar="FILE", help="take over results of the OpenAI Batch API")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    command = parser()
    options = command.parse_args(arguments)
    try:
        check_least(options, {"neighbours": 0})
        check_shares(options, ("restart",), zero=False)
    except ValueError as error:
        command.error(str(error))
    try:
        return _run(options)
    except (LlmError, InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    dataset = sources.load(options.dataset, options.min_rating, options.min_count)
    choice = LlmChoice(options.llm, options.llm_budget, run=f"fill {dataset.name}", parallel=options.parallel)
    compute = Compute(device=options.device, dtype=options.dtype, cache=options.cache)
    client = open_client(choice, dataset.name, compute)
    work = job(dataset, client, options.split, options.neighbours, options.restart, options.neighbour_score)
    if options.dry_run:
        print(f"{dataset.name}: {work.estimate()}")
    elif options.batch_export:
        count = export_batch(client, work.open_prompts(), options.batch_export)
        print(
            f"{options.batch_export}: {count} requests"
            + ("" if count else "; nothing is open, run without --batch-export")
        )
    elif options.batch_import:
        imported = import_batch(client, options.batch_import)
        failed = ", ".join(f"{count} with status {status}" for status, count in sorted(imported.failed.items()))
        print(f"{imported.answers} answers taken over" + (f", not answered: {failed}" if failed else ""))
    else:
        target = options.cache / "recorded" / f"{dataset.name}.jsonl"
        write(work.records(), target)
        listed = f"; {len(client.ledger)} unusable answers, listed below" if client.ledger else ""
        print(f"{target}: written{listed}")
        if (found := recorded_file("recorded", dataset.name, options.cache)) != target:
            print(f"{dataset.name} has recorded answers already, {found}; to use these: --llm recorded:{target}")
        for entry in client.ledger:
            print(f"  attempt {entry.attempt}, {entry.problem}: {entry.prompt[:60]!r} -> {entry.text[:60]!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
