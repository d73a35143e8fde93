# Board definition for MicroPython's qemu port; get_firmware.py calls it so:
#   make -C ports/qemu BOARD=cortex-m4 BOARD_DIR=.../firmware USER_C_MODULES=.../firmware/usermod BUILD=... VARIANT=... [MBEDTLS=...]
comma := ,
QEMU_ARCH = arm
QEMU_MACHINE = mps2-an386
PACKTRUST_DIR := $(BOARD_DIR)

CFLAGS += -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
CFLAGS += -DQEMU_SOC_MPS2 -DMICROPY_HW_MCU_NAME='"Cortex-M4F"' -DCANBOARD_VARIANT='"$(VARIANT)"'
CFLAGS += -I$(BOARD_DIR) -DMP_CONFIGFILE='"mpconfig_cortex_m4.h"'

LDSCRIPT = $(BOARD_DIR)/cortex_m4.ld
# Ours in place of the port's: start, console, and nothing that asks the host by semihosting.
LDFLAGS += $(addprefix -Wl$(comma)--wrap=,main uart_init mp_semihosting_init exit \
	mp_hal_stdio_poll mp_hal_stdin_rx_chr mp_hal_stdout_tx_strn)
SRC_BOARD_O = shared/runtime/gchelper_native.o shared/runtime/gchelper_thumb2.o
MPY_CROSS_FLAGS += -march=armv7emsp

FROZEN_MANIFEST ?= $(BOARD_DIR)/manifest.py
MICROPY_HEAP_SIZE ?= 98304
MICROPY_VFS_LFS2 = 1
MICROPY_PY_SSL = 0

# As MicroPython's own boards with TLS have it: AES and SHA from mbedTLS. Without it there is no cryptolib,
# and hashlib is MicroPython's own, as on an STM32 board without TLS.
ifneq ($(MBEDTLS),)
CFLAGS += -DMICROPY_SSL_MBEDTLS=1 -DMICROPY_PY_CRYPTOLIB=1 -DMICROPY_PY_HASHLIB_SHA1=1
CFLAGS += -I$(MBEDTLS)/include -DMBEDTLS_CONFIG_FILE='"mbedtls_config_cortex_m4.h"'
endif
