"""Run by CircuitPython at reset: gives the drive to the node, or to the PC while BOOT (IO0) is held after reset."""

import board
import digitalio
import storage

to_pc = digitalio.DigitalInOut(board.IO0)
to_pc.switch_to_input(digitalio.Pull.UP)
if to_pc.value:
    storage.remount("/", readonly=False)
