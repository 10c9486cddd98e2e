// Opens a heap, and prints the number of the error, or 0. The arguments: its path, and what is done before or then, if anything.

#define _GNU_SOURCE
#include "stratalloc_shm.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

// Maps a page at an address where nothing is.
static void map_at(const char *address) {
    void *at = (void *)strtoul(address, NULL, 10);
    if (mmap(at, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at) {
        exit(EXIT_FAILURE);
    }
}

// Registers one process after the other, and lets them go once there is one too many, if they are to; the error of that one.
static int crowd(int leaves) {
    int answers[2], end[2], answer = 0;
    if (pipe(answers) == -1 || pipe(end) == -1) {
        return errno;
    }
    for (int number = 1; answer == 0; number++) {
        if (fork() == 0) {
            close(end[1]);
            answer = shm_child() == 0 ? 0 : errno;
            int told = write(answers[1], &answer, sizeof answer) == sizeof answer && read(end[0], &answer, 1) == 0;
            _exit(told && (!leaves || shm_fini() == 0) ? 0 : 1);
        }
        if (read(answers[0], &answer, sizeof answer) != sizeof answer) {
            return -1;
        }
        if (answer != 0) {
            printf("%d beside this one, ", number - 1);
        }
    }
    close(end[1]);
    for (int status; wait(&status) != -1;) {
        answer = status == 0 ? answer : -1;
    }
    return answer;
}

// Takes blocks until there are no more; the error.
static int exhaust(void) {
    int blocks = 0;
    while (shm_malloc(5000) != NULL) {
        blocks++;
    }
    int error = errno;
    printf("%s, ", blocks > 100 ? "a heap full of blocks" : "no blocks");
    return error;
}

int main(int count, char **arguments) {
    const char *what = count > 2 ? arguments[2] : "";
    if (*what >= '0' && *what <= '9') {
        map_at(what);
    }
    int error = shm_init(arguments[1]) == 0 ? 0 : errno;
    if (strcmp(what, "crowd") == 0) {
        error = crowd(1);
    } else if (strcmp(what, "lost-crowd") == 0) {
        printf("%d\n", crowd(0));
        fflush(stdout);
        _exit(0);
    } else if (strcmp(what, "exhaust") == 0 && error == 0) {
        error = exhaust();
    }
    printf("%d\n", error);
    return 0;
}
