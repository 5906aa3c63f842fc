/* An entry, and with PVH the note that names it: by that way it is entered in 32-bit mode, without paging. */
	.section .head.text, "ax"
	.globl head
head:
#ifdef CRY
	.code32
	movl $text, %esi
	movw $0x3f8, %dx
next:	lodsb
	testb %al, %al
	jz rest
	outb %al, %dx
	jmp next
text:	.incbin "init/cry"
#endif
rest:	hlt
	jmp rest
#ifdef PVH
	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 8, 18
	.asciz "Xen"
	.quad head
#endif
#ifdef LOAD
	.section .rodata, "a"
	.incbin LOAD
#endif
