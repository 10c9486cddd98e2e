// Threads of one program in a shared heap. The argument is the path of its file, which is not there yet.

#define _GNU_SOURCE
#include "check.h"
#include "stratalloc_shm.h"
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

enum { THREADS = 24, SLOTS = 64, TURNS = 3000 };

static const char *path;
static pthread_key_t key;
static pthread_t helper;
static int begun, helped;
static pthread_barrier_t all;
static uint64_t *slots[SLOTS];

// A thread that was started by who makes the heap, and goes on beyond that.
static void *help(void *unused) {
    (void)unused;
    for (int turn = 0; turn < 20000; turn++) {
        void *block = shm_malloc(1 + turn % 700);
        CHECK(block != NULL);
        shm_free(block);
    }
    helped = 1;
    return NULL;
}

static void begin(void) {
    begun++;
    CHECK(pthread_create(&helper, NULL, help, NULL) == 0);
    usleep(20000);
    CHECK(shm_set_global(shm_calloc(1, 8)) == 0);
}

// Uses the heap once more when its thread ends: after the thread-locals of whatever language.
static void last(void *block) {
    shm_free(block);
    shm_free(shm_calloc(3, 100));
    if (block != NULL && pthread_getspecific(key) == NULL) {
        static __thread int again;
        CHECK(pthread_setspecific(key, again++ == 0 ? shm_malloc(50) : NULL) == 0);
    }
}

static void *work(void *number) {
    uint64_t state = 99 + (uintptr_t)number;
    pthread_barrier_wait(&all);
    CHECK(shm_init(path, begin) == 0 && begun == 1 && shm_global() != NULL);
    __atomic_fetch_add((uint64_t *)shm_global(), 1, __ATOMIC_RELAXED);
    for (int turn = 0; turn < TURNS; turn++) {
        // A block begins with its size.
        size_t bytes = 8 * (1 + below(&state, turn % 100 == 0 ? 20000 : 200));
        uint64_t *block = turn % 3 == 0 ? shm_calloc(1, bytes) : shm_malloc(bytes);
        CHECK(block != NULL);
        fill(block, bytes, bytes);
        block[0] = bytes;
        block = __atomic_exchange_n(&slots[below(&state, SLOTS)], block, __ATOMIC_ACQ_REL);
        if (block != NULL) {
            bytes = block[0];
            block[0] = word_at(0, bytes);
            CHECK(is_filled(block, bytes, bytes));
            shm_free(block);
        }
    }
    CHECK(pthread_setspecific(key, shm_malloc(100)) == 0);
    if ((uintptr_t)number % 2 == 0) {
        pthread_exit(NULL);
    }
    return NULL;
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    path = arguments[1];
    CHECK(pthread_key_create(&key, last) == 0 && pthread_barrier_init(&all, NULL, THREADS) == 0);
    pthread_t threads[THREADS];
    for (uintptr_t one = 0; one < THREADS; one++) {
        CHECK(pthread_create(&threads[one], NULL, work, (void *)one) == 0);
    }
    for (int one = 0; one < THREADS; one++) {
        CHECK(pthread_join(threads[one], NULL) == 0);
    }
    CHECK(pthread_join(helper, NULL) == 0 && helped);
    CHECK(*(uint64_t *)shm_global() == THREADS);
    for (int slot = 0; slot < SLOTS; slot++) {
        shm_free(slots[slot]);
    }
    shm_free(shm_global());
    // The heap is left open: who looks at it finds what a process that ends leaves.
    return status();
}
