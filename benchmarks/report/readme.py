"""Take the README's leaderboard from the reference run: ``python -m benchmarks.report.readme``."""

from pathlib import Path

START, END = "<!-- leaderboard -->", "<!-- /leaderboard -->"


def with_leaderboard(readme: str, leaderboard: str) -> str:
    r"""The README with the text between its two markers replaced.

    Raises:
        ValueError: if the README lacks a marker.

    >>> with_leaderboard("a <!-- leaderboard -->old<!-- /leaderboard --> b", "new")
    'a <!-- leaderboard -->\nnew\n<!-- /leaderboard --> b'
    """
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the README needs the markers {START} and {END}")
    return f"{before}{START}\n{leaderboard.strip()}\n{END}{after}"


def main(root: Path = Path()) -> None:
    """Rewrite README.md below ``root``."""
    leaderboard = (root / "results" / "reference" / "robustness" / "leaderboard.md").read_text(encoding="utf-8")
    readme = root / "README.md"
    readme.write_text(with_leaderboard(readme.read_text(encoding="utf-8"), leaderboard), encoding="utf-8")


if __name__ == "__main__":
    main()
