// AES-256-GCM as one writes it in C: mbedTLS. The yardstick of the benchmark, in its firmware only.
#include "mbedtls/gcm.h"
#include "py/runtime.h"

// mbedTLS wants memory for its cipher's context, once a key; the one before is freed first.
static uint8_t arena[1024] __attribute__((aligned(8)));
static bool taken;

void *calloc(size_t count, size_t size) {
    if (taken || count * size > sizeof(arena)) {
        return NULL;
    }
    taken = true;
    memset(arena, 0, sizeof(arena));
    return arena;
}

void free(void *pointer) {
    if (pointer != NULL) {
        taken = false;
    }
}

static mbedtls_gcm_context context;
static bool keyed;

static void check(int result) {
    if (result) {
        mp_raise_OSError(-result);
    }
}

static void tag_of(mp_obj_t object, mp_buffer_info_t *tag, mp_uint_t flags) {
    mp_get_buffer_raise(object, tag, flags);
    if (tag->len < 16) {
        mp_raise_ValueError(MP_ERROR_TEXT("tag needs 16 bytes"));
    }
}

static void room_for(const mp_buffer_info_t *in, const mp_buffer_info_t *out) {
    if (out->len < in->len) {
        mp_raise_ValueError(MP_ERROR_TEXT("output is too short"));
    }
}

// setkey(key of 32 bytes)
static mp_obj_t setkey(mp_obj_t key_in) {
    mp_buffer_info_t key;
    mp_get_buffer_raise(key_in, &key, MP_BUFFER_READ);
    if (key.len != 32) {
        mp_raise_ValueError(MP_ERROR_TEXT("key has 32 bytes"));
    }
    if (keyed) {
        mbedtls_gcm_free(&context);
    }
    mbedtls_gcm_init(&context);
    keyed = true;
    check(mbedtls_gcm_setkey(&context, MBEDTLS_CIPHER_ID_AES, key.buf, 256));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(setkey_obj, setkey);

// seal(iv, aad, plaintext, ciphertext out, tag out)
static mp_obj_t seal(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t iv, aad, in, out, tag;
    mp_get_buffer_raise(args[0], &iv, MP_BUFFER_READ);
    mp_get_buffer_raise(args[1], &aad, MP_BUFFER_READ);
    mp_get_buffer_raise(args[2], &in, MP_BUFFER_READ);
    mp_get_buffer_raise(args[3], &out, MP_BUFFER_WRITE);
    room_for(&in, &out);
    tag_of(args[4], &tag, MP_BUFFER_WRITE);
    check(mbedtls_gcm_crypt_and_tag(&context, MBEDTLS_GCM_ENCRYPT, in.len, iv.buf, iv.len, aad.buf, aad.len,
        in.buf, out.buf, 16, tag.buf));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(seal_obj, 5, 5, seal);

// open(iv, aad, ciphertext, plaintext out, tag) -> whether it is authentic
static mp_obj_t open_(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t iv, aad, in, out, tag;
    mp_get_buffer_raise(args[0], &iv, MP_BUFFER_READ);
    mp_get_buffer_raise(args[1], &aad, MP_BUFFER_READ);
    mp_get_buffer_raise(args[2], &in, MP_BUFFER_READ);
    mp_get_buffer_raise(args[3], &out, MP_BUFFER_WRITE);
    room_for(&in, &out);
    tag_of(args[4], &tag, MP_BUFFER_READ);
    int result = mbedtls_gcm_auth_decrypt(&context, in.len, iv.buf, iv.len, aad.buf, aad.len, tag.buf, 16,
        in.buf, out.buf);
    if (result == MBEDTLS_ERR_GCM_AUTH_FAILED) {
        return mp_const_false;
    }
    check(result);
    return mp_const_true;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(open_obj, 5, 5, open_);

static const mp_rom_map_elem_t globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_cgcm) },
    { MP_ROM_QSTR(MP_QSTR_setkey), MP_ROM_PTR(&setkey_obj) },
    { MP_ROM_QSTR(MP_QSTR_seal), MP_ROM_PTR(&seal_obj) },
    { MP_ROM_QSTR(MP_QSTR_open), MP_ROM_PTR(&open_obj) },
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t cgcm_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&globals,
};
MP_REGISTER_MODULE(MP_QSTR_cgcm, cgcm_module);
