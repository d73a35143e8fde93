@ AES-GCM for Cortex-M3 and later, one call a record: what tools/gcm_thumb.py turns into words for asm_thumb.
@
@ In:  r0 = call: address of the key's state (8 bytes), mode (0 seal, 1 open, 2 encrypt counter block n)
@      r1 = work buffer: associated data 16 | IV 12 | text n | tag 16, at any address
@      r2 = n, r3 = length of associated data
@ Out: r0 = 1; 0 if the record is not authentic, or if the key was wiped or a length is impossible: then text that was
@      to be sealed is overwritten with zeros.
@
@ The state is laid out by tools/gcm_kernels.py, which also explains the order of the GHASH blocks. A number of 128
@ bits is in "memory order", the lowest byte of r4 first; times x^8 it is shifted up by a byte, and what leaves r7 is
@ reduced by a table of 256 halves. Words of the work buffer are loaded one by one: LDM wants aligned addresses.

        .syntax unified
        .cpu    cortex-m3
        .thumb

        .equ    ROUNDS, 36
        .equ    KEY, 40
        .equ    T0, 44
        .equ    R16, 60
        .equ    Y0, 68
        .equ    LA, 136
        .equ    LB, 152
        .equ    LC, 168
        .equ    LN, 184
        .equ    W, 344
        .equ    H2, 592
        .equ    H3, 1104

        @ stack
        .equ    MASK, 0
        .equ    BLOCK, 16
        .equ    WORK, 32
        .equ    SIZE, 36
        .equ    AAD, 40
        .equ    MODE, 44
        .equ    STATE, 48
        .equ    BLOCKS, 52
        .equ    COUNTER, 56
        .equ    AT, 60
        .equ    FRAME, 64

        @ \d ^= one column of a round: bytes of \a, \b, \c, \e by row, T0 turned
        .macro  column d, a, b, c, e
        uxtb    r10, \a
        ldr     r10, [r8, r10, lsl #2]
        eor     \d, \d, r10
        ubfx    r10, \b, #8, #8
        ldr     r10, [r8, r10, lsl #2]
        eor     \d, \d, r10, ror #24
        ubfx    r10, \c, #16, #8
        ldr     r10, [r8, r10, lsl #2]
        eor     \d, \d, r10, ror #16
        lsr     r10, \e, #24
        ldr     r10, [r8, r10, lsl #2]
        eor     \d, \d, r10, ror #8
        .endm

        .macro  round a, b, c, e, f, g, h, i
        ldmia   r9!, {\f, \g, \h, \i}
        column  \f, \a, \b, \c, \e
        column  \g, \b, \c, \e, \a
        column  \h, \c, \e, \a, \b
        column  \i, \e, \a, \b, \c
        .endm

        @ \d ^= the same through the S-box alone, which is the second byte of T0's words
        .macro  last d, a, b, c, e
        uxtb    r10, \a
        ldrb    r10, [r12, r10, lsl #2]
        eor     \d, \d, r10
        ubfx    r10, \b, #8, #8
        ldrb    r10, [r12, r10, lsl #2]
        eor     \d, \d, r10, lsl #8
        ubfx    r10, \c, #16, #8
        ldrb    r10, [r12, r10, lsl #2]
        eor     \d, \d, r10, lsl #16
        lsr     r10, \e, #24
        ldrb    r10, [r12, r10, lsl #2]
        eor     \d, \d, r10, lsl #24
        .endm

        @ r4-r7 *= x^8; r9 = R16
        .macro  shift
        lsr     r10, r7, #24
        lsl     r7, r7, #8
        orr     r7, r7, r6, lsr #24
        lsl     r6, r6, #8
        orr     r6, r6, r5, lsr #24
        lsl     r5, r5, #8
        orr     r5, r5, r4, lsr #24
        lsl     r4, r4, #8
        ldrh    r10, [r9, r10, lsl #1]
        eor     r4, r4, r10
        .endm

        .macro  xor0123
        eor     r4, r4, r0
        eor     r5, r5, r1
        eor     r6, r6, r2
        eor     r7, r7, r3
        .endm

        @ r4-r7 ^= entries of table \t for the byte at [r11, #\at]; r0-r3 are lost
        .macro  entries t, at
        ldrb    r10, [r11, #\at]
        cmp     r10, #0
        beq     9f
        and     r10, r10, #240
        add     r10, \t, r10
        ldmia   r10, {r0-r3}
        xor0123
        ldrb    r10, [r11, #\at]
        and     r10, r10, #15
        add     r10, r10, #16
        add     r10, \t, r10, lsl #4
        ldmia   r10, {r0-r3}
        xor0123
9:
        .endm

start:
        push    {r8-r11, lr}
        sub     sp, #FRAME
        ldr     r4, [r0]
        ldr     r5, [r0, #8]
        ldr     r6, [r4, #ROUNDS]
        movs    r7, #0
        str     r1, [sp, #WORK]
        str     r2, [sp, #SIZE]
        str     r3, [sp, #AAD]
        str     r5, [sp, #MODE]
        str     r4, [sp, #STATE]
        cmp     r2, #0
        blt     refuse
        cmp     r6, #0
        beq     refuse
        cmp     r3, #16
        bhi     refuse
        beq     2f
1:      strb    r7, [r1, r3]            @ the associated data's padding
        adds    r3, #1
        cmp     r3, #16
        bne     1b
2:      add     r6, r2, #15
        lsrs    r6, r6, #4
        str     r6, [sp, #BLOCKS]
        adds    r6, #1                  @ seal: from the last block down to the mask of the tag
        cmp     r5, #1
        it      eq
        moveq   r6, #1                  @ open: the mask first
        it      hi
        movhi   r6, r2

encrypt:                                @ counter block r6
        str     r6, [sp, #COUNTER]
        ldr     r11, [sp, #STATE]
        ldr     r10, [sp, #WORK]
        add     r9, r11, #W
        ldr     r8, [r11, #T0]
        ldmia   r9!, {r0-r3}
        rev     r7, r6
        ldr     r4, [r10, #16]
        ldr     r5, [r10, #20]
        ldr     r6, [r10, #24]
        ldr     r11, [r11, #ROUNDS]
        add     r12, r8, #1
        xor0123
3:      round   r4, r5, r6, r7, r0, r1, r2, r3
        round   r0, r1, r2, r3, r4, r5, r6, r7
        subs    r11, r11, #1
        bne     3b
        round   r4, r5, r6, r7, r0, r1, r2, r3
        ldmia   r9!, {r4-r7}
        last    r4, r0, r1, r2, r3
        last    r5, r1, r2, r3, r0
        last    r6, r2, r3, r0, r1
        last    r7, r3, r0, r1, r2

        ldr     r11, [sp, #WORK]
        ldr     r3, [sp, #MODE]
        ldr     r2, [sp, #COUNTER]
        cmp     r3, #2
        bne     4f
        str     r4, [r11]
        str     r5, [r11, #4]
        str     r6, [r11, #8]
        str     r7, [r11, #12]
        b       done
4:      cmp     r2, #1
        beq     hash
        @ text ^= key stream
        ldr     r1, [sp, #SIZE]
        add     r11, r11, r2, lsl #4
        subs    r11, #4                 @ work + 28 + 16 (counter - 2)
        sub     r1, r1, r2, lsl #4
        adds    r1, #32                 @ bytes left
        cmp     r1, #16
        blt     5f
        ldr     r0, [r11]
        eors    r0, r4
        str     r0, [r11]
        ldr     r0, [r11, #4]
        eors    r0, r5
        str     r0, [r11, #4]
        ldr     r0, [r11, #8]
        eors    r0, r6
        str     r0, [r11, #8]
        ldr     r0, [r11, #12]
        eors    r0, r7
        str     r0, [r11, #12]
        b       7f
5:      add     r12, sp, #BLOCK
        stmia   r12, {r4-r7}
        subs    r1, #4
        blt     6f
8:      ldr     r0, [r11]
        ldr     r4, [r12], #4
        eors    r0, r4
        str     r0, [r11], #4
        subs    r1, #4
        bge     8b
6:      adds    r1, #4
        beq     7f
8:      ldrb    r0, [r11]
        ldrb    r4, [r12], #1
        eors    r0, r4
        strb    r0, [r11], #1
        subs    r1, #1
        bne     8b
7:      subs    r6, r2, #1
        cmp     r6, r3
        bne     encrypt
        b       done

hash:
        stmia   sp, {r4-r7}
        ldr     r12, [sp, #STATE]
        @ the products of lengths that are not in LN, unless they are from last time
        ldr     r8, [sp, #SIZE]
        ldr     r9, [sp, #AAD]
        lsr     r8, r8, #8
        orr     r10, r9, r8, lsl #5
        ldr     r11, [r12, #KEY]
        cmp     r10, r11
        beq     4f
        str     r10, [r12, #KEY]
        movs    r0, #0
        movs    r1, #0
        movs    r2, #0
        movs    r3, #0
        add     r11, r12, #LB
1:      ldmia   r11!, {r4-r7}           @ then LC, which lies behind it
2:      cmp     r9, #0
        beq     3f
        tst     r9, #1
        beq     5f
        eor     r0, r0, r4
        eor     r1, r1, r5
        eor     r2, r2, r6
        eor     r3, r3, r7
5:      lsr     r10, r4, #31            @ / x: x^-1 = 1 + x + x^6 + x^127
        lsl     r4, r4, #1
        orr     r4, r4, r5, lsr #31
        lsl     r5, r5, #1
        orr     r5, r5, r6, lsr #31
        lsl     r6, r6, #1
        orr     r6, r6, r7, lsr #31
        orr     r7, r10, r7, lsl #1
        eor     r4, r4, r10, lsl #31
        eor     r4, r4, r10, lsl #30
        eor     r4, r4, r10, lsl #25
        lsr     r9, r9, #1
        b       2b
3:      mov     r9, r8
        movs    r8, #0
        add     r10, r12, #LB + 32
        cmp     r11, r10
        bne     1b
        rev     r0, r0
        rev     r1, r1
        rev     r2, r2
        rev     r3, r3
        add     r10, r12, #LA
        stmia   r10, {r0-r3}

4:      ldr     r10, [sp, #WORK]        @ associated data
        ldr     r3, [sp, #BLOCKS]
        ldr     r9, [r12, #R16]
        ldr     r4, [r10]
        ldr     r5, [r10, #4]
        ldr     r6, [r10, #8]
        ldr     r7, [r10, #12]
        and     r0, r3, #1
        add     r11, r12, r0, lsl #4
        add     r11, r11, #Y0
        stmia   r11, {r4-r7}
        cbnz    r3, 1f
        movs    r0, #0
        movs    r1, #0
        movs    r2, #0
        add     r11, r12, #Y0 + 16      @ no text: no odd block either
        stmia   r11, {r0-r3}
        b       gather
1:      movs    r3, #1
block:                                  @ of text: r3 = its number from 1, r12 = state, r9 = R16
        ldr     r2, [sp, #BLOCKS]
        movs    r4, #0
        movs    r5, #0
        movs    r6, #0
        movs    r7, #0
        subs    r2, r2, r3
        and     r2, r2, #1
        add     r11, r12, r2, lsl #4
        add     r11, r11, #Y0           @ Y
        cmp     r3, #2
        blo     2f
        str     r3, [sp, #AT]
        add     r8, r12, #H2
        add     r11, r11, #15
        mov     lr, #15
        entries r8, 0
1:      subs    r11, #1
        shift
        entries r8, 0
        subs    lr, #1
        bne     1b
        ldr     r3, [sp, #AT]
2:      ldr     r10, [sp, #WORK]        @ Y = Y * H^2 ^ block
        ldr     r8, [sp, #SIZE]
        add     r10, r10, r3, lsl #4
        add     r10, r10, #12           @ work + 28 + 16 (number - 1)
        sub     r8, r8, r3, lsl #4
        adds    r8, r8, #16             @ bytes left
        cmp     r8, #16
        bge     5f
        add     lr, sp, #BLOCK
        movs    r0, #0
        str     r0, [lr]
        str     r0, [lr, #4]
        str     r0, [lr, #8]
        str     r0, [lr, #12]
        subs    r8, #4
        blt     4f
3:      ldr     r0, [r10], #4
        str     r0, [lr], #4
        subs    r8, #4
        bge     3b
4:      adds    r8, #4
        beq     6f
3:      ldrb    r0, [r10], #1
        strb    r0, [lr], #1
        subs    r8, #1
        bne     3b
6:      add     r10, sp, #BLOCK
5:      ldr     r0, [r10]
        ldr     r1, [r10, #4]
        ldr     r2, [r10, #8]
        ldr     r8, [r10, #12]
        eor     r4, r4, r0
        eor     r5, r5, r1
        eor     r6, r6, r2
        eor     r7, r7, r8
        stmia   r11, {r4-r7}
        adds    r3, #1
        ldr     r2, [sp, #BLOCKS]
        cmp     r3, r2
        ble     block

gather:                                 @ even blocks * H^2 ^ odd blocks * H^3
        add     r8, r12, #H2
        add     r11, r12, #Y0 + 15
        add     r12, r12, #H3
        movs    r4, #0
        movs    r5, #0
        movs    r6, #0
        movs    r7, #0
        sub     lr, r11, #16
2:      ldrb    r0, [r11]               @ from the last byte that is not zero down
        ldrb    r1, [r11, #16]
        orrs    r0, r1
        bne     3f
        subs    r11, #1
        cmp     r11, lr
        bne     2b
        b       4f
1:      shift
3:      entries r12, 16
        entries r8, 0
        subs    r11, #1
        cmp     r11, lr
        bne     1b

4:
        ldr     r12, [sp, #STATE]
        add     r10, r12, #LA
        ldmia   r10, {r0-r3}
        xor0123
        ldr     r8, [sp, #SIZE]
        add     r10, r12, #LN
        ands    r9, r8, #255
        beq     3f
2:      ldmia   r10!, {r0-r3}
        lsrs    r9, r9, #1
        bcc     4f
        xor0123
4:      bne     2b                      @ flags are those of the shift
3:      ldmia   sp, {r0-r3}
        xor0123
        ldr     r11, [sp, #WORK]
        add     r11, r11, r8
        ldr     r3, [sp, #MODE]
        cbnz    r3, open
        str     r4, [r11, #28]
        str     r5, [r11, #32]
        str     r6, [r11, #36]
        str     r7, [r11, #40]
done:   movs    r0, #1
leave:  add     sp, #FRAME
        pop     {r8-r11, lr}
        b       end

open:   ldr     r0, [r11, #28]
        eors    r4, r0
        ldr     r0, [r11, #32]
        eors    r5, r0
        ldr     r0, [r11, #36]
        eors    r6, r0
        ldr     r0, [r11, #40]
        eors    r7, r0
        orrs    r4, r5
        orrs    r4, r6
        orrs    r4, r7
        movs    r0, #0
        cmp     r4, #0
        bne     leave
        ldr     r6, [sp, #BLOCKS]
        cmp     r6, #0
        beq     done
        adds    r6, #1
        b       encrypt

refuse: movs    r0, #0
        cmp     r5, #0
        bne     leave
        adds    r1, #28
1:      cmp     r2, #0
        ble     leave
        strb    r7, [r1], #1
        subs    r2, #1
        b       1b

end:
