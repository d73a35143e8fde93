# ruff: noqa: F821  (names that MicroPython's makemanifest.py provides)
include("$(MPY_DIR)/extmod/asyncio")
