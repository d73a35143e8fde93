@ X25519 for cores with UMAAL (Cortex-M4, M7, M33): what tools/curve25519_thumb.py turns into words for asm_thumb.
@
@ In:  r0 = registers: nine numbers of 32 bytes, little-endian words, at a multiple of 4. x1 in 0, 1 in 1, 0 in 2, x1 in
@           3, 1 in 4; the others are room to work
@      r1 = the clamped scalar, 32 bytes
@ Out: number 1 is x of the product, below p
@
@ A number is eight words, any of its class modulo 2^256 - 38 = 2 p. The same instructions run at the same places for
@ every scalar and point. What the stack held of them is overwritten in the end.

        .syntax unified
        .cpu    cortex-m4
        .thumb

        @ stack
        .equ    PRODUCT, 0              @ 16 words
        .equ    REGISTERS, 64
        .equ    SCALAR, 68
        .equ    BIT, 72
        .equ    SWAPPED, 76
        .equ    COUNT, 80
        .equ    FRAME, 88

        @ r0 = address of number \d, and of \a and \b if they are given
        .macro  point d, a, b
        ldr     r3, [sp, #REGISTERS]
        add     r0, r3, #32*\d
        .ifnb \a
        add     r1, r3, #32*\a
        .endif
        .ifnb \b
        add     r2, r3, #32*\b
        .endif
        .endm

        .macro  call function, d, a, b
        point   \d, \a, \b
        bl      \function
        .endm

        @ number \d = number \a to the 2^\n; more than one time
        .macro  squarings d, a, n
        call    multiply, \d, \a, \a
        mov     r0, #\n-1
        str     r0, [sp, #COUNT]
1:      call    multiply, \d, \d, \d
        ldr     r0, [sp, #COUNT]
        subs    r0, #1
        str     r0, [sp, #COUNT]
        bne     1b
        .endm

        @ Exchange numbers 1, 2 with 3, 4 if r1 is 1, not if it is 0.
        .macro  swap
        rsb     r2, r1, #0
        ldr     r3, [sp, #REGISTERS]
        add     r0, r3, #32
        add     r1, r3, #96
        mov     r6, #16
1:      ldr     r3, [r0]
        ldr     r4, [r1]
        eor     r5, r3, r4
        and     r5, r2
        eor     r3, r5
        eor     r4, r5
        str     r3, [r0], #4
        str     r4, [r1], #4
        subs    r6, #1
        bne     1b
        .endm

        push    {r8-r12, lr}
        sub     sp, #FRAME
        str     r0, [sp, #REGISTERS]
        str     r1, [sp, #SCALAR]
        mov     r0, #0
        str     r0, [sp, #SWAPPED]
        mov     r0, #254

        @ A step of the ladder; names are RFC 7748's.
step:   str     r0, [sp, #BIT]
        ldr     r1, [sp, #SCALAR]
        lsr     r2, r0, #3
        ldrb    r1, [r1, r2]
        and     r0, #7
        lsr     r1, r0
        and     r1, #1
        ldr     r0, [sp, #SWAPPED]
        str     r1, [sp, #SWAPPED]
        eor     r1, r0
        swap
        call    plus, 5, 1, 2           @ A
        call    minus, 6, 1, 2          @ B
        call    plus, 7, 3, 4           @ C
        call    minus, 8, 3, 4          @ D
        call    multiply, 1, 8, 5       @ DA
        call    multiply, 2, 7, 6       @ CB
        call    plus, 3, 1, 2
        call    minus, 4, 1, 2
        call    multiply, 3, 3, 3       @ x3
        call    multiply, 4, 4, 4
        call    multiply, 4, 4, 0       @ z3
        call    multiply, 5, 5, 5       @ AA
        call    multiply, 6, 6, 6       @ BB
        call    multiply, 1, 5, 6       @ x2
        call    minus, 6, 5, 6          @ E
        call    scale, 7, 6, 5          @ AA + 121665 E
        call    multiply, 2, 6, 7       @ z2
        ldr     r0, [sp, #BIT]
        subs    r0, #1
        bpl.w   step
        ldr     r1, [sp, #SWAPPED]
        swap

        @ z^(p - 2) by Fermat. The exponent of 2 minus 1:
        call    multiply, 5, 2, 2
        squarings 6, 5, 2
        call    multiply, 6, 6, 2       @ z^9
        call    multiply, 5, 5, 6       @ z^11
        call    multiply, 7, 5, 5
        call    multiply, 7, 7, 6       @ 5
        squarings 6, 7, 5
        call    multiply, 6, 6, 7       @ 10
        squarings 7, 6, 10
        call    multiply, 7, 7, 6       @ 20
        squarings 8, 7, 20
        call    multiply, 8, 8, 7       @ 40
        squarings 8, 8, 10
        call    multiply, 8, 8, 6       @ 50
        squarings 6, 8, 50
        call    multiply, 6, 6, 8       @ 100
        squarings 7, 6, 100
        call    multiply, 7, 7, 6       @ 200
        squarings 7, 7, 50
        call    multiply, 7, 7, 8       @ 250
        squarings 7, 7, 5
        call    multiply, 7, 7, 5       @ 2^255 - 21
        call    multiply, 1, 1, 7

        @ Below 2^255 + 19: 2^255 = 19. Then 19 more reach 2^255 exactly if it is p or more.
        point   1
        ldm     r0, {r3-r10}
        mov     r2, #19
        lsr     r1, r10, #31
        bic     r10, #0x80000000
        mul     r1, r1, r2
        adds    r3, r1
        adcs    r4, #0
        adcs    r5, #0
        adcs    r6, #0
        adcs    r7, #0
        adcs    r8, #0
        adcs    r9, #0
        adcs    r10, #0
        adds    r1, r3, r2
        adcs    r1, r4, #0
        adcs    r1, r5, #0
        adcs    r1, r6, #0
        adcs    r1, r7, #0
        adcs    r1, r8, #0
        adcs    r1, r9, #0
        adcs    r1, r10, #0
        lsr     r1, #31
        mul     r1, r1, r2
        adds    r3, r1
        adcs    r4, #0
        adcs    r5, #0
        adcs    r6, #0
        adcs    r7, #0
        adcs    r8, #0
        adcs    r9, #0
        adcs    r10, #0
        bic     r10, #0x80000000
        stm     r0, {r3-r10}

        mov     r0, #0
        mov     r1, #16
        mov     r2, sp
1:      str     r0, [r2], #4
        subs    r1, #1
        bne     1b
        mov     r3, r0
        mov     r4, r0
        mov     r5, r0
        mov     r6, r0
        add     sp, #FRAME
        pop     {r8-r12, lr}
        b       end

        @ number at r0 = number at r1 + number at r2. r12 is what to add to the lowest word in the end, r11 is 38.
plus:   ldm     r1, {r3-r10}
        ldr     r11, [r2]
        adds    r3, r11
        ldr     r11, [r2, #4]
        adcs    r4, r11
        ldr     r11, [r2, #8]
        adcs    r5, r11
        ldr     r11, [r2, #12]
        adcs    r6, r11
        ldr     r11, [r2, #16]
        adcs    r7, r11
        ldr     r11, [r2, #20]
        adcs    r8, r11
        ldr     r11, [r2, #24]
        adcs    r9, r11
        ldr     r11, [r2, #28]
        adcs    r10, r11
        mov     r12, #0
        adc     r12, r12, r12
        mov     r11, #38
        mul     r12, r12, r11
        @ 2^256 = 38. A second carry leaves a number below that sum, so the third cannot be.
fold:   adds    r3, r12
        adcs    r4, #0
        adcs    r5, #0
        adcs    r6, #0
        adcs    r7, #0
        adcs    r8, #0
        adcs    r9, #0
        adcs    r10, #0
        mov     r12, #0
        adc     r12, r12, r12
        mul     r12, r12, r11
        add     r3, r12
        stm     r0, {r3-r10}
        bx      lr

        @ number at r0 = number at r1 - number at r2
minus:  ldm     r1, {r3-r10}
        ldr     r11, [r2]
        subs    r3, r11
        ldr     r11, [r2, #4]
        sbcs    r4, r11
        ldr     r11, [r2, #8]
        sbcs    r5, r11
        ldr     r11, [r2, #12]
        sbcs    r6, r11
        ldr     r11, [r2, #16]
        sbcs    r7, r11
        ldr     r11, [r2, #20]
        sbcs    r8, r11
        ldr     r11, [r2, #24]
        sbcs    r9, r11
        ldr     r11, [r2, #28]
        sbcs    r10, r11
        sbc     r12, r12, r12           @ -1 if it borrowed
        and     r12, #38
        subs    r3, r12
        sbcs    r4, #0
        sbcs    r5, #0
        sbcs    r6, #0
        sbcs    r7, #0
        sbcs    r8, #0
        sbcs    r9, #0
        sbcs    r10, #0
        sbc     r12, r12, r12
        and     r12, #38
        sub     r3, r12
        stm     r0, {r3-r10}
        bx      lr

        @ number at r0 = 121665 * number at r1 + number at r2; the factor is (A - 2) / 4
scale:  ldm     r2, {r3-r10}
        movw    r12, #56129
        movt    r12, #1
        mov     r11, #0
        ldr     r2, [r1]
        umaal   r3, r11, r2, r12
        ldr     r2, [r1, #4]
        umaal   r4, r11, r2, r12
        ldr     r2, [r1, #8]
        umaal   r5, r11, r2, r12
        ldr     r2, [r1, #12]
        umaal   r6, r11, r2, r12
        ldr     r2, [r1, #16]
        umaal   r7, r11, r2, r12
        ldr     r2, [r1, #20]
        umaal   r8, r11, r2, r12
        ldr     r2, [r1, #24]
        umaal   r9, r11, r2, r12
        ldr     r2, [r1, #28]
        umaal   r10, r11, r2, r12
        mov     r12, #38
        mul     r12, r12, r11
        mov     r11, #38
        b       fold

        @ A row: word \i of one factor times four of the other, added to the columns in \t, \u, \v, \w from column \at on.
        @ The carry \c comes in with what column \at held and leaves as column \at + 4; \t, done, goes to memory.
        .macro  row i, at, t, u, v, w, c
        ldr     r12, [r1, #4*\i]
        umaal   \t, \c, r12, r8
        umaal   \u, \c, r12, r9
        umaal   \v, \c, r12, r10
        umaal   \w, \c, r12, r11
        str     \t, [sp, #PRODUCT+4*(\at)]
        .endm

        @ number at r0 = number at r1 * number at r2
multiply:
        ldm     r2!, {r8-r11}
        mov     r3, #0
        mov     r4, #0
        mov     r5, #0
        mov     r6, #0
        mov     r7, #0
        row     0, 0, r4, r5, r6, r7, r3
        mov     r4, #0
        row     1, 1, r5, r6, r7, r3, r4
        mov     r5, #0
        row     2, 2, r6, r7, r3, r4, r5
        mov     r6, #0
        row     3, 3, r7, r3, r4, r5, r6
        mov     r7, #0
        row     4, 4, r3, r4, r5, r6, r7
        mov     r3, #0
        row     5, 5, r4, r5, r6, r7, r3
        mov     r4, #0
        row     6, 6, r5, r6, r7, r3, r4
        mov     r5, #0
        row     7, 7, r6, r7, r3, r4, r5
        str     r7, [sp, #PRODUCT+32]
        str     r3, [sp, #PRODUCT+36]
        str     r4, [sp, #PRODUCT+40]
        str     r5, [sp, #PRODUCT+44]
        ldm     r2, {r8-r11}
        mov     r4, #0
        mov     r5, #0
        mov     r6, #0
        mov     r7, #0
        ldr     r3, [sp, #PRODUCT+16]
        row     0, 4, r4, r5, r6, r7, r3
        ldr     r4, [sp, #PRODUCT+20]
        row     1, 5, r5, r6, r7, r3, r4
        ldr     r5, [sp, #PRODUCT+24]
        row     2, 6, r6, r7, r3, r4, r5
        ldr     r6, [sp, #PRODUCT+28]
        row     3, 7, r7, r3, r4, r5, r6
        ldr     r7, [sp, #PRODUCT+32]
        row     4, 8, r3, r4, r5, r6, r7
        ldr     r3, [sp, #PRODUCT+36]
        row     5, 9, r4, r5, r6, r7, r3
        ldr     r4, [sp, #PRODUCT+40]
        row     6, 10, r5, r6, r7, r3, r4
        ldr     r5, [sp, #PRODUCT+44]
        row     7, 11, r6, r7, r3, r4, r5
        @ Columns 12 to 15 are in r7, r3, r4, r5. 2^256 = 38.
        mov     r12, #38
        mov     r11, #0
        ldr     r1, [sp, #PRODUCT+16]
        ldr     r2, [sp, #PRODUCT+32]
        ldr     r6, [sp, #PRODUCT]
        umaal   r6, r11, r2, r12
        str     r6, [r0]
        ldr     r2, [sp, #PRODUCT+36]
        ldr     r6, [sp, #PRODUCT+4]
        umaal   r6, r11, r2, r12
        str     r6, [r0, #4]
        ldr     r2, [sp, #PRODUCT+40]
        ldr     r6, [sp, #PRODUCT+8]
        umaal   r6, r11, r2, r12
        ldr     r2, [sp, #PRODUCT+44]
        ldr     r9, [sp, #PRODUCT+12]
        umaal   r9, r11, r2, r12
        umaal   r1, r11, r7, r12
        ldr     r7, [sp, #PRODUCT+20]
        umaal   r7, r11, r3, r12
        ldr     r8, [sp, #PRODUCT+24]
        umaal   r8, r11, r4, r12
        ldr     r10, [sp, #PRODUCT+28]
        umaal   r10, r11, r5, r12
        @ Words 2 to 7 are in r6, r9, r1, r7, r8, r10; the carry in r11 is at most 38.
        mul     r11, r11, r12
        ldr     r2, [r0]
        ldr     r3, [r0, #4]
        adds    r2, r11
        adcs    r3, #0
        adcs    r6, #0
        adcs    r9, #0
        adcs    r1, #0
        adcs    r7, #0
        adcs    r8, #0
        adcs    r10, #0
        mov     r11, #0
        adc     r11, r11, r11
        mul     r11, r11, r12
        add     r2, r11
        strd    r2, r3, [r0]
        strd    r6, r9, [r0, #8]
        strd    r1, r7, [r0, #16]
        strd    r8, r10, [r0, #24]
        bx      lr
end:    mov     r0, #0
