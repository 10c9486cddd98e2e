// When a thread has ended, the C library frees what belongs to its thread-local storage while it holds its lock of thread
// stacks. Whatever that free makes the allocator do must not need this lock: stacks PHASE. The phase says when, on the way
// from one full list to the next, a thread ends: in one of them it is always such a free that makes a list full.

#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

enum { BLOCKS = 24000, STACK = 256 << 10 };

static void *nothing(void *at) {
    return at;
}

int main(int count, char **arguments) {
    static void *blocks[BLOCKS];
    // Of the size of what the C library frees.
    const size_t size = 300;
    for (int one = 0; one < BLOCKS; one++) {
        blocks[one] = memset(malloc(size), 1, size);
    }
    int list = (int)((8 << 10) / malloc_usable_size(blocks[0])), phase = count > 1 ? atoi(arguments[1]) % list : 0;
    // With a stack of its own a thread's storage is not kept for another one.
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_setstack(&attributes, stack, STACK);
    pthread_t thread;
    int is_there = 0;
    for (int one = 0; one < BLOCKS; one++) {
        free(blocks[one]);
        if (one % list == phase) {
            CHECK(!is_there || pthread_join(thread, NULL) == 0);
            CHECK(pthread_create(&thread, &attributes, nothing, NULL) == 0);
            is_there = 1;
        }
    }
    CHECK(pthread_join(thread, NULL) == 0);
    return status();
}
