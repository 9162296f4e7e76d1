"""The command line: ``python -m benchmarks.run``.

Heavy packages are imported by the commands that need them, so that ``--help`` answers at once.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

Group: TypeAlias = argparse._ArgumentGroup
COMMANDS = ("run", "list", "report", "merge")
READS = {"list": ("what",), "report": ("suite", "output_dir"), "merge": ("what", "output_dir")}
"""What commands other than run read of the command line."""

DESCRIPTION = "Compare prompt-based and classical recommenders, and see whether the ranking holds under unseen prompts."
EPILOG = """examples:
  python -m benchmarks.run --suite robustness
  python -m benchmarks.run --suite smoke --methods sasrec tallrec --output-dir results/try
  python -m benchmarks.run --suite robustness --datasets path/to/atomic-files --methods my.module:MyMethod sasrec
  python -m benchmarks.run list methods
  python -m benchmarks.run report --output-dir results/robustness
  python -m benchmarks.run merge parts/1 parts/2 --output-dir results/robustness

Running the same command again goes on where it was stopped. Exit status: 0 done, 1 a method failed or none could run,
2 the command or its input is not usable, 3 an audit failed.
"""


def parser() -> argparse.ArgumentParser:
    """The command line's parser; abbreviated and unknown flags are refused."""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("command", nargs="?", default="run", help="run (default), list, report or merge")
    top.add_argument(
        "what",
        nargs="*",
        help="for list: methods, datasets, suites, conditions or templates; for merge: the parts",
    )
    _what_to_run(top.add_argument_group("what to run (the command line wins over the suite file)"))
    _search(top.add_argument_group("settings that are searched for"))
    _how_to_run(top.add_argument_group("how to run it"))
    asked = top.add_argument_group("methods that ask a language model for text")
    asked.add_argument("--llm", metavar="WHO", help="recorded (default), endpoint:MODEL or local:MODEL")
    asked.add_argument("--llm-budget", metavar="CAPS", help="requests=1000,tokens=2e6,usd=5,usd-in=0.15,usd-out=0.6")
    top.add_argument("--dry-run", action="store_true", help="say what would be run and asked, and do nothing")
    top.add_argument("--version", action="store_true", help="print the version and leave")
    return top


def _what_to_run(group: Group) -> None:
    group.add_argument("--suite", default="robustness", metavar="NAME|FILE", help="default: robustness")
    group.add_argument(
        "--methods", nargs="+", metavar="NAME", help="names, patterns like 'llmrec/*', package.module:Class"
    )
    group.add_argument(
        "--method", action="append", default=[], metavar="NAME", help="add one method to those of the suite"
    )
    group.add_argument(
        "--datasets", nargs="+", metavar="NAME|FOLDER", help="names, or folders with data: RecBole, MovieLens, Amazon"
    )
    seeds = group.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, help="one seed")
    seeds.add_argument("--seeds", type=int, nargs="+", help="several seeds")
    group.add_argument("--split", choices=("leave-one-out", "temporal"))
    group.add_argument(
        "--min-rating", type=float, metavar="R", help="least rating of a positive; default: the suite's, else 4"
    )
    group.add_argument(
        "--min-count",
        type=_count,
        metavar="N",
        help="fewest positives of a user and of an item; default: the suite's, else 5",
    )
    group.add_argument("--negatives", type=_negatives, metavar="N|full", help="sampled negatives, or full ranking")
    group.add_argument("--users", type=_count, metavar="N", help="judge a random sample of the test users")
    group.add_argument(
        "--limit", type=_count, metavar="N", help="like --users, for trying out: marked as not reportable"
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METHOD.SETTING=VALUE",
        dest="settings",
        help="a setting of a method or of all that a pattern matches, such as sasrec.epochs=3; may be repeated",
    )


def _search(group: Group) -> None:
    group.add_argument(
        "--tune",
        action="store_true",
        help="search every method's settings on the validation part, store the best, and leave: "
        "the same command without it runs with them",
    )
    group.add_argument("--trials", type=_count, metavar="N", help="fits per method; default: 8")
    group.add_argument(
        "--tuned",
        metavar="FOLDER|none",
        help="where tuned settings are; default: the output folder's tuned/, then those that come with the project",
    )


def _how_to_run(group: Group) -> None:
    group.add_argument("--backbone", metavar="ID|FOLDER", help="Hugging Face id or folder of the language model")
    group.add_argument("--revision", help="revision of a Hugging Face id")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    group.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    group.add_argument(
        "--batch-size",
        type=_batch_size,
        default=None,
        metavar="N|auto",
        help="most prompts per forward pass, fewer where they are long; default: as many as fill it well",
    )
    group.add_argument(
        "--jobs", type=_count, help="processes side by side; default: as many as the cores allow, or one on each GPU"
    )
    group.add_argument(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="K/N",
        help="run the K-th of N parts alone, in an --output-dir of its own, for merge to put together",
    )
    group.add_argument("--executor", choices=("serial", "processes"), help="default: processes if more than one job")
    group.add_argument("--output-dir", type=_folder, help="default: results/<suite>")
    group.add_argument(
        "--fresh", action="store_true", help="fit again what is finished; to go on after a stop, leave it out"
    )
    group.add_argument(
        "--keep-fits",
        action="store_true",
        help="keep what methods have learned in the cache, and score with what is kept there instead of fitting again",
    )
    group.add_argument(
        "--cache-dir", type=Path, default=Path(".cache"), help="trained backbones, embeddings; default: .cache"
    )


def _count(text: str, otherwise: str = "") -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1{otherwise}")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not slash or _count(part) > _count(parts):
        raise argparse.ArgumentTypeError(f"{text} is not K/N with K from 1 to N, such as 1/8")
    return int(part), int(parts)


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name of a folder is needed; . is the current one")
    return Path(text)


def _negatives(text: str) -> int | str:
    return text if text == "full" else _count(text, " or full")


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else _count(text, " or auto")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parse(arguments)
    if options.version:
        from benchmarks.provenance import version

        print(version())
        return 0
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed, as by a service that starts this; its number must not be a file's
            setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115
            os.set_inheritable(getattr(sys, stream).fileno(), True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a stream of few characters has no arrows
    try:
        from benchmarks import commands, errors

        status = commands.RUN[options.command](options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:  # before what names a module whose import it may have stopped
        print(f"stopped; {str(stop) or 'the same command goes on from here'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except commands.USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return errors.EXIT_USAGE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; an unknown flag is answered with the nearest known one, one that would do nothing is refused."""
    top = parser()
    options, unknown = top.parse_known_intermixed_args(arguments)  # merge takes its folders anywhere
    if unknown:
        from data.spelling import near

        hint = near(unknown[0], [flag for action in top._actions for flag in action.option_strings])
        top.error(f"unknown argument {unknown[0]}: {hint}".rstrip(": "))
    if options.command not in COMMANDS:
        top.error(f"no command {options.command!r}: commands are {', '.join(COMMANDS)}")
    if options.what and "what" not in READS.get(options.command, ()):
        meant = f"--suite {options.what[0]}" if options.command == "run" else f"--output-dir {options.what[0]}"
        top.error(f"unknown argument {options.what[0]!r}: did you mean {meant}?")
    if options.command == "merge" and not options.what:
        top.error("merge needs the folders of the parts: merge parts/1 parts/2")
    if options.command in READS:
        others = (a for a in top._actions if a.option_strings and a.dest not in (*READS[options.command], "version"))
        given = [a.option_strings[0] for a in others if getattr(options, a.dest, a.default) != a.default]
        if given:
            top.error(f"{options.command} takes no {', '.join(given)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
