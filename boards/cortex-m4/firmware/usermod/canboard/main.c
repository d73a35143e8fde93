// Start, as MicroPython's hardware ports do it: file systems, boot.py, main.py, then the REPL.
#include "py/builtin.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/readline/readline.h"
#include "shared/runtime/pyexec.h"
#include "canboard.h"

#if MICROPY_HEAP_SIZE > 1000000
#define STACK_SIZE (56 * 1024)
#else
#define STACK_SIZE (16 * 1024) // as an STM32F405 board has
#endif

extern uint32_t _estack;
static uint32_t heap[MICROPY_HEAP_SIZE / sizeof(uint32_t)] __attribute__((aligned(16)));

void __wrap_uart_init(void) {
}

void __wrap_mp_semihosting_init(void) {
}

// What ends a program of a PC restarts a board.
void __wrap_exit(int status) {
    canboard_reset();
}

static bool run_file(const char *name) {
    if (mp_import_stat(name) != MP_IMPORT_STAT_FILE) {
        return true;
    }
    return !(pyexec_file(name) & PYEXEC_FORCED_EXIT);
}

static void session(void) {
    pyexec_frozen_module("_boot.py", false);
    if (!run_file("boot.py")) {
        return;
    }
    if (pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL && !run_file("main.py")) {
        return;
    }
    for (;;) {
        int ended = pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl() : pyexec_friendly_repl();
        if (ended) {
            return;
        }
    }
}

int __wrap_main(int argc, char **argv) {
    canboard_init();
    mp_stack_set_top(&_estack);
    mp_stack_set_limit(STACK_SIZE - 1024);
    for (;;) {
        gc_init(heap, (char *)heap + sizeof(heap));
        canboard_clear_exec(); // whose code it was is gone with the heap
        mp_init(); // also mounts /rom
        readline_init0();
        session();
        mp_printf(&mp_plat_print, "MPY: soft reboot\n");
        gc_sweep_all();
        mp_deinit();
    }
}
