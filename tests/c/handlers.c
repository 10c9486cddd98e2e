// Allocates in handlers of `fork` that are registered before the first block is allocated.

#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 3000 };

static int calls;

static void allocate(void) {
    static void *blocks[BLOCKS];
    for (int one = 0; one < BLOCKS; one++) {
        blocks[one] = malloc(one * 3 % 900);
        CHECK(blocks[one] != NULL);
    }
    for (int one = 0; one < BLOCKS; one++) {
        free(blocks[one]);
    }
    calls++;
}

int main(void) {
    alarm(30);
    CHECK(pthread_atfork(allocate, allocate, allocate) == 0);
    allocate();
    pid_t child = fork();
    if (child == 0) {
        _exit(calls == 3 ? 0 : 1);
    }
    int how = -1;
    CHECK(waitpid(child, &how, 0) == child && how == 0 && calls == 3);
    return status();
}
