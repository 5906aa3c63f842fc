/* A module, as far as depmod and imgbuild look at one. */
#define INFO(name, text) \
	static const char name[] __attribute__((section(".modinfo"), used)) = #name "=" text
INFO(license, "GPL");
INFO(depends, "");
INFO(name, "toy");
INFO(vermagic, VERMAGIC);
int toy(void) { return 7; }
