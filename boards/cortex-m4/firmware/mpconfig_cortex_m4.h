// The port's configuration, and what this board has beyond it.
#include "ports/qemu/mpconfigport.h"

#undef MICROPY_PY_TIME
#define MICROPY_PY_TIME (1)
#undef MICROPY_PY_SELECT
#define MICROPY_PY_SELECT (1)
#undef MICROPY_PY_ASYNCIO
#define MICROPY_PY_ASYNCIO (1)
#undef MICROPY_PY_SYS_STDIO_BUFFER
#define MICROPY_PY_SYS_STDIO_BUFFER (1)
#undef MICROPY_VFS_ROM_IOCTL
#define MICROPY_VFS_ROM_IOCTL (1)
#define MICROPY_KBD_EXCEPTION (1)
#define MICROPY_ENABLE_SCHEDULER (1)
#define MICROPY_SCHEDULER_DEPTH (8)
#define MICROPY_PY_OS_URANDOM (1)
#define MICROPY_PY_OS_UNAME (1)
#define MICROPY_PY_OS_SYNC (0)
#define MICROPY_PY_OS_INCLUDEFILE "modos_cortex_m4.c"
#define MICROPY_PY_MACHINE_MEMX (1)
#define MICROPY_PY_MACHINE_BARE_METAL_FUNCS (1)
#define MICROPY_PY_MACHINE_DISABLE_IRQ_ENABLE_IRQ (0)
#undef MICROPY_PY_MACHINE_INCLUDEFILE
#define MICROPY_PY_MACHINE_INCLUDEFILE "modmachine_cortex_m4.c"
#define MICROPY_PY_MACHINE_EXTRA_GLOBALS \
    { MP_ROM_QSTR(MP_QSTR_PWRON_RESET), MP_ROM_INT(1) }, \
    { MP_ROM_QSTR(MP_QSTR_HARD_RESET), MP_ROM_INT(2) },

// Interrupts: see canboard.c.
extern void canboard_wait_ms(int timeout_ms);
extern unsigned canboard_irq_off(void);
extern void canboard_irq_restore(unsigned state);
#define MICROPY_INTERNAL_WFE(TIMEOUT_MS) canboard_wait_ms(TIMEOUT_MS)
#define MICROPY_BEGIN_ATOMIC_SECTION() canboard_irq_off()
#define MICROPY_END_ATOMIC_SECTION(state) canboard_irq_restore(state)

// Native code lies beside the heap, as on an ESP32 in its instruction RAM.
extern void canboard_alloc_exec(size_t size, void **block, size_t *got);
extern void canboard_free_exec(void *block, size_t size);
#define MP_PLAT_ALLOC_EXEC(min_size, ptr, size) canboard_alloc_exec(min_size, ptr, size)
#define MP_PLAT_FREE_EXEC(ptr, size) canboard_free_exec(ptr, size)
