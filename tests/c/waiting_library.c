// A library that waits, when it is loaded and when it is closed, for a thread that allocates.

#include <pthread.h>
#include <stdlib.h>

static void *allocate(void *at) {
    for (int size = 0; size < 1000; size++) {
        free(malloc(size));
    }
    return at;
}

static void wait_for_a_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate, NULL) != 0 || pthread_join(thread, NULL) != 0) {
        abort();
    }
}

__attribute__((constructor)) static void when_loaded(void) {
    wait_for_a_thread();
}

__attribute__((destructor)) static void when_closed(void) {
    wait_for_a_thread();
}
