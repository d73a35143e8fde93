// Clock, interrupts, sleeping, and the module `canboard`.
#include "py/mphal.h"
#include "py/obj.h"
#include "py/objmodule.h"
#include "py/objstr.h"
#include "py/runtime.h"
#include "py/smallint.h"
#include "canboard.h"

#define REG(address) (*(volatile uint32_t *)(address))
#define SYST_CSR REG(0xe000e010)
#define SYST_RVR REG(0xe000e014)
#define SYST_CVR REG(0xe000e018)
#define NVIC_ISER0 REG(0xe000e100)
#define NVIC_ICER0 REG(0xe000e180)
#define SCB_VTOR REG(0xe000ed08)
#define SCB_AIRCR REG(0xe000ed0c)
#define SCB_CPACR REG(0xe000ed88)
#define FPGAIO_COUNTER REG(0x40028018)
#define FPGAIO_PRESCALE REG(0x4002801c)
// A word of the second RAM that neither start-up code nor a reset touches; zero when the machine starts.
#define WARM REG(0x203ffffc)
#define WARM_MAGIC (0x7761726du)

static volatile bool event;
static bool warm;

// ---------------------------------------------------------------- interrupts

// UART interrupts of AN386 (application note, table of interrupts): receive, transmit.
static void uart0(void) {
    canboard_uart_interrupt(0);
}
static void uart1(void) {
    canboard_uart_interrupt(1);
}
static void uart2(void) {
    canboard_uart_interrupt(2);
}
static void uart3(void) {
    canboard_uart_interrupt(3);
}
static void uart4(void) {
    canboard_uart_interrupt(4);
}

static void systick(void) {
    SYST_CSR = 0;
    event = true;
}

// A fault says where it was and stops: the emulator sleeps, what is on the flash can be looked at.
__attribute__((used)) static void report_fault(const uint32_t *frame) {
    NVIC_ICER0 = 0xffffffff;
    SYST_CSR = 0;
    uint32_t kind;
    __asm volatile ("mrs %0, ipsr" : "=r" (kind));
    char text[96];
    vstr_t line;
    vstr_init_fixed_buf(&line, sizeof(text), text);
    vstr_printf(&line, "\r\nFATAL: exception %u at pc=%08x lr=%08x sp=%p\r\n", (unsigned)(kind & 0x1ff),
        (unsigned)frame[6], (unsigned)frame[5], frame);
    canboard_uart_panic(line.buf, line.len);
    for (;;) {
        __asm volatile ("wfi");
    }
}

__attribute__((naked)) static void fault(void) {
    __asm volatile ("mrs r0, msp\n b report_fault");
}

extern const uint32_t isr_vector[16];
static uint32_t vectors[16 + 32] __attribute__((aligned(256)));
static const uint8_t uart_irqs[CANBOARD_UARTS] = {0, 2, 4, 18, 20};

unsigned canboard_irq_off(void) {
    unsigned state;
    __asm volatile ("mrs %0, primask\n cpsid i" : "=r" (state) : : "memory");
    return state;
}

void canboard_irq_restore(unsigned state) {
    __asm volatile ("msr primask, %0" : : "r" (state) : "memory");
}

// Native code, in RAM of its own. A reset frees it, soft or not: MicroPython keeps the code of a module it has loaded.
static uint8_t code_ram[CANBOARD_CODE_RAM] __attribute__((aligned(8)));
static size_t code_used;

void canboard_alloc_exec(size_t size, void **block, size_t *got) {
    size = (size + 7) & ~(size_t)7;
    if (size > sizeof(code_ram) - code_used) {
        mp_raise_msg_varg(&mp_type_MemoryError, MP_ERROR_TEXT("no room for %u bytes of native code"), (unsigned)size);
    }
    *block = code_ram + code_used;
    *got = size;
    code_used += size;
}

void canboard_free_exec(void *block, size_t size) {
    if ((uint8_t *)block + size == code_ram + code_used) {
        code_used -= size; // the compiler gives back what it has just taken
    }
}

void canboard_clear_exec(void) {
    code_used = 0;
}

void canboard_init(void) {
    static void (*const handlers[CANBOARD_UARTS])(void) = {uart0, uart1, uart2, uart3, uart4};
    SCB_CPACR |= 0xfu << 20; // the FPU
    __asm volatile ("dsb\n isb");
    for (size_t i = 0; i < 16; i++) {
        vectors[i] = i >= 2 && i <= 6 ? (uint32_t)&fault : isr_vector[i];
    }
    vectors[15] = (uint32_t)&systick;
    uint32_t enabled = 0;
    for (size_t i = 0; i < CANBOARD_UARTS; i++) {
        vectors[16 + uart_irqs[i]] = vectors[16 + uart_irqs[i] + 1] = (uint32_t)handlers[i];
        enabled |= 3u << uart_irqs[i];
    }
    SCB_VTOR = (uint32_t)vectors;
    __asm volatile ("dsb\n isb");
    warm = WARM == WARM_MAGIC;
    WARM = WARM_MAGIC;
    FPGAIO_PRESCALE = 0; // every cycle of the 25 MHz
    canboard_uart_init();
    NVIC_ISER0 = enabled;
    __asm volatile ("cpsie i");
}

void canboard_reset(void) {
    SCB_AIRCR = 0x05fa0004; // SYSRESETREQ
    for (;;) {
    }
}

int canboard_reset_cause(void) {
    return warm ? 2 : 1;
}

// ---------------------------------------------------------------- time

// The counter has 32 bits (171 s). Somebody asks more often than that: sleeping wakes up every 0.6 s.
uint64_t canboard_ticks(void) {
    static uint32_t last, high;
    uint32_t now = FPGAIO_COUNTER;
    if (now < last) {
        high++;
    }
    last = now;
    return (uint64_t)high << 32 | now;
}

void canboard_event(void) {
    event = true;
}

// No tick runs while the board computes: only a sleeping board starts the timer, so that instruction counts
// have no interrupts in them.
static void sleep_ticks(uint64_t ticks) {
    if (ticks > 0xf00000) {
        ticks = 0xf00000;
    }
    unsigned state = canboard_irq_off();
    if (!event) {
        if (ticks > 1) {
            SYST_RVR = (uint32_t)ticks;
            SYST_CVR = 0;
            SYST_CSR = 7; // processor clock, interrupt, on
        }
        // With interrupts masked a pending one still wakes the core: none is missed.
        __asm volatile ("dsb\n wfi\n isb" : : : "memory");
        SYST_CSR = 0;
    }
    event = false;
    canboard_irq_restore(state);
}

void canboard_wait_ms(int timeout_ms) {
    if (timeout_ms == 0) {
        return;
    }
    canboard_ticks();
    sleep_ticks(timeout_ms < 0 ? 0xf00000u : (uint64_t)timeout_ms * (CANBOARD_HZ / 1000));
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return (mp_uint_t)canboard_ticks();
}

mp_uint_t mp_hal_ticks_us(void) {
    return (mp_uint_t)(canboard_ticks() / (CANBOARD_HZ / 1000000));
}

mp_uint_t mp_hal_ticks_ms(void) {
    return (mp_uint_t)(canboard_ticks() / (CANBOARD_HZ / 1000));
}

uint64_t mp_hal_time_ns(void) {
    return canboard_ticks() * (1000000000u / CANBOARD_HZ);
}

void mp_hal_delay_us(mp_uint_t us) {
    uint64_t end = canboard_ticks() + (uint64_t)us * (CANBOARD_HZ / 1000000);
    for (uint64_t now = canboard_ticks(); now < end; now = canboard_ticks()) {
        if (end - now > CANBOARD_HZ / 10000) {
            sleep_ticks(end - now);
        }
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    uint64_t end = canboard_ticks() + (uint64_t)ms * (CANBOARD_HZ / 1000);
    mp_event_handle_nowait();
    for (uint64_t now = canboard_ticks(); now < end; now = canboard_ticks()) {
        sleep_ticks(end - now);
        mp_event_handle_nowait();
    }
}

// ---------------------------------------------------------------- identity

void canboard_unique_id(uint8_t *id) {
    static const char magic[4] = {'P', 'T', 'I', 'D'};
    const uint8_t *page = (const uint8_t *)CANBOARD_IDENTITY;
    for (size_t i = 0; i < sizeof(magic); i++) {
        if (page[i] != magic[i]) {
            page = NULL;
            break;
        }
    }
    for (size_t i = 0; i < CANBOARD_UNIQUE_ID_SIZE; i++) {
        id[i] = page == NULL ? 0 : page[sizeof(magic) + i];
    }
}

// ---------------------------------------------------------------- module

// 25 MHz counter modulo 2 ** 30, for time.ticks_diff(); under QEMU's icount it counts instructions.
static mp_obj_t ticks(void) {
    return MP_OBJ_NEW_SMALL_INT(FPGAIO_COUNTER & (MICROPY_PY_TIME_TICKS_PERIOD - 1));
}
static MP_DEFINE_CONST_FUN_OBJ_0(ticks_obj, ticks);

extern const mp_obj_type_t canboard_uart_type;
extern const mp_obj_type_t canboard_flash_type;
static MP_DEFINE_STR_OBJ(variant_obj, CANBOARD_VARIANT);

static const mp_rom_map_elem_t globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_canboard) },
    { MP_ROM_QSTR(MP_QSTR_ticks), MP_ROM_PTR(&ticks_obj) },
    { MP_ROM_QSTR(MP_QSTR_Uart), MP_ROM_PTR(&canboard_uart_type) },
    { MP_ROM_QSTR(MP_QSTR_Flash), MP_ROM_PTR(&canboard_flash_type) },
    { MP_ROM_QSTR(MP_QSTR_variant), MP_ROM_PTR(&variant_obj) },
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t canboard_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&globals,
};
MP_REGISTER_MODULE(MP_QSTR_canboard, canboard_module);
