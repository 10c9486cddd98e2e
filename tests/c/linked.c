// A program that is linked with the static library and uses the prefixed names beside C's own.

#define _GNU_SOURCE
#include "check.h"
#include "stratalloc.h"
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

enum { THREADS = 4 };
#define MIB ((size_t)1 << 20)

static size_t live_bytes(void) {
    return stratalloc_mallinfo2().uordblks;
}

static int is_at_multiple(const void *at, size_t align) {
    return at != NULL && (uintptr_t)at % align == 0;
}

// Each way to a block, and each way to free one.
static void ways(size_t size, uint64_t seed) {
    enum { WAYS = 9 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *aligned = NULL, *blocks[WAYS] = {
        stratalloc_malloc(size),
        stratalloc_calloc(size, 1),
        stratalloc_realloc(NULL, size),
        stratalloc_reallocarray(NULL, size, 1),
        stratalloc_aligned_alloc(64, size),
        stratalloc_memalign(1000, size),
        stratalloc_valloc(size),
        stratalloc_pvalloc(size),
    };
    CHECK(stratalloc_posix_memalign(&aligned, 8192, size) == 0);
    blocks[8] = aligned;
    CHECK(is_at_multiple(blocks[4], 64) && is_at_multiple(blocks[5], 1024) && is_at_multiple(blocks[6], page));
    CHECK(is_at_multiple(blocks[7], page) && is_at_multiple(aligned, 8192));
    for (size_t byte = 0; byte < size; byte++) {
        CHECK(((const char *)blocks[1])[byte] == 0);
    }
    for (int way = 0; way < WAYS; way++) {
        CHECK(blocks[way] != NULL && stratalloc_malloc_usable_size(blocks[way]) >= size);
        fill(blocks[way], size, seed + way);
    }
    for (int way = 0; way < WAYS; way++) {
        CHECK(is_filled(blocks[way], size, seed + way));
        blocks[way] = way % 2 == 0 ? stratalloc_realloc(blocks[way], 2 * size) : blocks[way];
        CHECK(blocks[way] != NULL && is_filled(blocks[way], size, seed + way));
    }
    for (int way = 0; way < WAYS; way += 3) {
        stratalloc_free(blocks[way]);
        stratalloc_free_sized(blocks[way + 1], (way + 1) % 2 == 0 ? 2 * size : size);
        stratalloc_free_aligned_sized(blocks[way + 2], 8, (way + 2) % 2 == 0 ? 2 * size : size);
    }
}

// What fails says so as C's own would.
static void failures_are_told(void) {
    void *at = &failures;
    errno = 0;
    CHECK(stratalloc_malloc(SIZE_MAX / 2 + 1) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(stratalloc_calloc(SIZE_MAX, 2) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(stratalloc_reallocarray(NULL, SIZE_MAX, 2) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(stratalloc_aligned_alloc(3, 3) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(stratalloc_posix_memalign(&at, 4, 4) == EINVAL && at == &failures && errno == 0);
    CHECK(stratalloc_malloc_usable_size(NULL) == 0);
    stratalloc_free(NULL);
}

static void *work(void *seed) {
    for (size_t size = 1; size < 2 * MIB; size += 1 + size / 5) {
        ways(size, (uintptr_t)seed);
    }
    failures_are_told();
    return NULL;
}

// Neither heap counts what the other has.
static void two_heaps(void) {
    enum { BLOCKS = 1000, BYTES = 5000 };
    static void *blocks[2][BLOCKS];
    // With its first block the library asks the C library to be told of forks and of the end of the thread.
    stratalloc_free(stratalloc_malloc(1));
    size_t ours = live_bytes(), theirs = mallinfo2().uordblks;
    for (int one = 0; one < BLOCKS; one++) {
        blocks[0][one] = malloc(BYTES);
    }
    CHECK(live_bytes() == ours && mallinfo2().uordblks >= theirs + BLOCKS * BYTES);
    theirs = mallinfo2().uordblks;
    for (int one = 0; one < BLOCKS; one++) {
        blocks[1][one] = stratalloc_malloc(BYTES);
    }
    CHECK(live_bytes() >= ours + BLOCKS * BYTES && mallinfo2().uordblks == theirs);
    for (int one = 0; one < BLOCKS; one++) {
        free(blocks[0][one]);
        stratalloc_free(blocks[1][one]);
    }
    CHECK(live_bytes() == ours);
}

int main(void) {
    two_heaps();
    size_t before = live_bytes();
    pthread_t threads[THREADS];
    for (uintptr_t one = 0; one < THREADS; one++) {
        CHECK(pthread_create(&threads[one], NULL, work, (void *)(one << 32)) == 0);
    }
    for (int one = 0; one < THREADS; one++) {
        CHECK(pthread_join(threads[one], NULL) == 0);
    }
    CHECK(live_bytes() == before);
    stratalloc_free(memset(stratalloc_malloc(7 * MIB), 1, 7 * MIB));
    CHECK(stratalloc_malloc_trim(0) == 1 && stratalloc_malloc_trim(0) == 0);
    return status();
}
