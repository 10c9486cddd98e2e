/*
 * Blocks of many sizes go from process to process: each writes a pattern into those that it makes, and checks and frees what it
 * gets from others. In the end all is freed.
 *
 *     cargo rustc --profile preload --lib --features c-shared --crate-type staticlib
 *     gcc -I include examples/c/shared_pattern.c target/preload/libstratalloc.a -o shared_pattern
 *     ./shared_pattern /dev/shm/pattern-c
 *
 * The heap stays in its file; with a second argument it is destroyed.
 */

#define _DEFAULT_SOURCE
#include "stratalloc_shm.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 4, TURNS = 20000, SLOTS = 256 };

/* Behind it are so many bytes, which follow from the seed. */
struct block {
    int maker;
    unsigned seed;
    size_t bytes;
    unsigned char content[];
};

/* The root of the heap: where blocks change hands. */
struct table {
    _Atomic(struct block *) slots[SLOTS];
    atomic_long passed_on, damaged;
};

static void fail(const char *what) {
    perror(what);
    exit(EXIT_FAILURE);
}

/* A sequence that looks random, and is the same in every run. */
static unsigned next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 33);
}

/* A number from 0 to 128 KiB: as often between 16 and 32 as between 64 and 128 KiB. */
static size_t size(uint64_t *state) {
    size_t most = (size_t)32 << next(state) % 13;
    return next(state) % (most + 1);
}

static unsigned char byte(unsigned seed, size_t index) {
    return (unsigned char)(seed + index * 151);
}

/* A block with its pattern. */
static struct block *make(int maker, unsigned seed, size_t bytes) {
    struct block *block = shm_malloc(sizeof *block + bytes);
    if (block == NULL) {
        fail("shm_malloc");
    }
    block->maker = maker;
    block->seed = seed;
    block->bytes = bytes;
    for (size_t index = 0; index < bytes; index++) {
        block->content[index] = byte(seed, index);
    }
    return block;
}

/* Checks a block, whoever made it, and frees it; null is none. */
static void take(struct table *table, int me, struct block *block) {
    int damaged = 0;
    if (block == NULL) {
        return;
    }
    for (size_t index = 0; index < block->bytes; index++) {
        damaged |= block->content[index] != byte(block->seed, index);
    }
    atomic_fetch_add(&table->damaged, damaged);
    atomic_fetch_add(&table->passed_on, block->maker != me);
    shm_free(block);
}

/* What each process does. */
static void work(struct table *table, int me) {
    uint64_t state = (uint64_t)me;
    for (int turn = 0; turn < TURNS; turn++) {
        unsigned seed = next(&state);
        struct block *fresh = make(me, seed, size(&state));
        take(table, me, atomic_exchange(&table->slots[next(&state) % SLOTS], fresh));
    }
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: %s FILE [destroy]\n", arguments[0]);
        return EXIT_FAILURE;
    }
    if (shm_init(arguments[1]) == -1) {
        fail("shm_init");
    }
    struct table *table = shm_calloc(1, sizeof *table);
    if (table == NULL) {
        fail("shm_calloc");
    }
    for (int number = 1; number < PROCESSES; number++) {
        pid_t process = fork();
        if (process == -1) {
            fail("fork");
        }
        if (process == 0) {
            /* The heap is there, where it was in the parent. */
            if (shm_child() == -1) {
                fail("shm_child");
            }
            work(table, number);
            _exit(shm_fini() == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
        }
    }
    work(table, 0);
    int failed = 0;
    for (int number = 1; number < PROCESSES; number++) {
        int status;
        failed |= wait(&status) == -1 || status != 0;
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        take(table, 0, table->slots[slot]);
    }
    printf("%d processes: %d blocks made and checked\n", PROCESSES, PROCESSES * TURNS);
    printf("%ld of them by another than had made them, %ld damaged\n", table->passed_on, table->damaged);
    failed |= table->damaged != 0;
    shm_free(table);
    failed |= (count > 2 ? shm_destroy() : shm_fini()) == -1;
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
