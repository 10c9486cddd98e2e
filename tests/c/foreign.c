// Hands a pointer at which no block of the heap begins to one of the functions: foreign FUNCTION PLACE. It does not return.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define IS(argument, word) (strcmp(argument, word) == 0)

static char in_static_storage[64];
static volatile size_t seen;

// A run in the middle of what were slabs of small blocks a moment ago: the addresses of its pages have a past.
static char *run_over_slabs(size_t bytes) {
    enum { BLOCKS = 40000 };
    static void *blocks[BLOCKS];
    char *low = (char *)UINTPTR_MAX, *high = NULL;
    for (int one = 0; one < BLOCKS; one++) {
        blocks[one] = memset(malloc(200), 1, 200);
        low = (char *)blocks[one] < low ? blocks[one] : low;
        high = (char *)blocks[one] > high ? blocks[one] : high;
    }
    for (int one = 0; one < BLOCKS; one++) {
        free(blocks[one]);
    }
    malloc_trim(0);
    // The first of some runs that lies there.
    for (int one = 0; one < 200; one++) {
        char *run = malloc(bytes);
        if (run >= low && run + bytes <= high) {
            return run;
        }
    }
    puts("no run lies where slabs were");
    exit(1);
}

// A page from the C library's own heap, or in a mapping of it.
static char *of_the_c_library(size_t bytes) {
    void *(*its_own)(size_t);
    *(void **)&its_own = dlsym(RTLD_DEFAULT, "__libc_malloc");
    return its_own == NULL ? in_static_storage : its_own(bytes);
}

static char *place(const char *name, char *on_the_stack) {
    if (IS(name, "stack")) {
        return on_the_stack;
    }
    if (IS(name, "static")) {
        return in_static_storage + 16;
    }
    if (IS(name, "code")) {
        return (char *)(uintptr_t)&run_over_slabs;
    }
    if (IS(name, "low")) {
        return (char *)16;
    }
    if (IS(name, "never-mapped")) {
        return (char *)((uintptr_t)malloc(100000) - ((uintptr_t)1 << 36));
    }
    if (IS(name, "beyond-all-addresses")) {
        return (char *)UINTPTR_MAX - 4095;
    }
    if (IS(name, "other-heap")) {
        return of_the_c_library(100);
    }
    if (IS(name, "other-heap-mapping")) {
        return of_the_c_library(1 << 20);
    }
    if (IS(name, "own-mapping")) {
        return mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (IS(name, "run+16")) {
        return (char *)malloc(40000) + 16;
    }
    if (IS(name, "run+8192")) {
        return (char *)malloc(40000) + 8192;
    }
    if (IS(name, "run+36864")) {
        return (char *)malloc(40000) + 36864;
    }
    if (IS(name, "long-run+4096")) {
        return (char *)malloc(12 << 20) + 4096;
    }
    // over-slabs+PAGE
    return run_over_slabs(100 << 10) + 4096 * strtoul(name + strlen("over-slabs+"), NULL, 10);
}

int main(int count, char **arguments) {
    if (count != 3) {
        return 2;
    }
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    char on_the_stack[64];
    const char *function = arguments[1];
    char *at = place(arguments[2], on_the_stack + 16);
    if (IS(function, "free")) {
        free(at);
    } else if (IS(function, "realloc")) {
        seen = (size_t)realloc(at, 100);
    } else if (IS(function, "realloc-0")) {
        seen = (size_t)realloc(at, 0);
    } else if (IS(function, "reallocarray")) {
        seen = (size_t)reallocarray(at, 1000, 1000);
    } else if (IS(function, "malloc_usable_size")) {
        seen = malloc_usable_size(at);
    }
    printf("%s of %s, %p, came back: %zu\n", function, arguments[2], (void *)at, seen);
    return 0;
}
