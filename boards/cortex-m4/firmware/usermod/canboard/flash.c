// Flash: the machine's PSRAM, which the host keeps in a file. Block device for littlefs, and the ROMFS.
#include "extmod/vfs.h"
#include "py/binary.h"
#include "py/mperrno.h"
#include "py/objarray.h"
#include "py/runtime.h"
#include "canboard.h"

typedef struct {
    mp_obj_base_t base;
} flash_obj_t;

extern const mp_obj_type_t canboard_flash_type;
static const flash_obj_t flash_obj = {{&canboard_flash_type}};

static mp_obj_t flash_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 0, 0, false);
    return MP_OBJ_FROM_PTR(&flash_obj);
}

static uint8_t *place(size_t n_args, const mp_obj_t *args, mp_buffer_info_t *info) {
    mp_int_t at = mp_obj_get_int(args[1]) * CANBOARD_BLOCK_SIZE + (n_args == 4 ? mp_obj_get_int(args[3]) : 0);
    if (at < 0 || at + info->len > CANBOARD_LITTLEFS_SIZE) {
        mp_raise_OSError(MP_EINVAL);
    }
    return (uint8_t *)CANBOARD_FLASH_BASE + at;
}

static mp_obj_t flash_readblocks(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(args[2], &info, MP_BUFFER_WRITE);
    memcpy(info.buf, place(n_args, args, &info), info.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(flash_readblocks_obj, 3, 4, flash_readblocks);

static mp_obj_t flash_writeblocks(size_t n_args, const mp_obj_t *args) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(args[2], &info, MP_BUFFER_READ);
    memcpy(place(n_args, args, &info), info.buf, info.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(flash_writeblocks_obj, 3, 4, flash_writeblocks);

static mp_obj_t flash_ioctl(mp_obj_t self, mp_obj_t operation, mp_obj_t argument) {
    switch (mp_obj_get_int(operation)) {
        case MP_BLOCKDEV_IOCTL_BLOCK_COUNT:
            return MP_OBJ_NEW_SMALL_INT(CANBOARD_LITTLEFS_SIZE / CANBOARD_BLOCK_SIZE);
        case MP_BLOCKDEV_IOCTL_BLOCK_SIZE:
            return MP_OBJ_NEW_SMALL_INT(CANBOARD_BLOCK_SIZE);
        case MP_BLOCKDEV_IOCTL_BLOCK_ERASE: {
            mp_int_t block = mp_obj_get_int(argument);
            if (block < 0 || block >= (mp_int_t)(CANBOARD_LITTLEFS_SIZE / CANBOARD_BLOCK_SIZE)) {
                return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
            }
            memset((uint8_t *)CANBOARD_FLASH_BASE + block * CANBOARD_BLOCK_SIZE, 0xff, CANBOARD_BLOCK_SIZE);
            return MP_OBJ_NEW_SMALL_INT(0);
        }
        case MP_BLOCKDEV_IOCTL_INIT:
        case MP_BLOCKDEV_IOCTL_DEINIT:
        case MP_BLOCKDEV_IOCTL_SYNC:
            return MP_OBJ_NEW_SMALL_INT(0);
        default:
            return mp_const_none;
    }
}
static MP_DEFINE_CONST_FUN_OBJ_3(flash_ioctl_obj, flash_ioctl);

static const mp_rom_map_elem_t flash_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_readblocks), MP_ROM_PTR(&flash_readblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_writeblocks), MP_ROM_PTR(&flash_writeblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_ioctl), MP_ROM_PTR(&flash_ioctl_obj) },
};
static MP_DEFINE_CONST_DICT(flash_locals, flash_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    canboard_flash_type,
    MP_QSTR_Flash,
    MP_TYPE_FLAG_NONE,
    make_new, flash_make_new,
    locals_dict, &flash_locals
    );

// ---------------------------------------------------------------- vfs.rom_ioctl

static const MP_DEFINE_MEMORYVIEW_OBJ(romfs_obj, 'B', 0, CANBOARD_ROMFS_SIZE, (void *)CANBOARD_ROMFS_BASE);

mp_obj_t mp_vfs_rom_ioctl(size_t n_args, const mp_obj_t *args) {
    mp_int_t command = mp_obj_get_int(args[0]);
    if (command == MP_VFS_ROM_IOCTL_GET_NUMBER_OF_SEGMENTS) {
        return MP_OBJ_NEW_SMALL_INT(1);
    }
    if (n_args < 2 || mp_obj_get_int(args[1]) != 0) {
        return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
    }
    if (command == MP_VFS_ROM_IOCTL_GET_SEGMENT) {
        return MP_OBJ_FROM_PTR(&romfs_obj);
    }
    if (command == MP_VFS_ROM_IOCTL_WRITE_PREPARE && n_args == 3) {
        mp_int_t size = mp_obj_get_int(args[2]);
        if (size < 0 || size > (mp_int_t)CANBOARD_ROMFS_SIZE) {
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
        }
        memset((uint8_t *)CANBOARD_ROMFS_BASE, 0xff, size);
        return MP_OBJ_NEW_SMALL_INT(4); // least count of bytes to write
    }
    if (command == MP_VFS_ROM_IOCTL_WRITE && n_args == 4) {
        mp_int_t at = mp_obj_get_int(args[2]);
        mp_buffer_info_t info;
        mp_get_buffer_raise(args[3], &info, MP_BUFFER_READ);
        if (at < 0 || (mp_uint_t)at + info.len > CANBOARD_ROMFS_SIZE) {
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
        }
        memcpy((uint8_t *)CANBOARD_ROMFS_BASE + at, info.buf, info.len);
        return MP_OBJ_NEW_SMALL_INT(0);
    }
    if (command == MP_VFS_ROM_IOCTL_WRITE_COMPLETE) {
        return MP_OBJ_NEW_SMALL_INT(0);
    }
    return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
}
