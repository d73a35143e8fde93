// UARTs (CMSDK APB UART) with rings filled and drained by interrupts, the console over the first one,
// entropy from the last one, and the stream type canboard.Uart.
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/runtime/interrupt_char.h"
#include "canboard.h"

typedef struct {
    volatile uint32_t data;
    volatile uint32_t state;
    volatile uint32_t ctrl;
    volatile uint32_t interrupt; // write 1 to clear
    volatile uint32_t bauddiv;
} uart_regs_t;

#define STATE_TX_FULL (1u << 0)
#define STATE_RX_FULL (1u << 1)
#define CTRL_TX (1u << 0)
#define CTRL_RX (1u << 1)
#define CTRL_TX_INTERRUPT (1u << 2)
#define CTRL_RX_INTERRUPT (1u << 3)

#define RX_SIZE (16384) // both powers of two
#define TX_SIZE (16384)
#define STUCK_MS (5000) // a console that nobody reads holds a program up no longer

typedef struct {
    size_t head, tail; // head is the writer's, tail the reader's; they run on without bound
    uint8_t rx[RX_SIZE];
    size_t tx_head, tx_tail;
    uint8_t tx[TX_SIZE];
} rings_t;

// Lanes: memory shared with the host, over which the bytes of the CAN ports go if the emulator was started so. A byte in
// the UART then says that there are some. host/packtrust_host/sim/lanes.py is the other end, and has the layout too.
#define LANE_SIZE (8192) // a power of two
#define LANES_MAGIC (0x4c414e00u)
#define LANE_BELL (0x07)

typedef struct {
    volatile uint32_t head, tail; // head is the writer's, tail the reader's; they run on without bound
    uint8_t data[LANE_SIZE];
} lane_ring_t;

typedef struct {
    lane_ring_t in, out;
} lane_t;

typedef struct {
    volatile uint32_t magic; // LANES_MAGIC and how many of the CAN ports have lanes; the emulator sets it at each reset
    uint32_t unused[15];
    lane_t lanes[CANBOARD_ENTROPY - 1];
} lanes_t;

static lanes_t *const lanes = (lanes_t *)CANBOARD_LANES;

static uart_regs_t *const uarts[CANBOARD_UARTS] = {
    (uart_regs_t *)0x40004000, (uart_regs_t *)0x40005000, (uart_regs_t *)0x40006000,
    (uart_regs_t *)0x40007000, (uart_regs_t *)0x40009000,
};
static rings_t rings[CANBOARD_UARTS];
static uint32_t ctrl[CANBOARD_UARTS];

static void set_ctrl(unsigned number, uint32_t clear, uint32_t set) {
    uint32_t value = (ctrl[number] & ~clear) | set;
    if (value != ctrl[number]) {
        ctrl[number] = value;
        uarts[number]->ctrl = value;
    }
}

// NULL: the UART's bytes go over the UART.
static lane_t *lane_of(unsigned number) {
    uint32_t count = lanes->magic - LANES_MAGIC;
    return number > 0 && number <= count && count < CANBOARD_ENTROPY ? &lanes->lanes[number - 1] : NULL;
}

// Runs with interrupts off: what is in the lane, as far as there is room. The rest comes when that is read.
static void pull(lane_ring_t *from, rings_t *r) {
    uint32_t tail = from->tail;
    uint32_t head = from->head;
    if (head - tail > LANE_SIZE) {
        return; // the host is no good
    }
    while (tail != head && r->head - r->tail != RX_SIZE) {
        r->rx[r->head % RX_SIZE] = from->data[tail % LANE_SIZE];
        r->head++;
        tail++;
    }
    from->tail = tail;
}

void canboard_uart_init(void) {
    for (unsigned i = 0; i < CANBOARD_UARTS; i++) {
        rings[i].head = rings[i].tail = rings[i].tx_head = rings[i].tx_tail = 0;
        ctrl[i] = 0;
        uarts[i]->ctrl = 0;
        uarts[i]->bauddiv = 16; // the least there is; the emulator sends at once
        uarts[i]->interrupt = 15;
        lane_t *lane = lane_of(i);
        if (lane != NULL) {
            lane->in.tail = lane->in.head;
        }
        // The entropy source is opened by whoever wants some.
        set_ctrl(i, 0, i == CANBOARD_ENTROPY ? 0 : CTRL_TX | CTRL_RX | CTRL_RX_INTERRUPT);
    }
}

// Both run with interrupts off or from the interrupt itself.

static void receive(unsigned number) {
    uart_regs_t *uart = uarts[number];
    rings_t *r = &rings[number];
    lane_t *lane = lane_of(number);
    if (lane != NULL) {
        while (uart->state & STATE_RX_FULL) {
            (void)uart->data;
        }
        pull(&lane->in, r);
        return;
    }
    while (uart->state & STATE_RX_FULL) {
        if (r->head - r->tail == RX_SIZE) {
            // Full: what has not been fetched waits in the sender; the reader turns this on again.
            set_ctrl(number, CTRL_RX_INTERRUPT, 0);
            return;
        }
        uint8_t byte = uart->data;
        if (number == 0 && byte == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            r->rx[r->head % RX_SIZE] = byte;
            r->head++;
        }
    }
}

static void transmit(unsigned number) {
    uart_regs_t *uart = uarts[number];
    rings_t *r = &rings[number];
    while (r->tx_head != r->tx_tail) {
        if (uart->state & STATE_TX_FULL) {
            set_ctrl(number, 0, CTRL_TX_INTERRUPT);
            if (uart->state & STATE_TX_FULL) {
                return; // the interrupt comes when it has gone
            }
        }
        uart->data = r->tx[r->tx_tail % TX_SIZE];
        r->tx_tail++;
    }
    set_ctrl(number, CTRL_TX_INTERRUPT, 0);
}

void canboard_uart_interrupt(unsigned number) {
    // Cleared first: what comes from here on raises it again.
    uarts[number]->interrupt = 15;
    receive(number);
    if (ctrl[number] & CTRL_TX_INTERRUPT) {
        transmit(number);
    }
    canboard_event();
}

// ---------------------------------------------------------------- for everybody else

size_t canboard_uart_any(unsigned number) {
    rings_t *r = &rings[number];
    return *(volatile size_t *)&r->head - r->tail;
}

size_t canboard_uart_room(unsigned number) {
    lane_t *lane = lane_of(number);
    if (lane != NULL) {
        return LANE_SIZE - (lane->out.head - lane->out.tail);
    }
    rings_t *r = &rings[number];
    return TX_SIZE - (r->tx_head - *(volatile size_t *)&r->tx_tail);
}

size_t canboard_uart_read(unsigned number, uint8_t *buffer, size_t count) {
    rings_t *r = &rings[number];
    size_t any = canboard_uart_any(number);
    if (count > any) {
        count = any;
    }
    size_t at = r->tail % RX_SIZE;
    size_t first = count < RX_SIZE - at ? count : RX_SIZE - at;
    memcpy(buffer, r->rx + at, first);
    memcpy(buffer + first, r->rx, count - first);
    __asm volatile ("" : : : "memory");
    r->tail += count;
    if (!(ctrl[number] & CTRL_RX_INTERRUPT)) {
        unsigned state = canboard_irq_off();
        set_ctrl(number, 0, CTRL_RX_INTERRUPT);
        receive(number);
        canboard_irq_restore(state);
    }
    lane_t *lane = lane_of(number);
    if (lane != NULL && lane->in.head != lane->in.tail) {
        unsigned state = canboard_irq_off();
        pull(&lane->in, r);
        canboard_irq_restore(state);
    }
    return count;
}

size_t canboard_uart_write(unsigned number, const uint8_t *buffer, size_t count) {
    rings_t *r = &rings[number];
    size_t room = canboard_uart_room(number);
    if (count > room) {
        count = room;
    }
    lane_t *lane = lane_of(number);
    if (lane != NULL) {
        uint32_t head = lane->out.head;
        for (size_t i = 0; i < count; i++) {
            lane->out.data[head++ % LANE_SIZE] = buffer[i];
        }
        __asm volatile ("" : : : "memory");
        lane->out.head = head;
        // Where it does not fit the host has not looked yet at those before it.
        if (count && !(uarts[number]->state & STATE_TX_FULL)) {
            uarts[number]->data = LANE_BELL;
        }
        return count;
    }
    size_t at = r->tx_head % TX_SIZE;
    size_t first = count < TX_SIZE - at ? count : TX_SIZE - at;
    memcpy(r->tx + at, buffer, first);
    memcpy(r->tx, buffer + first, count - first);
    __asm volatile ("" : : : "memory");
    unsigned state = canboard_irq_off();
    r->tx_head += count;
    transmit(number);
    canboard_irq_restore(state);
    return count;
}

// With all interrupts off and for good: what is still in the ring, then this.
void canboard_uart_panic(const char *text, size_t length) {
    rings_t *r = &rings[0];
    for (size_t patience = 10000000; patience && (r->tx_head != r->tx_tail || length); patience--) {
        if (uarts[0]->state & STATE_TX_FULL) {
            continue;
        }
        if (r->tx_head != r->tx_tail) {
            uarts[0]->data = r->tx[r->tx_tail++ % TX_SIZE];
        } else {
            uarts[0]->data = *text++;
            length--;
        }
    }
}

// The source is on only while somebody asks: nothing else is interrupted by it.
bool canboard_entropy(uint8_t *buffer, size_t count) {
    rings_t *r = &rings[CANBOARD_ENTROPY];
    uint64_t end = canboard_ticks() + CANBOARD_HZ;
    size_t got = 0;
    set_ctrl(CANBOARD_ENTROPY, 0, CTRL_RX | CTRL_RX_INTERRUPT);
    while (got < count && canboard_ticks() < end) {
        size_t more = canboard_uart_read(CANBOARD_ENTROPY, buffer + got, count - got);
        if (more) {
            got += more;
            end = canboard_ticks() + CANBOARD_HZ;
        } else {
            canboard_wait_ms(10);
        }
    }
    unsigned state = canboard_irq_off();
    set_ctrl(CANBOARD_ENTROPY, CTRL_RX | CTRL_RX_INTERRUPT, 0);
    memset(r->rx, 0, sizeof(r->rx));
    r->head = r->tail = 0;
    canboard_irq_restore(state);
    return got == count;
}

// ---------------------------------------------------------------- console

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t flags) {
    uintptr_t ready = 0;
    if ((flags & MP_STREAM_POLL_RD) && canboard_uart_any(0)) {
        ready |= MP_STREAM_POLL_RD;
    }
    if ((flags & MP_STREAM_POLL_WR) && canboard_uart_room(0)) {
        ready |= MP_STREAM_POLL_WR;
    }
    return ready;
}

int __wrap_mp_hal_stdin_rx_chr(void) {
    uint8_t byte;
    while (canboard_uart_read(0, &byte, 1) == 0) {
        mp_event_wait_indefinite();
    }
    return byte;
}

mp_uint_t __wrap_mp_hal_stdout_tx_strn(const char *text, size_t length) {
    static bool stuck;
    size_t done = 0;
    uint64_t end = 0;
    while (done < length) {
        size_t count = canboard_uart_write(0, (const uint8_t *)text + done, length - done);
        done += count;
        if (count) {
            stuck = false;
            end = 0;
        } else if (end == 0) {
            end = canboard_ticks() + (uint64_t)STUCK_MS * (CANBOARD_HZ / 1000);
        } else if (stuck || canboard_ticks() >= end) {
            stuck = true;
            break;
        } else {
            canboard_wait_ms(10);
        }
    }
    return done;
}

// ---------------------------------------------------------------- canboard.Uart

typedef struct {
    mp_obj_base_t base;
    uint8_t number;
} uart_obj_t;

extern const mp_obj_type_t canboard_uart_type;
static const uart_obj_t uart_objs[CANBOARD_ENTROPY] = {
    {{&canboard_uart_type}, 0}, {{&canboard_uart_type}, 1}, {{&canboard_uart_type}, 2}, {{&canboard_uart_type}, 3},
};

static void uart_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_printf(print, "Uart(%u)", self->number);
}

// Uart(n): 0 console, 1.. CAN ports. A non-blocking stream: readinto and read give None when nothing is there,
// write None or a short count when there is no room.
static mp_obj_t uart_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 1, 1, false);
    mp_int_t number = mp_obj_get_int(args[0]);
    if (number < 0 || number >= CANBOARD_ENTROPY) {
        mp_raise_ValueError(MP_ERROR_TEXT("UARTs are 0 (console) and 1..3 (CAN)"));
    }
    return MP_OBJ_FROM_PTR(&uart_objs[number]);
}

static mp_uint_t uart_read(mp_obj_t self_in, void *buffer, mp_uint_t size, int *error) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_uint_t count = canboard_uart_read(self->number, buffer, size);
    if (count == 0 && size) {
        *error = MP_EAGAIN;
        return MP_STREAM_ERROR;
    }
    return count;
}

static mp_uint_t uart_write(mp_obj_t self_in, const void *buffer, mp_uint_t size, int *error) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_uint_t count = canboard_uart_write(self->number, buffer, size);
    if (count == 0 && size) {
        *error = MP_EAGAIN;
        return MP_STREAM_ERROR;
    }
    return count;
}

static mp_uint_t uart_ioctl(mp_obj_t self_in, mp_uint_t request, uintptr_t arg, int *error) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    uintptr_t ready = 0;
    switch (request) {
        case MP_STREAM_POLL:
            if ((arg & MP_STREAM_POLL_RD) && canboard_uart_any(self->number)) {
                ready |= MP_STREAM_POLL_RD;
            }
            if ((arg & MP_STREAM_POLL_WR) && canboard_uart_room(self->number)) {
                ready |= MP_STREAM_POLL_WR;
            }
            return ready;
        case MP_STREAM_FLUSH:
            while (canboard_uart_room(self->number) != (lane_of(self->number) != NULL ? LANE_SIZE : TX_SIZE)) {
                mp_event_wait_ms(10);
            }
            return 0;
        case MP_STREAM_CLOSE:
            return 0;
        default:
            *error = MP_EINVAL;
            return MP_STREAM_ERROR;
    }
}

static mp_obj_t uart_any(mp_obj_t self_in) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    return MP_OBJ_NEW_SMALL_INT(canboard_uart_any(self->number));
}
static MP_DEFINE_CONST_FUN_OBJ_1(uart_any_obj, uart_any);

// One pass, as far as it goes: a stream's own write() would try again for the rest.
static mp_obj_t uart_write_method(mp_obj_t self_in, mp_obj_t data) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_buffer_info_t info;
    mp_get_buffer_raise(data, &info, MP_BUFFER_READ);
    size_t count = canboard_uart_write(self->number, info.buf, info.len);
    return count == 0 && info.len ? mp_const_none : MP_OBJ_NEW_SMALL_INT(count);
}
static MP_DEFINE_CONST_FUN_OBJ_2(uart_write_obj, uart_write_method);

// readinto(buffer) -> count, at once; None when nothing is there.
static mp_obj_t uart_readinto_method(mp_obj_t self_in, mp_obj_t data) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_buffer_info_t info;
    mp_get_buffer_raise(data, &info, MP_BUFFER_WRITE);
    size_t count = canboard_uart_read(self->number, info.buf, info.len);
    return count == 0 && info.len ? mp_const_none : MP_OBJ_NEW_SMALL_INT(count);
}
static MP_DEFINE_CONST_FUN_OBJ_2(uart_readinto_obj, uart_readinto_method);

// ---------------------------------------------------------------- CAN frames over SLCAN, without heap

#define SLCAN_MAX (160)
// What can_recv() has found, beside a data length of 0..8.
#define CONFIRMED (9)
#define REFUSED (10)
#define OTHER (11)

static uint8_t peek(const rings_t *r, size_t at) {
    return r->rx[(r->tail + at) % RX_SIZE];
}

// The value of `digits` hexadecimal digits from `at` on; *good becomes false if one of them is none.
static uint32_t hex_at(const rings_t *r, size_t at, size_t digits, bool *good) {
    uint32_t value = 0;
    while (digits--) {
        uint8_t c = peek(r, at++);
        uint8_t letter = c | 0x20;
        if (c >= '0' && c <= '9') {
            value = value << 4 | (c - '0');
        } else if (letter >= 'a' && letter <= 'f') {
            value = value << 4 | (letter - 'a' + 10);
        } else {
            *good = false;
        }
    }
    return value;
}

// Drop so many bytes, which are there.
static void skip(unsigned number, size_t count) {
    uint8_t byte;
    rings[number].tail += count - 1;
    canboard_uart_read(number, &byte, 1);
}

// Length of the line that is there, without its CR; more than SLCAN_MAX if it has none; -1: it is not complete.
static int line_length(unsigned number) {
    size_t any = canboard_uart_any(number);
    size_t most = any < SLCAN_MAX ? any : SLCAN_MAX + 1;
    for (size_t at = 0; at < most; at++) {
        if (peek(&rings[number], at) == '\r') {
            return at;
        }
    }
    return any > SLCAN_MAX ? SLCAN_MAX + 1 : -1;
}

// can_recv([id, buffer]) -> None: nothing is there; 0..8: a classic data frame with a 29-bit ID came, its ID and so many
// bytes are in the list; CONFIRMED: a frame that was sent has left; REFUSED; OTHER: can_line() gives what came.
static mp_obj_t uart_can_recv(mp_obj_t self_in, mp_obj_t slot_in) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    unsigned number = self->number;
    rings_t *r = &rings[number];
    if (canboard_uart_any(number) && peek(r, 0) == 7) {
        skip(number, 1); // has no end of line
        return MP_OBJ_NEW_SMALL_INT(REFUSED);
    }
    int length = line_length(number);
    if (length < 0) {
        return mp_const_none;
    }
    uint8_t first = peek(r, 0);
    if (length == 1 && (first | 0x20) == 'z') {
        skip(number, 2);
        return MP_OBJ_NEW_SMALL_INT(CONFIRMED);
    }
    if (length < 10 || length > 26 || first != 'T') {
        return MP_OBJ_NEW_SMALL_INT(OTHER);
    }
    bool good = true;
    uint32_t id = hex_at(r, 1, 8, &good);
    uint32_t size = hex_at(r, 9, 1, &good);
    if (!good || id > 0x1fffffff || size > 8 || (size_t)length != 10 + 2 * size) {
        return MP_OBJ_NEW_SMALL_INT(OTHER);
    }
    uint8_t data[8];
    for (size_t i = 0; i < size; i++) {
        data[i] = hex_at(r, 10 + 2 * i, 2, &good);
    }
    if (!good) {
        return MP_OBJ_NEW_SMALL_INT(OTHER);
    }
    size_t count;
    mp_obj_t *slot;
    mp_obj_get_array(slot_in, &count, &slot);
    mp_buffer_info_t info;
    mp_get_buffer_raise(slot[count - 1], &info, MP_BUFFER_WRITE);
    if (count != 2 || info.len < sizeof(data)) {
        mp_raise_ValueError(MP_ERROR_TEXT("can_recv() takes [0, bytearray(8)]"));
    }
    slot[0] = MP_OBJ_NEW_SMALL_INT(id);
    memcpy(info.buf, data, size);
    skip(number, length + 1);
    return MP_OBJ_NEW_SMALL_INT(size);
}
static MP_DEFINE_CONST_FUN_OBJ_2(uart_can_recv_obj, uart_can_recv);

// can_line() -> the next line without its CR, or SLCAN_MAX + 1 bytes of one that has none; None: none is complete.
static mp_obj_t uart_can_line(mp_obj_t self_in) {
    uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    int length = line_length(self->number);
    if (length < 0) {
        return mp_const_none;
    }
    uint8_t line[SLCAN_MAX + 2];
    canboard_uart_read(self->number, line, length > SLCAN_MAX ? length : length + 1);
    return mp_obj_new_bytes(line, length);
}
static MP_DEFINE_CONST_FUN_OBJ_1(uart_can_line_obj, uart_can_line);

// can_send(id, extended, data) -> whether there was room for this classic data frame's line.
static mp_obj_t uart_can_send(size_t n_args, const mp_obj_t *args) {
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    uart_obj_t *self = MP_OBJ_TO_PTR(args[0]);
    mp_uint_t id = mp_obj_get_int(args[1]);
    bool extended = mp_obj_is_true(args[2]);
    mp_buffer_info_t info;
    mp_get_buffer_raise(args[3], &info, MP_BUFFER_READ);
    if (info.len > 8 || id > (extended ? 0x1fffffff : 0x7ff)) {
        mp_raise_ValueError(MP_ERROR_TEXT("no classic CAN frame"));
    }
    uint8_t line[32];
    size_t at = 0;
    line[at++] = extended ? 'T' : 't';
    for (int shift = extended ? 28 : 8; shift >= 0; shift -= 4) {
        line[at++] = digits[id >> shift & 15];
    }
    line[at++] = digits[info.len];
    for (size_t i = 0; i < info.len; i++) {
        uint8_t byte = ((const uint8_t *)info.buf)[i];
        line[at++] = digits[16 + (byte >> 4)];
        line[at++] = digits[16 + (byte & 15)];
    }
    line[at++] = '\r';
    if (canboard_uart_room(self->number) < at) {
        return mp_const_false;
    }
    canboard_uart_write(self->number, line, at);
    return mp_const_true;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(uart_can_send_obj, 4, 4, uart_can_send);

static const mp_rom_map_elem_t uart_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_can_recv), MP_ROM_PTR(&uart_can_recv_obj) },
    { MP_ROM_QSTR(MP_QSTR_can_line), MP_ROM_PTR(&uart_can_line_obj) },
    { MP_ROM_QSTR(MP_QSTR_can_send), MP_ROM_PTR(&uart_can_send_obj) },
    { MP_ROM_QSTR(MP_QSTR_any), MP_ROM_PTR(&uart_any_obj) },
    { MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&mp_stream_read1_obj) },
    { MP_ROM_QSTR(MP_QSTR_readinto), MP_ROM_PTR(&uart_readinto_obj) },
    { MP_ROM_QSTR(MP_QSTR_readline), MP_ROM_PTR(&mp_stream_unbuffered_readline_obj) },
    { MP_ROM_QSTR(MP_QSTR_write), MP_ROM_PTR(&uart_write_obj) },
    { MP_ROM_QSTR(MP_QSTR_flush), MP_ROM_PTR(&mp_stream_flush_obj) },
    { MP_ROM_QSTR(MP_QSTR_close), MP_ROM_PTR(&mp_stream_close_obj) },
};
static MP_DEFINE_CONST_DICT(uart_locals, uart_locals_table);

static const mp_stream_p_t uart_stream = {
    .read = uart_read,
    .write = uart_write,
    .ioctl = uart_ioctl,
};

MP_DEFINE_CONST_OBJ_TYPE(
    canboard_uart_type,
    MP_QSTR_Uart,
    MP_TYPE_FLAG_ITER_IS_STREAM,
    make_new, uart_make_new,
    print, uart_print,
    protocol, &uart_stream,
    locals_dict, &uart_locals
    );
