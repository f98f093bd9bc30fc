"""An iterator on a thread of its own: order, errors, a bound on what waits, and a clean end."""

import threading
import time

import pytest

from geoseg.vector.ahead import Ahead


def test_items_come_in_order_from_another_thread():
    threads = set()

    def items():
        for i in range(50):
            threads.add(threading.get_ident())
            yield i

    with Ahead(items()) as made:
        assert list(made) == list(range(50))
    assert threads
    assert threading.get_ident() not in threads


def test_no_more_than_is_allowed_waits():
    begun = []

    def items():
        for i in range(10):
            begun.append(i)
            yield i

    with Ahead(items(), ahead=2) as made:
        for seen, item in enumerate(made, 1):
            time.sleep(0.02)
            assert item == seen - 1
            # Given out, waiting, and the one that is being made.
            assert len(begun) <= seen + 2 + 1


def test_an_error_comes_out_after_what_was_made_before():
    def items():
        yield 1
        raise KeyError("broken")

    got = []
    with pytest.raises(KeyError, match="broken"), Ahead(items()) as made:
        got.extend(made)
    assert got == [1]


def test_whoever_waits_is_asked_and_may_stop_it():
    stop = threading.Event()
    calls = []

    def items():
        stop.wait(10)
        yield 1

    def on_wait():
        calls.append(1)
        if len(calls) == 3:
            stop.set()
            raise InterruptedError

    with pytest.raises(InterruptedError), Ahead(items(), on_wait=on_wait) as made:
        list(made)
    assert len(calls) == 3


def test_leaving_early_ends_the_thread():
    def items():
        while True:
            yield 1

    before = threading.active_count()
    with Ahead(items()) as made:
        assert next(iter(made)) == 1
    assert threading.active_count() == before
