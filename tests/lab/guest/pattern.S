# The writer: what the lab's VMs run instead of an operating system.
#
# A boot sector that numbers its writes and spreads them in order over all disks but the one it booted from, for ever.
# Write number s (from 1) goes to disk (s - 1) mod n, slot ((s - 1) / n) mod 512. A slot is 4 KiB, the first one lies
# 1 MiB into the disk, and every 8 bytes of it are the little-endian words s and s ^ MAGIC. Each write is finished before
# the next begins, so any image of the disks taken at one point in time holds exactly the writes 1..max: what
# src/lab/pattern.rs checks. After a restart it goes on behind the highest number it finds. It writes one
# slot every second timer tick (18.2 a second) at most and sleeps the rest of the time: the BIOS polls for the end of a write,
# which takes all of the processor that the tests have to share.
# Assembled with BED=1, for the VMs of the libvirt bed, it is faster, tells on the first serial port in hexadecimal which
# write it has finished, and takes the power button of the machine "pc" for an order to switch it off.
# BIOS calls used: INT 13h AH=42h/43h, extended read/write by a disk address packet.

.equ MAGIC, 0x7a1db10c
.equ FIRST_SECTOR, 2048
.equ SECTORS_PER_SLOT, 8
.equ SLOTS, 512
.equ SLOTS_PER_READ, 8
.equ FIRST_DRIVE, 0x81          # 0x80 is the disk we came from
.equ BIOS_DISK_COUNT, 0x475
.equ BIOS_TICKS, 0x46c
.equ TICKS_PER_WRITE, 2
.equ BUFFER_SEGMENT, 0x1000
.equ WRITES_PER_SLEEP, 6
.equ SERIAL, 0x3f8
.equ PM_STATUS, 0x600           # with the register of what is enabled 2 behind, and the one of control 4 behind
.equ POWER_BUTTON, 0x100
.equ SOFT_OFF, 0x2000

.code16
.globl _start
_start:
    ljmp $0, $main
main:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    movw $0x7c00, %sp
    movw $BUFFER_SEGMENT, %ax
    movw %ax, %es
    rdtsc
    movl %eax, born
    movl %edx, born + 4
    cld
    sti
    movzbl BIOS_DISK_COUNT, %ecx
    decl %ecx
    movl %ecx, disks
    jz idle

# The highest number on any disk: eight slots a read.
    movb $FIRST_DRIVE, drive
scan_disk:
    movl $FIRST_SECTOR, lba
    movw $(SLOTS_PER_READ * SECTORS_PER_SLOT), sectors
scan_part:
    movb $0x42, %ah
    call disk_call
    xorw %di, %di
scan_slot:
    movl %es:(%di), %eax
    movl %eax, %edx
    xorl $MAGIC, %edx
    cmpl %es:4(%di), %edx
    jne scan_next
    cmpl last, %eax
    jbe scan_next
    movl %eax, last
scan_next:
    addw $(SECTORS_PER_SLOT * 512), %di
    cmpw $(SLOTS_PER_READ * SECTORS_PER_SLOT * 512), %di
    jb scan_slot
    addl $(SLOTS_PER_READ * SECTORS_PER_SLOT), lba
    cmpl $(FIRST_SECTOR + SLOTS * SECTORS_PER_SLOT), lba
    jb scan_part
    incb drive
    decl %ecx
    jnz scan_disk

    movw $SECTORS_PER_SLOT, sectors
.ifdef BED
    movw $POWER_BUTTON, %ax
    movw $(PM_STATUS + 2), %dx
    outw %ax, %dx
.endif
write_next:
    movl last, %eax
    xorl %edx, %edx
    divl disks                  # eax: how many this disk got before, edx: which disk
    addb $FIRST_DRIVE, %dl
    movb %dl, drive
    andl $(SLOTS - 1), %eax
    shll $3, %eax
    addl $FIRST_SECTOR, %eax
    movl %eax, lba
    incl last
    movl last, %eax
    movl %eax, %edx
    xorl $MAGIC, %edx
    xorw %di, %di
    movw $(SECTORS_PER_SLOT * 512 / 8), %cx
fill:
    stosl
    xchgl %eax, %edx
    stosl
    xchgl %eax, %edx
    loop fill
    movb $0x43, %ah
    call disk_call
.ifdef BED
    movl last, %ebx
    movw $8, %cx
    movw $SERIAL, %dx
digit:
    roll $4, %ebx
    movb %bl, %al
    andb $15, %al
    cmpb $10, %al
    sbbb $0x69, %al             # the old trick: from 0..15 to the digit
    das
    outb %al, %dx
    loop digit
    movb $'\n', %al
    outb %al, %dx
    movw $PM_STATUS, %dx
    inw %dx, %ax
    testw $POWER_BUTTON, %ax
    jnz off
    decw left
    jnz write_next
    movw $WRITES_PER_SLEEP, left
.endif
    movw BIOS_TICKS, %ax
sleep:
    hlt
    movw BIOS_TICKS, %dx
    subw %ax, %dx
    cmpw $TICKS_PER_WRITE, %dx
    jb sleep
    jmp write_next

idle:
    hlt
    jmp idle

.ifdef BED
off:
    movw $SOFT_OFF, %ax
    movw $(PM_STATUS + 4), %dx
    outw %ax, %dx
    jmp idle
left:
    .word WRITES_PER_SLEEP
.endif

# Does the call in AH on "drive" with the packet below, again until it succeeds. Keeps all but the flags.
# A failed call may leave the count it reached in the packet, so that is put back.
disk_call:
    pushal
again:
    pushw %ax
    pushw sectors
    movb drive, %dl
    xorb %al, %al
    movw $packet, %si
    int $0x13
    popw sectors
    popw %ax
    jc again
    popal
    ret

.balign 4
packet:
    .byte 16, 0
sectors:
    .word 0
    .word 0, BUFFER_SEGMENT
lba:
    .quad 0
disks:
    .long 0
last:
    .long 0
drive:
    .byte 0

# A number that each start of the guest has for itself: tests look at it from outside, at 0x7c00 + 500.
.org 500
born:
    .quad 0

.org 510
    .word 0xaa55
