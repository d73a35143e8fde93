"""Freshness: exactly once within the window, strictly upwards for commands, citations age."""

from packtrust.replay import CITATION_MAX_AGE_MS, STEP_MS, WINDOW, SentTimes, Strict, Window


def test_each_counter_once_in_any_order_within_the_window():
    window = Window()
    order = [1, 3, 2, 10, 5, 9, 4, 70, 8, 66]
    for counter in order:
        expected = "old" if counter <= window.highest - WINDOW else ""
        assert window.refusal(counter) == expected, counter
        if not expected:
            window.accept(counter)
            assert window.refusal(counter) == "replay"


def test_the_window_agrees_with_a_set_over_a_long_random_walk():
    window = Window()
    taken = set()
    highest = 0
    state = 12345
    for _ in range(3000):
        state = (state * 1103515245 + 12345) & 0x3FFFFFFF
        counter = highest + 6 - (state >> 8) % 90
        if counter <= 0 or counter <= highest - WINDOW:
            expected = "old"
        else:
            expected = "replay" if counter in taken else ""
        assert window.refusal(counter) == expected, (counter, highest)
        if not expected:
            window.accept(counter)
            taken.add(counter)
            highest = max(highest, counter)


def test_a_jump_beyond_the_window_forgets_nothing_it_should_refuse():
    window = Window()
    window.accept(1)
    window.accept(1000)
    assert window.refusal(1) == "old"
    assert window.refusal(1000 - WINDOW) == "old"
    assert window.refusal(1000 - WINDOW + 1) == ""
    window.accept(1064)
    assert window.refusal(1001) == ""
    assert window.refusal(1000) == "old"


def test_counters_beyond_32_bits():
    window = Window()
    window.accept(1 << 40)
    assert window.refusal(1 << 40) == "replay"
    assert window.refusal((1 << 40) + 1) == ""


def test_strict_takes_only_what_is_above():
    strict = Strict()
    assert strict.refusal(5) == ""
    strict.accept(5)
    assert strict.refusal(5) == "replay"
    assert strict.refusal(4) == "replay"
    assert strict.refusal(6) == ""


def test_a_citation_ages():
    sent = SentTimes(1000)
    assert sent.is_fresh(0, 1000)
    assert sent.is_fresh(0, 1000 + CITATION_MAX_AGE_MS)
    assert not sent.is_fresh(0, 1001 + CITATION_MAX_AGE_MS)
    sent.sent(1, 2000)
    assert sent.age_ms(1, 2500) == 500
    assert sent.age_ms(0, 2500) == 1500
    assert not sent.is_fresh(2, 2000)  # never sent


def test_an_age_is_never_too_small_and_at_most_a_step_too_large():
    sent = SentTimes(0)
    times = {0: 0}
    now = 0
    for counter in range(1, 400):
        now += (counter * 37) % 61
        sent.sent(counter, now)
        times[counter] = now
    for counter in range(1, 400):
        true_age = now - times[counter]
        age = sent.age_ms(counter, now)
        if age < 0:
            assert true_age > CITATION_MAX_AGE_MS
        else:
            assert true_age <= age <= true_age + STEP_MS


def test_the_clock_may_pass_32_bits():
    sent = SentTimes((1 << 32) - 50)
    sent.sent(1, (1 << 32) + 100)
    assert 500 <= sent.age_ms(1, (1 << 32) + 600) <= 500 + STEP_MS
