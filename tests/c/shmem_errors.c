// What the shmem_ names do with what they cannot do.

#include "check.h"
#include <shmem.h>

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    shmem_init();
    long own = 0, *word = shmem_calloc(2, sizeof *word);
    if (strcmp(what, "align") == 0) {
        CHECK(shmem_align(24, 8) == NULL);
    } else if (strcmp(what, "hints") == 0) {
        CHECK(shmem_malloc_with_hints(8, 64) == NULL);
    } else if (strcmp(what, "free") == 0) {
        shmem_free(&own);
    } else if (strcmp(what, "put") == 0) {
        shmem_long_p(&own, 1, 0);
    } else if (strcmp(what, "pe") == 0) {
        shmem_long_p(word, 1, shmem_n_pes());
    } else if (strcmp(what, "negative") == 0) {
        shmem_long_g(word, -1);
    } else if (strcmp(what, "misaligned") == 0) {
        shmem_long_atomic_inc((long *)((char *)word + 4), 0);
    } else if (strcmp(what, "set") == 0) {
        shmem_barrier(0, 1, shmem_n_pes(), NULL);
    } else if (strcmp(what, "exit") == 0) {
        shmem_global_exit(33);
    } else if (strcmp(what, "differs") == 0) {
        shmem_malloc(shmem_my_pe() == 1 ? 10 : 20);
    }
    shmem_barrier_all();
    shmem_free(word);
    shmem_finalize();
    return status();
}
