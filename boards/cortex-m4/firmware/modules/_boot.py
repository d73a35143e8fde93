# Before boot.py: the flash, made on first start.
import os
import sys

import canboard
import vfs


def mount():
    flash = canboard.Flash()
    try:
        vfs.mount(flash, "/flash")
    except OSError:
        vfs.VfsLfs2.mkfs(flash)
        vfs.mount(flash, "/flash")
    os.chdir("/flash")
    sys.path.append("/flash")
    sys.path.append("/flash/lib")


mount()
del mount
