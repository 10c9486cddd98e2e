// A guest of a shared heap that does what it is told, a word for each step, on its standard input; it answers with 0, or with the
// number of the error. The argument is the path of the heap's file.

#define _GNU_SOURCE
#include "stratalloc_shm.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int is_null(const void *at) {
    return at == NULL ? -1 : 0;
}

// Blocks of many sizes, which are freed again, the last ones first.
static int work(void) {
    void *blocks[200];
    for (int one = 0; one < 200; one++) {
        blocks[one] = shm_malloc((size_t)one * one);
        if (is_null(blocks[one])) {
            return -1;
        }
        memset(blocks[one], one, (size_t)one * one);
    }
    for (int one = 200; one-- > 0;) {
        shm_free(blocks[one]);
    }
    return 0;
}

// Goes on as a child of this process, which is killed in the midst of its use of the heap.
static int go_on_as_child(void) {
    pid_t parent = getpid();
    void *kept = shm_malloc(40);
    shm_free(shm_malloc(40));
    if (fork() != 0) {
        raise(SIGKILL);
    }
    while (getppid() == parent) {
        usleep(1000);
    }
    shm_free(kept);
    return shm_child();
}

int main(int count, char **arguments) {
    char step[20];
    static char place;
    while (count == 2 && scanf("%19s", step) == 1) {
        int result = -1;
        errno = 0;
        if (strcmp(step, "init") == 0) {
            result = shm_init(arguments[1]);
        } else if (strcmp(step, "work") == 0) {
            result = work();
        } else if (strcmp(step, "put") == 0) {
            result = shm_set_global(shm_calloc(1, 100));
        } else if (strcmp(step, "get") == 0) {
            result = is_null(shm_global());
        } else if (strcmp(step, "drop") == 0) {
            shm_free(shm_global());
            result = shm_set_global(NULL);
        } else if (strcmp(step, "fini") == 0) {
            result = shm_fini();
        } else if (strcmp(step, "destroy") == 0) {
            result = shm_destroy();
        } else if (strcmp(step, "go-on-as-child") == 0) {
            result = go_on_as_child();
        } else if (strcmp(step, "free-static") == 0) {
            shm_free(&place);
        } else if (strcmp(step, "realloc-inside") == 0) {
            result = is_null(shm_realloc((char *)shm_global() + 8, 50));
        }
        printf("%d\n", result == 0 ? 0 : errno);
        fflush(stdout);
    }
    return 0;
}
