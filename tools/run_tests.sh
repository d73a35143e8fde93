#!/bin/sh
# The tests in three runs. What needs the machine for itself, one by one. What measures time, three at a time on two
# processors: each of these waits for most of its time. Then the rest, by one worker more
# than $WORKERS, the processors to use: all of them wait now and then, for a bus, a prompt, a process. A worker takes a
# file at a time (tests/conftest.py), so that what a file sets up is set up once; what takes long comes first.
# Without arguments all but attacks and faults, which `make attacks` and `make faults` run for their tables. Arguments go
# to each run of pytest. Fails if one of them fails, or if none found a test (pytest's exit code 5).
set -u
[ $# -gt 0 ] || set -- --ignore=tests/attacks --ignore=tests/faults
found=5
failed=0

# Arguments: what these tests are; options of pytest.
run() {
	what=$1
	shift
	"$PYTHON" -m pytest "$@"
	code=$?
	case $code in
	0) found=0 ;;
	5) ;;
	*)
		echo "failed: $what" >&2
		[ $failed -ne 0 ] || failed=$code
		;;
	esac
}

run "tests that need the machine for themselves" -m alone "$@"
run "tests that measure time" -m "realtime and not alone" -n $((WORKERS + 1)) --dist loadgroup --no-loadscope-reorder "$@"
run "the other tests" -m "not realtime and not alone" -n $((WORKERS + 1)) --dist loadscope --no-loadscope-reorder "$@"
[ $failed -eq 0 ] || exit $failed
exit $found
