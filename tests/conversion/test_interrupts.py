"""Ctrl-C is heard while workers are waited for, whichever thread the kernel hands it to."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

from tests.daemon_process import eventually

WAITING = """
import signal, sys, threading, time
from concurrent.futures import Future
from sda_daemon.conversion.interrupts import wait_for_first
signal.signal(signal.SIGINT, signal.default_int_handler)
taking = threading.Thread(target=time.sleep, args=(600,), daemon=True)
taking.start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of the main thread: the other one takes it
print("waiting", flush=True)
wait_for_first([Future()])
"""
HELD_BACK = """
import os, signal
from sda_daemon.conversion.interrupts import held_back
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with held_back():
        os.kill(os.getpid(), signal.SIGINT)
        print("whole")
    print("never")
except KeyboardInterrupt:
    print("then")
"""


def test_it_is_heard_where_another_thread_takes_it() -> None:
    """The main thread looks up now and then; it would sleep on for ever."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "waiting\n"
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, "it waits")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert stderr.endswith("KeyboardInterrupt\n")


def test_what_must_not_be_cut_in_two_is_done_first() -> None:
    """It comes right after."""
    done = subprocess.run([sys.executable, "-c", HELD_BACK], capture_output=True, text=True, check=True)
    assert done.stdout == "whole\nthen\n"
