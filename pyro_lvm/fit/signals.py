"""Ctrl-C and SIGTERM, held back until a step has ended."""

import logging
import signal
import threading
from typing import Any

__all__ = ["Signals", "Stopped"]

_log = logging.getLogger("pyro_lvm")


class Stopped(BaseException):
    """Between two steps, a signal to stop was found to have been received."""


class Signals:
    """While it is entered, in the main thread, Ctrl-C and SIGTERM wait for the end of a step; a second one does not."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # ignored, as under nohup, or another library's
                    self._before[number] = handler
                    signal.signal(number, self._receive)

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    @property
    def received(self) -> int | None:
        """The number of the signal that was, or None."""
        return self._received

    @staticmethod
    def tell(received: int | None, message: str) -> None:
        """Raises what a received signal stands for, if there was one."""
        if received == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if received == signal.SIGTERM:
            _log.warning(message)  # an exit status has no words
            raise SystemExit(128 + signal.SIGTERM)

    def _receive(self, number: int, frame: object) -> None:
        self._received = number
        self.__exit__()
