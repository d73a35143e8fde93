"""Run by CircuitPython at reset: gives the drive to the node, or to the PC while D5 is connected to GND."""

import board
import digitalio
import storage

to_pc = digitalio.DigitalInOut(board.D5)
to_pc.switch_to_input(digitalio.Pull.UP)
if to_pc.value:
    storage.remount("/", readonly=False)
