/*
 * The first and only process of a boot check: mounts the modules volume, loads what it is asked to, says on the
 * console how far it came, reboots. Freestanding: a machine that builds kernels has a compiler for the guest's
 * architecture, but not always a C library for it.
 *
 * A record is a line of its own, `@imgbuild KEY VALUE @`. The kernel may print into a line that a process is
 * writing, so the console is silenced while a record goes out; the closing @ shows that it is whole, and the
 * last record counts them.
 */

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, IOCTL = 16, UNAME = 63, SYSLOG = 103, MOUNT = 165, REBOOT = 169,
       CLOCK_GETTIME = 228, OPENAT = 257, MKDIRAT = 258, FACCESSAT = 269, FINIT_MODULE = 313 };

static long call(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}
#define ENTRY __attribute__((force_align_arg_pointer))
#elif defined(__aarch64__)
enum { IOCTL = 29, MKDIRAT = 34, MOUNT = 40, FACCESSAT = 48, OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64,
       CLOCK_GETTIME = 113, SYSLOG = 116, REBOOT = 142, UNAME = 160, FINIT_MODULE = 273 };

static long call(long number, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
#define ENTRY
#else
#error "neither x86_64 nor arm64"
#endif

enum { AT_FDCWD = -100, O_RDONLY = 0, O_RDWR = 2, MS_RDONLY = 1, CLOCK_BOOTTIME = 7, TCSBRK = 0x5409,
       CONSOLE_OFF = 6, CONSOLE_ON = 7, COMPRESSED = 4, ENOENT = 2, EEXIST = 17, LINE = 512 };

static long console = 1;
static long records;
static char release[65];
/* A distribution's modules.dep is well below a megabyte; pages that are not touched cost nothing. */
static char dependencies[4 << 20], builtin[1 << 20], wanted[1 << 16], table[1 << 18];

static long length(const char *text)
{
	long n = 0;
	while (text[n])
		n++;
	return n;
}

/* Appends to a line, never past its end. */
static char *put(char *at, char *line, const char *text, long n)
{
	while (n-- > 0 && at < line + LINE - 4)
		*at++ = *text++;
	return at;
}

static char *put_number(char *at, char *line, long number, int digits)
{
	char text[20];
	int n = sizeof text;
	for (; number || digits > 0; number /= 10, digits--)
		text[--n] = '0' + number % 10;
	return put(at, line, text + n, sizeof text - n);
}

/* Writes one record of a key and up to three words; the last is a number, left out below zero. */
static void record(const char *key, const char *first, long n, const char *second, const char *third, long number)
{
	char line[LINE], *at = line;
	at = put(at, line, "\n@imgbuild ", 11);
	at = put(at, line, key, length(key));
	at = put(at, line, " ", first != 0);
	at = put(at, line, first, first ? n : 0);
	at = put(at, line, " ", second != 0);
	at = put(at, line, second, second ? length(second) : 0);
	at = put(at, line, " ", third != 0);
	at = put(at, line, third, third ? length(third) : 0);
	if (number >= 0) {
		at = put(at, line, " ", 1);
		at = put_number(at, line, number, 1);
	}
	*at++ = ' ', *at++ = '@', *at++ = '\n';
	call(SYSLOG, CONSOLE_OFF, 0, 0, 0, 0);
	call(WRITE, console, (long)line, at - line, 0, 0);
	call(IOCTL, console, TCSBRK, 1, 0, 0); /* waits until it is sent */
	call(SYSLOG, CONSOLE_ON, 0, 0, 0, 0);
	records++;
}

static void say(const char *key, const char *value)
{
	record(key, value, length(value), 0, 0, -1);
}

static long open(const char *path, long flags)
{
	return call(OPENAT, AT_FDCWD, (long)path, flags, 0, 0);
}

static long mount(const char *source, const char *target, const char *type, long flags)
{
	return call(MOUNT, (long)source, (long)target, (long)type, flags, 0);
}

/* Reads a whole file, closed by a zero; an absent or too long one is empty. */
static long slurp(const char *path, char *buffer, long size)
{
	long file = open(path, O_RDONLY), n = 0, got;
	buffer[0] = 0;
	if (file < 0)
		return file;
	while (n < size - 1 && (got = call(READ, file, (long)buffer + n, size - 1 - n, 0, 0)) > 0)
		n += got;
	call(CLOSE, file, 0, 0, 0, 0);
	buffer[n < size - 1 ? n : 0] = 0;
	return 0;
}

static const char *end_of(const char *text, char stop)
{
	while (*text && *text != '\n' && *text != stop)
		text++;
	return text;
}

static const char *next_line(const char *text)
{
	text = end_of(text, 0);
	return *text ? text + 1 : text;
}

/* Whether a path's file, up to its first dot, is the module `name`; - and _ mean the same. */
static int is_module(const char *path, const char *end, const char *name, long n)
{
	const char *base = path;
	for (; path < end; path++)
		if (*path == '/')
			base = path + 1;
	for (; n > 0 && base < end; n--, base++, name++)
		if ((*base == '-' ? '_' : *base) != (*name == '-' ? '_' : *name))
			return 0;
	return n == 0 && (base == end || *base == '.');
}

/* The line whose first word, ended by `stop`, is the module. */
static const char *find(const char *lines, char stop, const char *name, long n)
{
	for (; *lines; lines = next_line(lines))
		if (is_module(lines, end_of(lines, stop), name, n))
			return lines;
	return 0;
}

static int is_loaded(const char *name, long n)
{
	slurp("/proc/modules", table, sizeof table);
	return find(table, ' ', name, n) != 0;
}

/* Loads the file named between two points of modules.dep; its path is left in `path`. */
static long load_file(const char *start, const char *end, char *path)
{
	char *at = put(path, path, "/lib/modules/", 13);
	at = put(at, path, release, length(release));
	at = put(at, path, "/", 1);
	at = put(at, path, start, end - start);
	*at = 0;
	long file = open(path, O_RDONLY);
	if (file < 0)
		return file;
	long result = call(FINIT_MODULE, file, (long)"", at[-3] == '.' && at[-1] == 'o' ? 0 : COMPRESSED, 0, 0);
	call(CLOSE, file, 0, 0, 0, 0);
	return result == -EEXIST ? 0 : result;
}

static void load(const char *name, long n)
{
	char path[LINE];
	if (is_loaded(name, n)) {
		record("module", name, n, "already", 0, -1);
		return;
	}
	const char *start = find(dependencies, ':', name, n);
	if (!start) {
		if (find(builtin, 0, name, n))
			record("module", name, n, "builtin", 0, -1);
		else
			record("module", name, n, "failed", "modules.dep", ENOENT);
		return;
	}
	/* What a module depends on stands behind it, the deepest last. */
	const char *colon = end_of(start, ':'), *end = end_of(start, 0);
	long result = 0;
	while (end > colon && result == 0) {
		const char *word = end;
		while (word > colon + 1 && word[-1] != ' ')
			word--;
		if (word < end)
			result = load_file(word, end, path);
		end = word - 1;
	}
	if (result == 0)
		result = load_file(start, colon, path);
	if (result < 0)
		record("module", name, n, "failed", path, -result);
	else if (!is_loaded(name, n))
		record("module", name, n, "failed", "/proc/modules", ENOENT);
	else
		record("module", name, n, "loaded", 0, -1);
}

/* Mounts the modules volume where modprobe looks. */
static void mount_volume(void)
{
	static const char *const types[] = { "ext2", "ext4" };
	char path[LINE], *at = put(path, path, "/lib/modules/", 13);
	long result = 0;
	int i;
	at = put(at, path, release, length(release));
	*at = 0;
	call(MKDIRAT, AT_FDCWD, (long)path, 0755, 0, 0);
	for (i = 0; i < 2; i++) {
		result = mount("/dev/vdb", path, types[i], MS_RDONLY);
		/* Without its node no type can help, and the next would hide the reason. */
		if (result == 0 || result == -ENOENT)
			break;
	}
	if (result < 0) {
		record("volume", "failed", 6, "/dev/vdb", 0, -result);
		return;
	}
	say("volume", types[i]);
	/* Each with its closing zero. */
	at = put(at, path, "/modules.dep", 13);
	result = slurp(path, dependencies, sizeof dependencies);
	if (result < 0)
		record("volume", "failed", 6, path, 0, -result);
	at = put(at - 13, path, "/modules.builtin", 17);
	slurp(path, builtin, sizeof builtin);
}

static void say_root(void)
{
	slurp("/proc/mounts", table, sizeof table);
	for (const char *line = table; *line; line = next_line(line)) {
		const char *target = end_of(line, ' ') + 1, *type = end_of(target, ' ') + 1;
		if (target[0] == '/' && target[1] == ' ' && type[0] != 'r') /* not rootfs */
			record("root", type, end_of(type, ' ') - type, 0, 0, -1);
	}
}

ENTRY void _start(void)
{
	struct { char system[65], node[65], release[65], version[65], machine[65], domain[65]; } name;
	struct { long seconds, nanoseconds; } now = { 0, 0 };
	char uptime[LINE], *at;

	mount("dev", "/dev", "devtmpfs", 0);
	long opened = open("/dev/console", O_RDWR);
	if (opened >= 0)
		console = opened;

	call(CLOCK_GETTIME, CLOCK_BOOTTIME, (long)&now, 0, 0, 0);
	at = put_number(uptime, uptime, now.seconds, 1);
	at = put(at, uptime, ".", 1);
	at = put_number(at, uptime, now.nanoseconds / 1000000, 3);
	record("init", uptime, at - uptime, 0, 0, -1);

	call(UNAME, (long)&name, 0, 0, 0, 0);
	at = put(release, release, name.release, length(name.release));
	*at = 0;
	say("release", release);
	say("machine", name.machine);

	mount("proc", "/proc", "proc", 0);
	mount("sys", "/sys", "sysfs", 0);
	say_root();
	say("config", call(FACCESSAT, AT_FDCWD, (long)"/proc/config.gz", 4, 0, 0) == 0 ? "yes" : "no");

	if (slurp("/etc/imgbuild/modules", wanted, sizeof wanted) == 0) {
		mount_volume();
		for (const char *line = wanted; *line; line = next_line(line))
			load(line, end_of(line, 0) - line);
	}
	record("end", 0, 0, 0, 0, records);
	call(REBOOT, 0xfee1dead, 672274793, 0x01234567, 0, 0);
	for (;;)
		;
}
