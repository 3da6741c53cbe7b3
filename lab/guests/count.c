/* The heart of the linux guest: counts aloud, notices a second writer on its disk, obeys orders and the power button.
 *
 * The same words, disk record and orders as the tiny guest (tiny.c). Started by init as process 1: it never returns.
 * Kernel command line: tick=MS dirty=MIB_PER_SECOND.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x54524956u
#define INPUTS_MAX 4
#define BEAT_MS 10
#define DIRTY_MIB 16

struct on_disk { unsigned magic, nonce_low, nonce_high, count; };

static unsigned nonce[2], count, tick_ms = 100, dirty_mib_per_s;
static int console, disk;
static unsigned char *sector;

static void say(const char *word, long number) {
    char line[64];
    int length = number < 0 ? snprintf(line, sizeof line, "%s\n", word) : snprintf(line, sizeof line, "%s %ld\n", word, number);
    if (write(console, line, length) != length) return;
}
static struct on_disk *record(void) { return (struct on_disk *)sector; }
static int read_own(void) {
    if (pread(disk, sector, 512, 0) != 512) return 0;
    if (record()->nonce_low != nonce[0] || record()->nonce_high != nonce[1]) say("split", count);
    return 1;
}
static int write_own(void) {
    *record() = (struct on_disk){MAGIC, nonce[0], nonce[1], count};
    return pwrite(disk, sector, 512, 0) == 512;
}
static void first_look(void) {
    while (pread(disk, sector, 512, 0) != 512) { say("disk-error", -1); sleep(1); }
    count = record()->magic == MAGIC ? record()->count : 0;
    while (getrandom(nonce, sizeof nonce, GRND_NONBLOCK) != sizeof nonce) {
        struct timespec now; /* no entropy so early: the cycle counter and both clocks will do */
        clock_gettime(CLOCK_REALTIME, &now);
        nonce[0] = now.tv_nsec * 2654435761u ^ record()->nonce_high;
        nonce[1] = now.tv_sec ^ __builtin_ia32_rdtsc();
        break;
    }
    say("boot from", count);
    if (!write_own()) say("disk-error", -1);
}
static void tick(void) {
    if (!read_own()) { say("disk-error", -1); return; }
    count++;
    if (!write_own() || !read_own()) { count--; say("disk-error", -1); return; }
    say("tick", count);
}

static void put(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    if (file >= 0 && write(file, text, strlen(text)) >= 0) close(file);
}
static void hang(void) { /* one CPU, and this process never lets go of it */
    struct sched_param highest = {.sched_priority = 99};
    put("/proc/sys/kernel/sched_rt_runtime_us", "-1");
    sched_setscheduler(0, SCHED_FIFO, &highest);
    for (;;) __asm__ volatile("");
}
static void obey(char order) {
    switch (order) {
    case 'o': reboot(RB_POWER_OFF); break;
    case 'r': reboot(RB_AUTOBOOT); break;
    case 'p': put("/proc/sysrq-trigger", "c"); break;
    case 'c': if (ioperm(0xf4, 1, 1) == 0) outb(1, 0xf4); break;
    case 'h': hang(); break;
    default: break;
    }
}
static void power_button(void) { say("power-button", -1); reboot(RB_POWER_OFF); }

static void dirty_memory(void) {
    static unsigned char *memory;
    static unsigned long next, debt;
    if (!memory) memory = mmap(0, DIRTY_MIB << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;
    for (debt += dirty_mib_per_s * 256ul; debt >= 1000 / BEAT_MS; debt -= 1000 / BEAT_MS) {
        memory[next]++;
        next = (next + 4096) % (DIRTY_MIB << 20);
    }
}

static unsigned number_after(const char *line, const char *key, unsigned otherwise) {
    const char *found = strstr(line, key);
    return found ? (unsigned)atoi(found + strlen(key)) : otherwise;
}
static void read_command_line(void) {
    char line[1024] = "";
    int file = open("/proc/cmdline", O_RDONLY);
    if (file < 0 || read(file, line, sizeof line - 1) < 0) return;
    tick_ms = number_after(line, "tick=", 100);
    dirty_mib_per_s = number_after(line, "dirty=", 0);
}
static int open_inputs(struct pollfd *inputs) {
    struct termios raw;
    int n = 1;
    inputs[0] = (struct pollfd){open("/dev/ttyS1", O_RDWR | O_NOCTTY), POLLIN, 0};
    if (tcgetattr(inputs[0].fd, &raw) == 0) { cfmakeraw(&raw); tcsetattr(inputs[0].fd, TCSANOW, &raw); }
    for (int i = 0; i < INPUTS_MAX; i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int device = open(path, O_RDONLY | O_NONBLOCK);
        if (device >= 0) inputs[n++] = (struct pollfd){device, POLLIN, 0};
    }
    return n;
}
static void listen_to(struct pollfd *inputs, int n, int wait_ms) {
    struct input_event event;
    char order;
    if (poll(inputs, n, wait_ms) <= 0) return;
    if (inputs[0].revents & POLLIN && read(inputs[0].fd, &order, 1) == 1) obey(order);
    for (int i = 1; i < n; i++)
        while (inputs[i].revents & POLLIN && read(inputs[i].fd, &event, sizeof event) == sizeof event)
            if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) power_button();
}
static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(void) {
    struct pollfd inputs[INPUTS_MAX + 1];
    signal(SIGCHLD, SIG_IGN);
    console = open("/dev/ttyS0", O_WRONLY | O_NOCTTY);
    disk = open("/dev/vda", O_RDWR | O_DIRECT | O_SYNC);
    if (disk < 0 || posix_memalign((void **)&sector, 4096, 4096)) { say("disk-error", -1); sleep(1); }
    read_command_line();
    int n = open_inputs(inputs);
    first_look();
    for (long next = now_ms() + tick_ms;;) {
        long left = next - now_ms();
        if (dirty_mib_per_s && left > BEAT_MS) left = BEAT_MS;
        if (left > 0) listen_to(inputs, n, left);
        if (dirty_mib_per_s) dirty_memory();
        if (now_ms() < next) continue;
        tick();
        next += tick_ms;
        if (next < now_ms()) next = now_ms();
    }
}
