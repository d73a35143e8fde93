"""What can go wrong with boards; every text ends in what to do."""

from __future__ import annotations

from packtrust_host.app.errors import AppError


class BoardError(AppError):
    """A board cannot be found, started, filled or flashed."""
