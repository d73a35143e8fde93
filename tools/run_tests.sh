#!/bin/sh
# The tests in two runs: what measures time runs alone, so that no other test steals its processor; the rest on $WORKERS.
# Each worker begins with its half of the files, so that what a file sets up is set up once, and helps the other at the end.
# Without arguments all but attacks and faults, which `make attacks` and `make faults` run for their tables. Arguments go
# to both runs of pytest. Fails if either fails, or if neither found a test (pytest's exit code 5).
set -u
[ $# -gt 0 ] || set -- --ignore=tests/attacks --ignore=tests/faults
"$PYTHON" -m pytest -m realtime "$@"
alone=$?
"$PYTHON" -m pytest -m "not realtime" -n "$WORKERS" --dist worksteal "$@"
together=$?
case "$alone $together" in
"0 0" | "0 5" | "5 0") exit 0 ;;
"0 "* | "5 "*) exit "$together" ;;
*)
	echo "failed: tests that measure time (the first run above)" >&2
	exit "$alone"
	;;
esac
