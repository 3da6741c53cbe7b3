/* The tiny guest: a bare-metal multiboot program that counts aloud and notices a second writer on its disk.
 *
 * Knows: COM1 (what it says), COM2 (orders, one letter each), the first IDE disk (sector 0), the ACPI power button of
 * QEMU's PIIX4, pvpanic, ib700 and isa-debug-exit. Knows nothing of virtward: it is the witness.
 *
 * Says on COM1: "boot from N", "tick N", "power-button", "split N" (the disk carries another boot's nonce),
 * "disk-error" (a request failed; that tick is not counted).
 * Command line: tick=MS (multiples of 10) dirty=MIB_PER_SECOND.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define TIMER_HZ 100
#define MS_PER_TIMER_BEAT (1000 / TIMER_HZ)
#define DIRTY_FROM 0x400000u /* program, stack and multiboot data lie below */
#define SPINS_BEFORE_SLEEP 2000

struct on_disk { /* sector 0 */
    u32 magic;
    u32 nonce_low, nonce_high;
    u32 count;
};
#define MAGIC 0x54524956u

static volatile u32 beats; /* timer interrupts since boot */
static u16 sector[256];
static u32 nonce_low, nonce_high, count;
static u32 tick_beats = 10, dirty_mib_per_s, memory_end = DIRTY_FROM, dirty_next = DIRTY_FROM, dirty_debt;

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u16 inw(u16 port) { u16 v; __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u64 cycles(void) { u64 v; __asm__ volatile("rdtsc" : "=A"(v)); return v; }

/* --- saying things --- */

static void say_char(char c) { while (!(inb(0x3fd) & 0x20)) {} outb(0x3f8, c); }
static void say(const char *text) { while (*text) say_char(*text++); }
static void say_number(u32 value) {
    char digits[11];
    int at = 10;
    digits[10] = 0;
    do { digits[--at] = '0' + value % 10; value /= 10; } while (value);
    say(digits + at);
}
static void say_line(const char *word, u32 value) { say(word); say_number(value); say("\n"); }

/* --- the disk, by programmed I/O; waits sleep, so a stalled storage costs no CPU --- */

static u8 wait_disk(void) {
    for (u32 spins = 0;; spins++) {
        u8 status = inb(0x1f7);
        if (!(status & 0x80)) return status;
        if (spins > SPINS_BEFORE_SLEEP) __asm__ volatile("hlt");
    }
}
static int disk_failed(u8 status) { return status & 0x21; }
static u8 command_disk(u8 command) {
    outb(0x1f6, 0xe0); outb(0x1f2, 1); outb(0x1f3, 0); outb(0x1f4, 0); outb(0x1f5, 0);
    outb(0x1f7, command);
    return wait_disk();
}
static int read_sector(void) {
    if (disk_failed(command_disk(0x20))) return 0;
    for (int i = 0; i < 256; i++) sector[i] = inw(0x1f0);
    return 1;
}
static int write_sector(void) {
    if (disk_failed(command_disk(0x30))) return 0;
    for (int i = 0; i < 256; i++) outw(0x1f0, sector[i]);
    return !disk_failed(wait_disk());
}
static struct on_disk *record(void) { return (struct on_disk *)sector; }
static int write_own(void) {
    *record() = (struct on_disk){MAGIC, nonce_low, nonce_high, count};
    return write_sector();
}
static int read_own(void) { /* 0: could not read */
    if (!read_sector()) return 0;
    if (record()->nonce_low != nonce_low || record()->nonce_high != nonce_high) say_line("split ", count);
    return 1;
}

/* --- interrupts --- */

struct frame;
__attribute__((interrupt)) static void on_timer(struct frame *f) { (void)f; beats++; outb(0x20, 0x20); }
__attribute__((interrupt)) static void on_disk_done(struct frame *f) { (void)f; outb(0xa0, 0x20); outb(0x20, 0x20); }
__attribute__((interrupt)) static void on_spurious(struct frame *f) { (void)f; outb(0xa0, 0x20); outb(0x20, 0x20); }

static u64 gdt[3] = {0, 0x00cf9a000000ffffull, 0x00cf92000000ffffull};
static u64 idt[256];
struct __attribute__((packed)) table { u16 limit; u32 base; };

static void set_gate(int vector, void (*handler)(struct frame *)) {
    u32 at = (u32)handler;
    idt[vector] = (u64)(at & 0xffff) | (8ull << 16) | (0x8eull << 40) | ((u64)(at >> 16) << 48);
}
static void take_interrupts(void) {
    struct table gdt_table = {sizeof gdt - 1, (u32)gdt}, idt_table = {sizeof idt - 1, (u32)idt};
    __asm__ volatile("lgdt %0\n ljmp $8, $1f\n1: mov $16, %%ax\n mov %%ax, %%ds\n mov %%ax, %%es\n mov %%ax, %%fs\n mov %%ax, %%gs\n mov %%ax, %%ss" ::"m"(gdt_table) : "eax");
    for (int i = 0x20; i < 0x30; i++) set_gate(i, on_spurious);
    set_gate(0x20, on_timer);
    set_gate(0x2e, on_disk_done);
    __asm__ volatile("lidt %0" ::"m"(idt_table));
    outb(0x20, 0x11); outb(0xa0, 0x11); outb(0x21, 0x20); outb(0xa1, 0x28);
    outb(0x21, 4); outb(0xa1, 2); outb(0x21, 1); outb(0xa1, 1);
    outb(0x21, 0xfa); outb(0xa1, 0xbf); /* timer, cascade, disk */
    u32 divisor = 1193182 / TIMER_HZ;
    outb(0x43, 0x34); outb(0x40, divisor & 0xff); outb(0x40, divisor >> 8);
    outb(0x3f6, 0);
    __asm__ volatile("sti");
}

/* --- orders and the power button --- */

static void power_off(void) { outw(0x604, 0x2000); }
static void obey(char order) {
    switch (order) {
    case 'o': power_off(); break;
    case 'c': outb(0xf4, 1); break;                        /* QEMU exits at once, without a word */
    case 'p': outb(0x505, 1); break;                       /* pvpanic: "the guest panicked" */
    case 'r': outb(0x64, 0xfe); break;                     /* keyboard controller: reset */
    case 'w': outb(0x443, 0xf); break;                     /* ib700: no sign of life for 0 seconds, which is too long */
    case 'h': for (;;) __asm__ volatile("cli\n hlt"); break;
    default: break;
    }
}
static void look_around(void) {
    if (inb(0x2fd) & 1) obey(inb(0x2f8));
    if (inw(0x600) & 0x100) { outw(0x600, 0x100); say("power-button\n"); power_off(); }
}

/* --- memory traffic for migrations: one write per page --- */

static void dirty_memory(void) {
    dirty_debt += dirty_mib_per_s * 256; /* pages per second */
    for (; dirty_debt >= TIMER_HZ; dirty_debt -= TIMER_HZ) {
        (*(volatile u32 *)dirty_next)++;
        dirty_next += 4096;
        if (dirty_next >= memory_end) dirty_next = DIRTY_FROM;
    }
}

/* --- the life of the guest --- */

static u32 number_after(const char *line, const char *key, u32 otherwise) {
    for (; *line; line++) {
        int i = 0;
        while (key[i] && line[i] == key[i]) i++;
        if (key[i]) continue;
        u32 value = 0;
        for (line += i; *line >= '0' && *line <= '9'; line++) value = value * 10 + (*line - '0');
        return value;
    }
    return otherwise;
}
static u32 clock_of_mainboard(void) {
    u32 seen = 0;
    for (u8 i = 0; i < 10; i++) { outb(0x70, i); seen = seen * 61 + inb(0x71); }
    return seen;
}
static void first_look(void) {
    while (!read_sector()) { say("disk-error\n"); for (u32 until = beats + 10; beats < until;) __asm__ volatile("hlt"); }
    count = record()->magic == MAGIC ? record()->count : 0;
    nonce_low = (u32)cycles() * 2654435761u ^ record()->nonce_high;
    nonce_high = clock_of_mainboard() ^ record()->nonce_low * 40503u;
    say_line("boot from ", count);
    if (!write_own()) say("disk-error\n");
}
static void tick(void) {
    if (!read_own()) { say("disk-error\n"); return; }
    count++;
    if (!write_own() || !read_own()) { count--; say("disk-error\n"); return; }
    say_line("tick ", count);
}

void guest(u32 *info) {
    const char *line = (const char *)info[4];
    u32 ms = number_after(line, "tick=", 100);
    tick_beats = ms < MS_PER_TIMER_BEAT ? 1 : ms / MS_PER_TIMER_BEAT;
    dirty_mib_per_s = number_after(line, "dirty=", 0);
    memory_end = 0x100000u + info[2] * 1024u;
    outb(0x3f9, 0); outb(0x3fb, 0x80); outb(0x3f8, 1); outb(0x3f9, 0); outb(0x3fb, 3); outb(0x3fa, 7);
    outb(0x2f9, 0); outb(0x2fb, 0x80); outb(0x2f8, 1); outb(0x2f9, 0); outb(0x2fb, 3); outb(0x2fa, 7);
    outw(0x602, 0x100);
    take_interrupts();
    first_look();
    for (u32 next = beats + tick_beats, seen = beats;;) {
        __asm__ volatile("hlt");
        if (beats == seen) continue;
        seen = beats;
        look_around();
        if (dirty_mib_per_s) dirty_memory();
        if ((int)(beats - next) < 0) continue;
        tick();
        next += tick_beats;
        if ((int)(beats - next) > 0) next = beats;
    }
}

__asm__(".section .multiboot, \"a\"\n .align 4\n .long 0x1badb002, 3, -(0x1badb002 + 3)\n"
        ".section .text.start, \"ax\"\n .global start\n start: cli\n mov $stack_end, %esp\n push %ebx\n call guest\n 1: hlt\n jmp 1b\n"
        ".section .bss\n .align 16\n .skip 16384\n stack_end:\n .text\n");
