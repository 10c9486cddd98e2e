// The rules of the shared heap's names, from C. The first argument is the path of a file that is not there yet.

#define _GNU_SOURCE
#include "check.h"
#include "stratalloc_shm.h"
#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int begun;

// Whether `call` fails with the error `number`.
#define FAILS(call, wrong, number) (errno = 0, (call) == (wrong) && errno == (number))

static int is_at_multiple(const void *at, size_t align) {
    return at != NULL && (uintptr_t)at % align == 0;
}

// No heap is open.
static void without_a_heap(void) {
    CHECK(FAILS(shm_malloc(8), NULL, EINVAL) && FAILS(shm_calloc(1, 8), NULL, EINVAL));
    CHECK(FAILS(shm_realloc(NULL, 8), NULL, EINVAL) && FAILS(shm_realloc(&begun, 8), NULL, EINVAL));
    CHECK(FAILS(shm_realloc(&begun, 0), NULL, EINVAL) && FAILS(shm_memalign(64, 8), NULL, EINVAL));
    CHECK(FAILS(shm_global(), NULL, EINVAL) && FAILS(shm_set_global(&begun), -1, EINVAL));
    CHECK(FAILS(shm_fini(), -1, EINVAL) && FAILS(shm_destroy(), -1, EINVAL) && FAILS(shm_child(), -1, EINVAL));
    CHECK(FAILS(shm_init(NULL), -1, EINVAL) && FAILS(shm_init(""), -1, ENOENT));
    shm_free(NULL);
}

// Who makes the heap may use it, and is not interrupted.
static void begin(void) {
    begun++;
    CHECK(shm_global() == NULL && shm_child() == 0);
    CHECK(FAILS(shm_init("/dev/null"), -1, EBUSY) && FAILS(shm_fini(), -1, EBUSY) && FAILS(shm_destroy(), -1, EBUSY));
    char *root = shm_malloc(100);
    CHECK(root != NULL && shm_set_global(strcpy(root, "made once")) == 0 && shm_global() == root);
}

static void never(void) {
    CHECK(!"the heap is made once");
}

// Goes to the folder of a file; its name there.
static const char *go_to(const char *path) {
    char folder[4096];
    const char *name = strrchr(path, '/') + 1;
    snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
    CHECK(chdir(folder) == 0);
    return name;
}

// One heap is open, by whatever name.
static void opened_again(const char *path) {
    char other[4096];
    const char *name;
    snprintf(other, sizeof other, "%s.link", path);
    CHECK(shm_init(path) == 0 && shm_init(path, never) == 0 && begun == 1);
    CHECK(link(path, other) == 0 && shm_init(other, never) == 0 && unlink(other) == 0);
    CHECK(symlink(path, other) == 0 && FAILS(shm_init(other), -1, EBUSY) && unlink(other) == 0);
    CHECK(FAILS(shm_init(other, never), -1, EBUSY) && access(other, F_OK) == -1);
    name = go_to(path);
    CHECK(shm_init(name, never) == 0 && chdir("/") == 0 && FAILS(shm_init(name), -1, EBUSY));
}

static void blocks_are_aligned_and_zero(void) {
    for (size_t size = 0; size < 300000; size += 1 + size / 3) {
        char *block = shm_malloc(size), *zero;
        CHECK(is_at_multiple(block, size < 16 ? 8 : 16));
        memset(block, 0xff, size);
        shm_free(block);
        zero = shm_calloc(size, 1);
        CHECK(is_at_multiple(zero, size < 16 ? 8 : 16));
        for (size_t at = 0; at < size; at++) {
            CHECK(zero[at] == 0);
        }
        shm_free(zero);
        for (size_t align = 1; align <= (size_t)4 << 20; align *= 2) {
            block = shm_memalign(align, size);
            CHECK(is_at_multiple(block, align));
            memset(block, 0xff, size);
            shm_free(block);
        }
    }
}

static void resized_blocks_keep_their_bytes(void) {
    uint64_t state = 1;
    size_t size = 8;
    char *block = shm_realloc(NULL, size);
    for (int turn = 0; turn < 2000; turn++) {
        size_t next = 8 + below(&state, turn % 50 == 0 ? 3000000 : 9000), kept = next < size ? next : size;
        fill(block, size, turn);
        block = shm_realloc(block, next);
        CHECK(block != NULL && is_filled(block, kept / 8 * 8, turn));
        size = next;
    }
    errno = 0;
    CHECK(shm_realloc(block, 0) == NULL && errno == 0);
}

static void what_cannot_be_is_null(void) {
    size_t most = SIZE_MAX, half = SIZE_MAX / 2, heap = (size_t)64 << 30;
    uint64_t *block = shm_malloc(64);
    fill(block, 64, 7);
    size_t sizes[] = {most, most - 1, most - 4095, half, half + 1, half - 15, heap, heap - 4096};
    for (size_t one = 0; one < sizeof sizes / sizeof *sizes; one++) {
        size_t size = sizes[one];
        CHECK(FAILS(shm_malloc(size), NULL, ENOMEM) && FAILS(shm_calloc(1, size), NULL, ENOMEM));
        CHECK(FAILS(shm_calloc(size, 1), NULL, ENOMEM) && FAILS(shm_memalign(64, size), NULL, ENOMEM));
        CHECK(FAILS(shm_realloc(NULL, size), NULL, ENOMEM));
        CHECK(FAILS(shm_realloc(block, size), NULL, ENOMEM) && is_filled(block, 64, 7));
    }
    CHECK(FAILS(shm_calloc(most, 2), NULL, ENOMEM) && FAILS(shm_calloc(half + 2, 2), NULL, ENOMEM));
    CHECK(FAILS(shm_calloc((size_t)1 << 32, (size_t)1 << 32), NULL, ENOMEM));
    size_t aligns[] = {0, 3, 6, 12, 48, 4095, 4097, most, half};
    for (size_t one = 0; one < sizeof aligns / sizeof *aligns; one++) {
        CHECK(FAILS(shm_memalign(aligns[one], 8), NULL, EINVAL));
    }
    CHECK(FAILS(shm_memalign(half + 1, 8), NULL, ENOMEM) && FAILS(shm_memalign(heap, 8), NULL, ENOMEM));
    void *none[] = {shm_calloc(0, most), shm_calloc(most, 0), shm_calloc(0, 0)};
    for (int one = 0; one < 3; one++) {
        CHECK(none[one] != NULL && none[one] != none[(one + 1) % 3]);
        shm_free(none[one]);
    }
    errno = 123;
    shm_free(block);
    shm_free(NULL);
    CHECK(errno == 123);
}

// With as many files open as there may be, the heap is not opened, and nothing is left of the attempt.
static void without_files(const char *path) {
    struct rlimit before, none = {0, 0};
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0 && FAILS(shm_init(path), -1, EMFILE) && shm_global() == NULL);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
}

// A child for which the file could not be opened again is not in the heap, and disturbs nobody in it.
static void children_without_files(void) {
    struct rlimit before, few = {64, 0};
    int files[64], count = 0, result;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    few.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while (count < 64 && (files[count] = dup(0)) != -1) {
        count++;
    }
    pid_t child = fork();
    if (child == 0) {
        CHECK(FAILS(shm_child(), -1, EBADF) && FAILS(shm_malloc(8), NULL, ENOMEM) && FAILS(shm_calloc(1, 8), NULL, ENOMEM));
        CHECK(shm_global() != NULL && shm_fini() == 0);
        _exit(status());
    }
    while (waitpid(child, &result, WNOHANG) == 0) {
        void *block = shm_malloc(40);
        CHECK(block != NULL);
        shm_free(block);
    }
    CHECK(result == 0 && setrlimit(RLIMIT_NOFILE, &before) == 0);
    while (count > 0) {
        close(files[--count]);
    }
}

int main(int count, char **arguments) {
    char *path = arguments[1];
    CHECK(count == 2);
    without_a_heap();
    without_files(path);
    CHECK(shm_init(path, begin) == 0 && begun == 1);
    CHECK(strcmp(shm_global(), "made once") == 0 && shm_child() == 0);
    opened_again(path);
    children_without_files();
    blocks_are_aligned_and_zero();
    resized_blocks_keep_their_bytes();
    what_cannot_be_is_null();

    // It is closed, and is as it was when it is opened again.
    char *root = shm_global();
    CHECK(shm_fini() == 0);
    without_a_heap();
    CHECK((shm_init)(go_to(path), never) == 0 && shm_global() == root && strcmp(root, "made once") == 0);
    CHECK(shm_set_global(NULL) == 0);
    errno = 0;
    CHECK(shm_global() == NULL && errno == 0);
    shm_free(root);

    // What is destroyed is gone, from wherever, and another may be made.
    CHECK(chdir("/") == 0 && shm_destroy() == 0 && access(path, F_OK) == -1);
    without_a_heap();
    CHECK(shm_init(path, begin) == 0 && begun == 2 && shm_global() != NULL);
    shm_free(shm_global());
    // The file was removed by somebody else: then there is none of that name.
    CHECK(unlink(path) == 0 && FAILS(shm_init(path, never), -1, EBUSY) && FAILS(shm_destroy(), -1, ENOENT));
    without_a_heap();
    return status();
}
