ifeq ($(VARIANT),reference)
REFERENCE_MOD := $(USERMOD_DIR)
SRC_USERMOD_C += $(REFERENCE_MOD)/cgcm.c
SRC_USERMOD_LIB_C += $(addprefix $(REFERENCE_MOD)/mbedtls/library/,gcm.c cipher.c cipher_wrap.c)
CFLAGS_USERMOD += -DCANBOARD_REFERENCE=1
endif
