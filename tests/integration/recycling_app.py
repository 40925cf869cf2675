"""The application of the tests of --max-memory: its workers look at their memory more often."""

from __future__ import annotations

from daphne_supervisor.worker import recycling
from tests.integration.drain_app import application

__all__ = ["application"]

recycling.INTERVAL = 1.0
