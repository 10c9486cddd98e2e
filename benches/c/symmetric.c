// What a symmetric heap and its transfers cost, for any OpenSHMEM: rows of a name and nanoseconds, of PE 0.

#include <shmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void say(const char *row, double nanoseconds) {
    if (shmem_my_pe() == 0) {
        printf("%s %.3f\n", row, nanoseconds);
    }
}

static unsigned long state = 88172645463325252ul;

static size_t size(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return 16 + state % ((size_t)1 << (5 + state / 7919 % 12));
}

static void memory(int turns) {
    double begun = now();
    for (int turn = 0; turn < turns; turn++) {
        shmem_free(shmem_malloc(64));
    }
    say("pair", (now() - begun) / turns);
    enum { LIVE = 1000 };
    static void *blocks[LIVE];
    for (int at = 0; at < LIVE; at++) {
        blocks[at] = shmem_malloc(size());
    }
    begun = now();
    for (int turn = 0; turn < turns; turn++) {
        size_t at = size() % LIVE;
        shmem_free(blocks[at]);
        blocks[at] = shmem_malloc(size());
    }
    say("mixed", (now() - begun) / turns);
    for (int at = 0; at < LIVE; at++) {
        shmem_free(blocks[at]);
    }
    begun = now();
    for (int turn = 0; turn < turns; turn++) {
        shmem_barrier_all();
    }
    say("barrier", (now() - begun) / turns);
}

// Puts, gets and copies of so many bytes, one after the other in short turns, so that all meet the same machine. Only PE 0 works.
static void transfers(size_t bytes, int turns) {
    char *there = shmem_align(4096, bytes), *own = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095), row[64];
    memset(own, 1, bytes);
    memset(there, 1, bytes);
    shmem_barrier_all();
    if (shmem_my_pe() == 0) {
        int other = shmem_n_pes() - 1;
        double put = 1e18, get = 1e18, to = 1e18, from = 1e18;
        char *direct = shmem_ptr(there, other);
        for (int round = 0; round < 40; round++) {
            double begun = now();
            for (int turn = 0; turn < turns; turn++) {
                shmem_putmem(there, own, bytes, other);
            }
            double done = now();
            put = done - begun < put ? done - begun : put;
            begun = done;
            for (int turn = 0; turn < turns; turn++) {
                shmem_getmem(own, there, bytes, other);
            }
            done = now();
            get = done - begun < get ? done - begun : get;
            if (direct != NULL) {
                begun = now();
                for (int turn = 0; turn < turns; turn++) {
                    memcpy(direct, own, bytes);
                    __asm__ volatile("" ::: "memory");
                }
                done = now();
                to = done - begun < to ? done - begun : to;
                begun = done;
                for (int turn = 0; turn < turns; turn++) {
                    memcpy(own, direct, bytes);
                    __asm__ volatile("" ::: "memory");
                }
                done = now();
                from = done - begun < from ? done - begun : from;
            }
        }
        snprintf(row, sizeof row, "put-%zu", bytes);
        say(row, put / turns);
        snprintf(row, sizeof row, "get-%zu", bytes);
        say(row, get / turns);
        if (direct != NULL) {
            snprintf(row, sizeof row, "copy-to-%zu", bytes);
            say(row, to / turns);
            snprintf(row, sizeof row, "copy-from-%zu", bytes);
            say(row, from / turns);
        }
    }
    shmem_barrier_all();
    free(own);
    shmem_free(there);
}

static void words(int turns) {
    double first = now();
    for (int turn = 0; turn < turns; turn++) {
        shmem_quiet();
    }
    say("quiet", (now() - first) / turns);
    long *word = shmem_malloc(sizeof *word);
    *word = 0;
    shmem_barrier_all();
    if (shmem_my_pe() == 0) {
        double begun = now();
        for (int turn = 0; turn < turns; turn++) {
            shmem_long_atomic_fetch_add(word, 1, shmem_n_pes() - 1);
        }
        say("fetch-add", (now() - begun) / turns);
    }
    shmem_barrier_all();
    shmem_free(word);
}

int main(int count, char **arguments) {
    int turns = count > 1 ? atoi(arguments[1]) : 2000;
    shmem_init();
    memory(turns);
    words(turns);
    transfers(8, turns);
    transfers(4096, turns / 4 + 1);
    transfers(65536, turns / 50 + 1);
    transfers(1 << 20, turns / 1000 + 1);
    shmem_finalize();
    return 0;
}
