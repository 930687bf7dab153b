/* A wrapper around the calls that change files: below a folder, the n-th of them fails, or ends the process.
   Loaded with LD_PRELOAD, so that Python's, torch's and SQLite's calls all go through it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, ONCE, FULL, KILL };

static int mode = OFF;
static long wanted, counted;
static char folder[4096], last[32];

/* Begin to count the calls below a folder. ONCE: the n-th fails with EIO; FULL: that and all later ones with ENOSPC;
   KILL: the n-th ends the process, a write after half of its bytes. */
void faults_arm(int new_mode, long n, const char *path) {
    snprintf(folder, sizeof folder, "%s", path);
    wanted = n, counted = 0, mode = new_mode;
}
void faults_disarm(void) { mode = OFF; }
long faults_counted(void) { return counted; }
/* What the n-th call was. */
const char *faults_last(void) { return last; }

static int is_ours(const char *path) { return strncmp(path, folder, strlen(folder)) == 0; }

static int is_our_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* Count a call. Returns 1 if it is to fail; 2 if it is to be the process's last one. */
static int fate(const char *name) {
    counted++;
    if (counted == wanted) snprintf(last, sizeof last, "%s", name);
    if (mode == ONCE && counted == wanted) return errno = EIO, 1;
    if (mode == FULL && counted >= wanted) return errno = ENOSPC, 1;
    return mode == KILL && counted == wanted ? 2 : 0;
}


#define ON_FD(name, declared, passed, half)                       \
    name declared {                                               \
        REAL_OF(name);                                            \
        if (mode != OFF && is_our_fd(fd)) {                       \
            int now = fate(#name);                                \
            if (now == 1) return -1;                              \
            if (now == 2) { half; raise(SIGKILL); }               \
        }                                                         \
        return real_##name passed;                                \
    }
#define REAL_OF(name) static __typeof__(&name) real_##name; if (!real_##name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t ON_FD(write, (int fd, const void *b, size_t n), (fd, b, n), (void)!real_write(fd, b, n / 2))
ssize_t ON_FD(pwrite, (int fd, const void *b, size_t n, off_t at), (fd, b, n, at), (void)!real_pwrite(fd, b, n / 2, at))
ssize_t ON_FD(pwrite64, (int fd, const void *b, size_t n, off64_t at), (fd, b, n, at), (void)!real_pwrite64(fd, b, n / 2, at))
int ON_FD(fsync, (int fd), (fd), )
int ON_FD(fdatasync, (int fd), (fd), )
int ON_FD(ftruncate, (int fd, off_t size), (fd, size), )
int ON_FD(ftruncate64, (int fd, off64_t size), (fd, size), )

int rename(const char *from, const char *to) {
    REAL_OF(rename);
    if (mode != OFF && is_ours(to)) {
        int now = fate("rename");
        if (now == 1) return -1;
        if (now == 2) raise(SIGKILL);
    }
    return real_rename(from, to);
}

#define OPEN(name)                                                                      \
    int name(const char *path, int flags, ...) {                                        \
        REAL_OF(name);                                                                  \
        va_list rest;                                                                   \
        va_start(rest, flags);                                                          \
        mode_t rights = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                     \
        va_end(rest);                                                                   \
        if (mode != OFF && flags & O_CREAT && is_ours(path)) {                          \
            int now = fate("open");                                                     \
            if (now == 1) return -1;                                                    \
            if (now == 2) raise(SIGKILL);                                               \
        }                                                                               \
        return real_##name(path, flags, rights);                                        \
    }
OPEN(open)
OPEN(open64)
