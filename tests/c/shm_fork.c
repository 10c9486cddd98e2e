// Children of a process that has a shared heap open, while its threads are in the heap. The argument is the path of its file.

#define _GNU_SOURCE
#include "check.h"
#include "stratalloc_shm.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 3000, THREADS = 3, FORKS = 60 };

struct root {
    size_t *given[BLOCKS];
    // By each child, what it has allocated and left.
    size_t *left[FORKS];
};

static struct root *root;
static int ends;

static size_t *filled(size_t words, size_t seed) {
    size_t *block = shm_malloc(words * sizeof *block);
    CHECK(block != NULL);
    for (size_t word = 0; word < words; word++) {
        block[word] = seed + word;
    }
    return block;
}

static void check_and_free(size_t *block, size_t words, size_t seed) {
    for (size_t word = 0; word < words; word++) {
        CHECK(block[word] == seed + word);
    }
    shm_free(block);
}

static size_t words_of(size_t number) {
    return 1 + number * number % 1000;
}

// Is in the heap all the time.
static void *busy(void *seed) {
    for (size_t turn = 0; !__atomic_load_n(&ends, __ATOMIC_RELAXED); turn++) {
        size_t words = words_of(turn), *blocks[8];
        for (int one = 0; one < 8; one++) {
            blocks[one] = filled(words, turn ^ (size_t)seed);
        }
        for (int one = 0; one < 8; one++) {
            check_and_free(blocks[one], words, turn ^ (size_t)seed);
        }
    }
    return NULL;
}

// What a child does: it goes on where its parent was, frees what that has made, and leaves something.
static void live(int number) {
    if (number % 3 != 0) {
        CHECK(shm_child() == 0);
    }
    CHECK(shm_global() == root && shm_child() == 0);
    for (int one = number; one < BLOCKS; one += FORKS) {
        check_and_free(root->given[one], words_of(one), one);
    }
    for (size_t turn = 0; turn < 300; turn++) {
        check_and_free(filled(words_of(turn), turn), words_of(turn), turn);
    }
    root->left[number] = filled(words_of(number), number);
    if (number % 2 == 0) {
        CHECK(shm_fini() == 0 && shm_child() == -1 && errno == EINVAL);
    }
}

// Called in a child before all else: whoever has registered it did so before there was a heap.
static void at_once(void) {
    if (root != NULL) {
        check_and_free(filled(10, 10), 10, 10);
    }
}

int main(int count, char **arguments) {
    CHECK(count == 2 && pthread_atfork(NULL, NULL, at_once) == 0);
    CHECK(shm_init(arguments[1]) == 0);
    root = shm_calloc(1, sizeof *root);
    CHECK(shm_set_global(root) == 0);
    for (int one = 0; one < BLOCKS; one++) {
        root->given[one] = filled(words_of(one), one);
    }
    pthread_t threads[THREADS];
    for (size_t one = 0; one < THREADS; one++) {
        CHECK(pthread_create(&threads[one], NULL, busy, (void *)(one << 20)) == 0);
    }
    for (int number = 0; number < FORKS; number++) {
        pid_t child = fork();
        if (child == 0) {
            live(number);
            _exit(status());
        }
        // Another one is in the heap by its handler alone, and some are killed there.
        pid_t idle = fork();
        if (idle == 0) {
            _exit(0);
        }
        if (number % 4 == 3) {
            usleep(300);
            kill(idle, SIGKILL);
        }
        int result;
        CHECK(waitpid(child, &result, 0) == child && result == 0);
        CHECK(waitpid(idle, NULL, 0) == idle);
    }
    pid_t other = vfork();
    if (other == 0) {
        execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    int result;
    CHECK(waitpid(other, &result, 0) == other && result == 0);
    __atomic_store_n(&ends, 1, __ATOMIC_RELAXED);
    for (int one = 0; one < THREADS; one++) {
        CHECK(pthread_join(threads[one], NULL) == 0);
    }
    for (int number = 0; number < FORKS; number++) {
        check_and_free(root->left[number], words_of(number), number);
    }
    shm_free(root);
    CHECK(shm_set_global(NULL) == 0 && shm_fini() == 0);
    return status();
}
