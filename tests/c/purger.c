// The thread that gives memory back after the last call: it comes, takes no signal, and goes; a forked child has one of its
// own; memory that is used again and again costs no pages; and it is there for a call of free inside of the C library.

#include "check.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SWING = 15 << 20 };

static void rest(long milliseconds) {
    const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void swing(void) {
    char *block = malloc(SWING);
    CHECK(block != NULL);
    memset(block, 1, SWING);
    errno = 77;
    free(block);
    CHECK(errno == 77);
}

// How many threads there are; the last one that is not the calling one.
static int threads(int *other) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    int count = 0;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        if (task->d_name[0] != '.') {
            count++;
            int id = atoi(task->d_name);
            *other = id == getpid() ? *other : id;
        }
    }
    closedir(tasks);
    return count;
}

// The thread comes with the swing, takes no signal, has gone within five seconds, and the memory with it.
static void one_comes_and_goes(void) {
    int other = 0;
    swing();
    CHECK(threads(&other) == 2);
    char name[64], line[200], blocked[64] = "";
    snprintf(name, sizeof name, "/proc/self/task/%d/status", other);
    FILE *text = fopen(name, "r");
    CHECK(text != NULL);
    while (fgets(line, sizeof line, text) != NULL) {
        sscanf(line, "SigBlk: %63s", blocked);
    }
    fclose(text);
    // All but those that cannot be blocked, and the two that the C library sends to its own threads.
    CHECK(strcmp(blocked, "fffffffe3ffbfeff") == 0 || strcmp(blocked, "fffffffe7ffbfeff") == 0);
    for (int wait = 0; wait < 500 && threads(&other) != 1; wait++) {
        rest(10);
    }
    CHECK(threads(&other) == 1);
    char pages[200] = "";
    int file = open("/proc/self/statm", O_RDONLY);
    CHECK(file >= 0 && read(file, pages, sizeof pages - 1) > 0);
    close(file);
    CHECK(strtol(strchr(pages, ' '), NULL, 10) * sysconf(_SC_PAGESIZE) < SWING);
}

static long faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

static void *nothing(void *argument) {
    return argument;
}

int main(void) {
    for (int cycle = 0; cycle < 5; cycle++) {
        one_comes_and_goes();
    }

    pid_t child = fork();
    if (child == 0) {
        one_comes_and_goes();
        fflush(stdout);
        _exit(status());
    }
    int ended = 0;
    CHECK(waitpid(child, &ended, 0) == child && WIFEXITED(ended) && WEXITSTATUS(ended) == 0);

    // The parent had none when it forked. This one has.
    swing();
    child = fork();
    if (child == 0) {
        int other = 0;
        CHECK(threads(&other) == 1);
        one_comes_and_goes();
        fflush(stdout);
        _exit(status());
    }
    CHECK(waitpid(child, &ended, 0) == child && WIFEXITED(ended) && WEXITSTATUS(ended) == 0);

    // Memory that is wanted again soon stays.
    swing();
    long before = faults();
    for (int round = 0; round < 50; round++) {
        swing();
    }
    CHECK(faults() - before < 4 * SWING / 4096);

    // Threads of C's own beside it, whose stacks and storage the C library keeps and gives again.
    for (int round = 0; round < 50; round++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, nothing, NULL) == 0);
        swing();
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return status();
}
