// machine: included by extmod/modmachine.c.
#include "usermod/canboard/canboard.h"

static void mp_machine_idle(void) {
    canboard_wait_ms(1);
}

static void mp_machine_reset(void) {
    canboard_reset();
}

static mp_int_t mp_machine_reset_cause(void) {
    return canboard_reset_cause();
}

static mp_obj_t mp_machine_unique_id(void) {
    byte id[CANBOARD_UNIQUE_ID_SIZE];
    canboard_unique_id(id);
    return mp_obj_new_bytes(id, sizeof(id));
}

static mp_obj_t mp_machine_get_freq(void) {
    return MP_OBJ_NEW_SMALL_INT(CANBOARD_HZ);
}

static void mp_machine_set_freq(size_t n_args, const mp_obj_t *args) {
    mp_raise_NotImplementedError(NULL);
}

static void mp_machine_lightsleep(size_t n_args, const mp_obj_t *args) {
    if (n_args == 0) {
        canboard_wait_ms(-1);
    } else {
        mp_hal_delay_ms(mp_obj_get_int(args[0]));
    }
}

NORETURN static void mp_machine_deepsleep(size_t n_args, const mp_obj_t *args) {
    mp_machine_lightsleep(n_args, args);
    canboard_reset();
}
