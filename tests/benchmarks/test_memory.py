"""The measurement of memory runs."""

from benchmarks.memory import main


def test_peak_is_printed(capsys):
    assert main(["1"]) == 0
    users, peak = capsys.readouterr().out.split(": ")
    assert users == "1 users"
    assert float(peak.removesuffix(" MiB\n")) > 50
