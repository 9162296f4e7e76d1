"""The harness: suites, conditions, records, judging."""
