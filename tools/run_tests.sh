#!/bin/sh
# The tests in two runs. What measures time first, two at a time: each of these waits for more than half of its time, so
# two leave each other room on two processors. Then the rest, by one worker more than $WORKERS, the processors to use: all
# of them wait now and then, for a bus, a prompt, a process. A worker begins with its part of the files, so that what a
# file sets up is set up once, and helps the others at the end.
# Without arguments all but attacks and faults, which `make attacks` and `make faults` run for their tables. Arguments go
# to both runs of pytest. Fails if either fails, or if neither found a test (pytest's exit code 5).
set -u
[ $# -gt 0 ] || set -- --ignore=tests/attacks --ignore=tests/faults
"$PYTHON" -m pytest -m realtime -n 2 --dist worksteal "$@"
timed=$?
"$PYTHON" -m pytest -m "not realtime" -n $((WORKERS + 1)) --dist worksteal "$@"
together=$?
case "$timed $together" in
"0 0" | "0 5" | "5 0") exit 0 ;;
"0 "* | "5 "*) exit "$together" ;;
*)
	echo "failed: tests that measure time (the first run above)" >&2
	exit "$timed"
	;;
esac
