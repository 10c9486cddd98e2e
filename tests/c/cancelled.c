// Threads that are cancelled while they allocate, and wait for each other in the heap: neither malloc nor free is a point at
// which a thread may be cancelled, so none is cancelled there, and no lock stays behind.

#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { THREADS = 24, ROUNDS = 20, KEPT = 64 };

static atomic_long calls, cancelled_inside;

static void is_inside(void *unused) {
    (void)unused;
    atomic_fetch_add(&cancelled_inside, 1);
}

// Long blocks, which are served under one lock, and so many short ones that lists move.
static void allocate(void **kept, uint64_t *state) {
    for (int call = 0; call < 100; call++) {
        void **slot = &kept[below(state, KEPT)];
        free(*slot);
        *slot = malloc(below(state, 2) ? (size_t)5 << 20 : below(state, 2048));
        CHECK(*slot != NULL);
    }
    for (int slot = 0; slot < KEPT; slot++) {
        free(kept[slot]);
        kept[slot] = NULL;
    }
}

static void *work(void *state) {
    void *kept[KEPT] = {NULL};
    for (;;) {
        pthread_cleanup_push(is_inside, NULL);
        allocate(kept, state);
        pthread_cleanup_pop(0);
        atomic_fetch_add(&calls, 1);
        pthread_testcancel();
    }
    return NULL;
}

int main(void) {
    const struct timespec time = {0, 20000000};
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        uint64_t states[THREADS];
        for (int one = 0; one < THREADS; one++) {
            states[one] = round * THREADS + one + 1;
            CHECK(pthread_create(&threads[one], NULL, work, &states[one]) == 0);
        }
        nanosleep(&time, NULL);
        for (int one = 0; one < THREADS; one++) {
            CHECK(pthread_cancel(threads[one]) == 0);
        }
        for (int one = 0; one < THREADS; one++) {
            void *result = NULL;
            CHECK(pthread_join(threads[one], &result) == 0);
            CHECK(result == PTHREAD_CANCELED);
        }
    }
    CHECK(atomic_load(&cancelled_inside) == 0);
    CHECK(atomic_load(&calls) > 0);
    return status();
}
