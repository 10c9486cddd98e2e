/*
 * A list that outlives the programs that extend it: each run adds the words of its command line, and prints what all runs have
 * left. Several may run at once.
 *
 *     cargo rustc --profile preload --lib --features c-shared --crate-type staticlib
 *     gcc -I include examples/c/shared_list.c target/preload/libstratalloc.a -o shared_list
 *     ./shared_list /dev/shm/list-c milk bread
 *     ./shared_list /dev/shm/list-c eggs
 *     rm /dev/shm/list-c
 *
 * The file is a heap. A pointer into it means the same in every run, so the list is made of plain pointers.
 */

#include "stratalloc_shm.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Once it is in the list a word is never changed. */
struct word {
    struct word *older;
    unsigned long run;
    char text[];
};

/* The root of the heap: what a run finds first, and all else by that. */
struct list {
    _Atomic(struct word *) newest;
    atomic_ulong runs;
};

/* Only the run that makes the heap comes here, before any other gets it. */
static void begin(void) {
    shm_set_global(shm_calloc(1, sizeof(struct list)));
}

static void fail(const char *what) {
    perror(what);
    exit(EXIT_FAILURE);
}

/* Puts a word before all others. Without a lock: if this process died in the midst of it, the list would be as it was. */
static void push(struct list *list, unsigned long run, const char *text) {
    struct word *word = shm_malloc(sizeof *word + strlen(text) + 1);
    if (word == NULL) {
        fail("shm_malloc");
    }
    word->run = run;
    strcpy(word->text, text);
    word->older = atomic_load(&list->newest);
    while (!atomic_compare_exchange_weak(&list->newest, &word->older, word)) {
    }
}

/* Prints the oldest first. */
static void print(const struct word *word) {
    if (word != NULL) {
        print(word->older);
        printf("  %s (run %lu)\n", word->text, word->run);
    }
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: %s FILE [WORD...]\n", arguments[0]);
        return EXIT_FAILURE;
    }
    if (shm_init(arguments[1], begin) == -1) {
        fail("shm_init");
    }
    struct list *list = shm_global();
    if (list == NULL) {
        fail("the heap has no list");
    }
    unsigned long run = 1 + atomic_fetch_add(&list->runs, 1);
    for (int number = 2; number < count; number++) {
        push(list, run, arguments[number]);
    }
    printf("run %lu:\n", run);
    print(atomic_load(&list->newest));
    return shm_fini() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
