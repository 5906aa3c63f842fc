/* The 64 bytes of an Image's header (Documentation/arm64/booting.rst), of which the magic is looked at. */
	.section .head.text, "ax"
	.globl head
head:	b head
	.zero 52
	.ascii "ARM\x64"
	.zero 4
#ifdef LOAD
	.section .rodata, "a"
	.incbin LOAD
#endif
