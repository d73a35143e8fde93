CANBOARD_MOD := $(USERMOD_DIR)
SRC_USERMOD_C += $(addprefix $(CANBOARD_MOD)/,canboard.c main.c uart.c flash.c)
ifneq ($(MBEDTLS),)
SRC_USERMOD_LIB_C += $(addprefix $(CANBOARD_MOD)/mbedtls/library/,aes.c sha256.c sha1.c platform_util.c constant_time.c)
endif
