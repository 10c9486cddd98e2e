// Loads the library with dlopen and uses its prefixed names, from threads that were there before and from others; closes it,
// and goes on: dlopened LIBRARY.

#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

enum { THREADS = 6, HELD = 200, TURNS = 20000 };

static void *(*its_malloc)(size_t);
static void *(*its_realloc)(void *, size_t);
static void *(*its_calloc)(size_t, size_t);
static void (*its_free)(void *);
static size_t (*its_malloc_usable_size)(void *);

// Where blocks change hands.
static void *slots[HELD];
static pthread_barrier_t loaded, closed, gone_on;

static void fill_whole(uint64_t *block) {
    size_t usable = its_malloc_usable_size(block);
    CHECK(block != NULL && usable >= 8);
    block[0] = usable ^ (uintptr_t)block;
    fill(block + 1, usable - 8, block[0]);
}

static void free_whole(uint64_t *block) {
    if (block != NULL) {
        CHECK(is_filled(block + 1, its_malloc_usable_size(block) - 8, block[0]));
        its_free(block);
    }
}

static void use(uint64_t seed) {
    uint64_t state = 2 * seed + 1;
    for (int turn = 0; turn < TURNS; turn++) {
        size_t size = below(&state, 500) == 0 ? below(&state, 1 << 20) : below(&state, 400);
        uint64_t *block = turn % 3 == 0 ? its_calloc(1, size) : its_malloc(size);
        if (turn % 5 == 0) {
            block = its_realloc(block, 2 * size + 1);
        }
        fill_whole(block);
        free_whole(__atomic_exchange_n(&slots[below(&state, HELD)], block, __ATOMIC_ACQ_REL));
    }
}

static void use_the_c_library(void) {
    char *text = NULL;
    for (int turn = 0; turn < 1000; turn++) {
        text = realloc(text, 10 + turn);
        snprintf(text, 10, "%d", turn);
        free(strdup(text));
    }
    free(text);
}

// There before the library is, and after it is closed.
static void *early(void *seed) {
    use_the_c_library();
    pthread_barrier_wait(&loaded);
    use((uintptr_t)seed);
    pthread_barrier_wait(&closed);
    pthread_barrier_wait(&gone_on);
    use_the_c_library();
    return NULL;
}

// Begins and ends while it is loaded.
static void *late(void *seed) {
    use((uintptr_t)seed);
    return NULL;
}

static void *load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        puts(dlerror());
        exit(101);
    }
    *(void **)&its_malloc = dlsym(library, "stratalloc_malloc");
    *(void **)&its_realloc = dlsym(library, "stratalloc_realloc");
    *(void **)&its_calloc = dlsym(library, "stratalloc_calloc");
    *(void **)&its_free = dlsym(library, "stratalloc_free");
    *(void **)&its_malloc_usable_size = dlsym(library, "stratalloc_malloc_usable_size");
    // The process goes on with what it had.
    Dl_info its, the_process;
    CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &the_process) != 0 && dladdr(*(void **)&its_malloc, &its) != 0);
    CHECK(its.dli_fbase != the_process.dli_fbase && dlsym(RTLD_DEFAULT, "stratalloc_malloc") == NULL);
    return library;
}

static void begin_late_threads(pthread_t *threads) {
    for (uintptr_t one = 0; one < THREADS; one++) {
        CHECK(pthread_create(&threads[one], NULL, late, (void *)(100 + one)) == 0);
    }
}

static void join(const pthread_t *threads) {
    for (int one = 0; one < THREADS; one++) {
        CHECK(pthread_join(threads[one], NULL) == 0);
    }
}

static void empty_slots(void) {
    for (int one = 0; one < HELD; one++) {
        free_whole(slots[one]);
        slots[one] = NULL;
    }
}

int main(int count, char **arguments) {
    alarm(300);
    pthread_t early_threads[THREADS], late_threads[THREADS];
    pthread_barrier_init(&loaded, NULL, THREADS + 1);
    pthread_barrier_init(&closed, NULL, THREADS + 1);
    pthread_barrier_init(&gone_on, NULL, THREADS + 1);
    for (uintptr_t one = 0; one < THREADS; one++) {
        CHECK(pthread_create(&early_threads[one], NULL, early, (void *)one) == 0);
    }
    void *library = load(count > 1 ? arguments[1] : "libstratalloc.so");
    pthread_barrier_wait(&loaded);
    begin_late_threads(late_threads);
    use(1000);
    join(late_threads);
    pthread_barrier_wait(&closed);
    empty_slots();
    // More than stays resident: somebody comes to give it back, and is at it when the library is closed.
    its_free(memset(its_malloc(40 << 20), 1, 40 << 20));
    CHECK(dlclose(library) == 0);
    use_the_c_library();
    usleep(400000);
    pthread_barrier_wait(&gone_on);
    join(early_threads);
    // Once more.
    library = load(count > 1 ? arguments[1] : "libstratalloc.so");
    begin_late_threads(late_threads);
    join(late_threads);
    empty_slots();
    CHECK(dlclose(library) == 0);
    use_the_c_library();
    return status();
}
