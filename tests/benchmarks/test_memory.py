"""The measurement of memory runs."""

from benchmarks.memory import main


def test_peak_is_printed_for_every_number_of_users(capsys):
    assert main(["1", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["1 users", "2 users"]
    assert all(float(line.split()[2]) > 50 for line in lines)
