"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell that starts the tests in the background has them ignore interrupts, and so all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, not wrong: each test has pytest's own limit.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
