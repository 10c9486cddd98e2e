// Runs into a limit of addresses that the shell has set: what cannot be had is null and ENOMEM, what is there stays, and what
// is freed serves again.

#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>

#define MIB ((size_t)1 << 20)

// Whether `at` is null with ENOMEM.
static int is_refused(void *at) {
    return at == NULL && errno == ENOMEM;
}

// Blocks of one size until there are no more, linked through their first words; the count.
static size_t take_all(size_t size, uint64_t ***last) {
    size_t count = 0;
    for (;; count++) {
        errno = 0;
        uint64_t **block = malloc(size);
        if (block == NULL) {
            CHECK(errno == ENOMEM);
            return count;
        }
        *block = (uint64_t *)*last;
        fill(block + 1, size - 8, count);
        *last = block;
    }
}

// Frees them all, the last first.
static void give_all(size_t size, size_t count, uint64_t **last) {
    while (last != NULL) {
        uint64_t **next = (uint64_t **)*last;
        count--;
        CHECK(is_filled(last + 1, size - 8, count));
        free(last);
        last = next;
    }
    CHECK(count == 0);
}

// Every other way to a block, while there is nothing left of many bytes.
static void other_ways(uint64_t **held, size_t size) {
    void *at = &failures;
    size_t large = 400 * MIB;
    CHECK(is_refused(calloc(large, 1)));
    CHECK(is_refused(aligned_alloc(4096, large)));
    CHECK(is_refused(memalign(64, large)));
    CHECK(is_refused(valloc(large)));
    CHECK(is_refused(pvalloc(large)));
    CHECK(is_refused(reallocarray(NULL, large, 1)));
    CHECK(posix_memalign(&at, 64, large) == ENOMEM && at == &failures);
    if (held != NULL) {
        uint64_t *before = *held;
        CHECK(is_refused(realloc(held, size + large)));
        CHECK(*held == before && malloc_usable_size(held) >= size);
    }
}

// Begins before there is nothing left, and calls the allocator for the first time then.
static void *first_calls(void *at) {
    pthread_barrier_t *nothing_left = at;
    pthread_barrier_wait(nothing_left);
    for (int turn = 0; turn < 1000; turn++) {
        errno = 0;
        char *block = malloc(100 + turn);
        CHECK(block != NULL || errno == ENOMEM);
        if (block != NULL) {
            memset(block, 1, 100 + turn);
        }
        free(block);
    }
    pthread_barrier_wait(nothing_left);
    return NULL;
}

static const size_t SIZES[] = {200, 3000, 50000, 1 << 20, 9 << 20, 64, 200};
enum { TURNS = sizeof SIZES / sizeof *SIZES };

static void fill_up(size_t size, size_t limit, pthread_barrier_t *nothing_left) {
    uint64_t **last = NULL;
    size_t count = take_all(size, &last);
    printf("%zu blocks of %zu bytes\n", count, size);
    // Large blocks leave gaps, the more so where smaller ones were before.
    CHECK(count * size > limit / (size < MIB ? 2 : 8) && count * size < limit);
    pthread_barrier_wait(nothing_left);
    other_ways(last, size);
    pthread_barrier_wait(nothing_left);
    give_all(size, count, last);
}

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    CHECK(limit.rlim_cur <= 400 * MIB);
    pthread_t threads[TURNS];
    pthread_barrier_t nothing_left[TURNS];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 << 10);
    for (int turn = 0; turn < TURNS; turn++) {
        pthread_barrier_init(&nothing_left[turn], NULL, 2);
        CHECK(pthread_create(&threads[turn], &small, first_calls, &nothing_left[turn]) == 0);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        fill_up(SIZES[turn], limit.rlim_cur, &nothing_left[turn]);
        CHECK(pthread_join(threads[turn], NULL) == 0);
    }
    return status();
}
