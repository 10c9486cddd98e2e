// Allocates 200 MiB in small blocks, frees them, and waits: what is resident then, in KiB, without a further call. With an
// argument four threads do it, which have freed all and wait, too.

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, ALL = 200 << 20 };

static pthread_barrier_t filled, freed;

// Pages that are resident, of the second number in the file.
static long resident_kib(void) {
    char text[200] = {0};
    int file = open("/proc/self/statm", O_RDONLY);
    if (file < 0 || read(file, text, sizeof text - 1) <= 0) {
        exit(101);
    }
    close(file);
    return strtol(strchr(text, ' '), NULL, 10) * (sysconf(_SC_PAGESIZE) >> 10);
}

// Blocks of 16 to 1,000 bytes, linked through their first words.
static void *fill(size_t bytes) {
    void **last = NULL;
    for (size_t sum = 0, size = 16; sum < bytes; sum += size, size = size * 7 % 985 + 16) {
        void **block = malloc(size);
        memset(block, 1, size);
        *block = last;
        last = block;
    }
    return last;
}

static void free_all(void **last) {
    while (last != NULL) {
        void **next = *last;
        free(last);
        last = next;
    }
}

static void *work(void *nothing) {
    void *last = fill(ALL / THREADS);
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&filled);
    free_all(last);
    pthread_barrier_wait(&freed);
    pthread_barrier_wait(&freed);
    return nothing;
}

int main(int count, char **arguments) {
    pthread_t threads[THREADS];
    void *last = NULL;
    (void)arguments;
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    pthread_barrier_init(&freed, NULL, THREADS + 1);
    if (count > 1) {
        for (int one = 0; one < THREADS; one++) {
            pthread_create(&threads[one], NULL, work, NULL);
        }
        pthread_barrier_wait(&filled);
    } else {
        last = fill(ALL);
    }
    long full = resident_kib();
    if (count > 1) {
        pthread_barrier_wait(&filled);
        pthread_barrier_wait(&freed);
    } else {
        free_all(last);
    }
    const struct timespec time = {1, 500000000};
    nanosleep(&time, NULL);
    long idle = resident_kib();
    printf("%ld KiB full, %ld KiB idle\n", full, idle);
    return full > 200 << 10 && idle < 30 << 10 ? 0 : 1;
}
