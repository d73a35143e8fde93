// The machine below MicroPython: QEMU's mps2-an386 (ARM AN386: Cortex-M4 on the MPS2 board).
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CANBOARD_HZ (25000000u)
#define CANBOARD_UARTS (5) // 0 console, 1..3 CAN, 4 entropy
#define CANBOARD_ENTROPY (4)
#define CANBOARD_CODE_RAM (128u * 1024u)

// The flash, laid out as in host/packtrust_host/sim/qemu.py.
#define CANBOARD_FLASH_BASE (0x21000000u)
#define CANBOARD_LITTLEFS_SIZE (512u * 1024u)
#define CANBOARD_BLOCK_SIZE (4096u)
#define CANBOARD_LANES (0x210e0000u)
#define CANBOARD_IDENTITY (0x210ff000u)
#define CANBOARD_UNIQUE_ID_SIZE (12)
#define CANBOARD_ROMFS_BASE (0x21100000u)
#define CANBOARD_ROMFS_SIZE (15u * 1024u * 1024u)

// canboard.c
void canboard_init(void);
void canboard_clear_exec(void);
uint64_t canboard_ticks(void);
void canboard_event(void); // from an interrupt: whoever waits looks again
void canboard_wait_ms(int timeout_ms); // until an interrupt or the time is over; < 0: no limit
void canboard_wait_until(uint64_t tick);
unsigned canboard_irq_off(void);
void canboard_irq_restore(unsigned state);
void canboard_reset(void) __attribute__((noreturn));
int canboard_reset_cause(void);
void canboard_unique_id(uint8_t *id);

// uart.c
void canboard_uart_init(void);
void canboard_uart_interrupt(unsigned number);
size_t canboard_uart_any(unsigned number);
size_t canboard_uart_room(unsigned number);
size_t canboard_uart_read(unsigned number, uint8_t *buffer, size_t count);
size_t canboard_uart_write(unsigned number, const uint8_t *buffer, size_t count);
void canboard_uart_panic(const char *text, size_t length);
bool canboard_entropy(uint8_t *buffer, size_t count);
