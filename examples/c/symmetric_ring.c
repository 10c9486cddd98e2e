/*
 * A program for any OpenSHMEM: each PE sorts its part of some numbers, tells its neighbour what it has, and all sum up.
 *
 *     cc symmetric_ring.c -I include -o symmetric_ring libstratalloc.a -lm
 *     stratalloc run -n 4 -- ./symmetric_ring
 */

#include <shmem.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT 1000

static int ascending(const void *left, const void *right)
{
    long a = *(const long *)left, b = *(const long *)right;
    return (a > b) - (a < b);
}

int main(void)
{
    shmem_init();
    int me = shmem_my_pe(), pes = shmem_n_pes(), right = (me + 1) % pes;
    long *numbers = shmem_malloc(COUNT * sizeof *numbers);
    long *theirs = shmem_align(4096, COUNT * sizeof *theirs);
    /* A static variable is symmetric, too. */
    static long sum;
    if (numbers == NULL || theirs == NULL)
        shmem_global_exit(1);
    for (long at = 0; at < COUNT; at++)
        numbers[at] = (at * 7919 + me * 104729) % 10007;
    qsort(numbers, COUNT, sizeof *numbers, ascending);
    /* Whatever PE has it: a block that grows keeps what was in it. */
    numbers = shmem_realloc(numbers, 2 * COUNT * sizeof *numbers);
    shmem_long_put(theirs, numbers, COUNT, right);
    shmem_barrier_all();
    long own = 0;
    for (long at = 0; at < COUNT; at++)
        own += theirs[at] * (at % 10);
    shmem_long_atomic_add(&sum, own, 0);
    shmem_barrier_all();
    if (me == 0)
        printf("%d PEs, smallest %ld, largest %ld, sum %ld\n", pes, theirs[0], theirs[COUNT - 1], sum);
    shmem_free(theirs);
    shmem_free(numbers);
    shmem_finalize();
    return 0;
}
