// os.urandom: included by extmod/modos.c.
#include "py/runtime.h"
#include "py/mperrno.h"
#include "usermod/canboard/canboard.h"

// Bytes from the host's entropy source. OSError(ENODEV) when it brings nothing: there is no other source here.
static mp_obj_t mp_os_urandom(mp_obj_t count_in) {
    mp_int_t count = mp_obj_get_int(count_in);
    if (count < 0) {
        mp_raise_ValueError(NULL);
    }
    vstr_t bytes;
    vstr_init_len(&bytes, count);
    if (!canboard_entropy((byte *)bytes.buf, count)) {
        mp_raise_OSError(MP_ENODEV);
    }
    return mp_obj_new_bytes_from_vstr(&bytes);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mp_os_urandom_obj, mp_os_urandom);
