// libpmemobj as a peer of the bench `shared`. Blocks are no roots, and no place in the pool names them.
#include <libpmemobj.h>
#include <stddef.h>
#include <stdint.h>

static PMEMobjpool *pool;
static uint64_t number;

int peer_open(const char *path, size_t bytes) {
    PMEMoid first;
    pool = pmemobj_create(path, "bench", bytes, 0600);
    if (pool == NULL || pmemobj_alloc(pool, &first, 64, 0, NULL, NULL) != 0)
        return 1;
    number = first.pool_uuid_lo;
    return 0;
}

void *peer_malloc(size_t bytes) {
    PMEMoid block;
    return pmemobj_alloc(pool, &block, bytes, 0, NULL, NULL) == 0 ? (char *)pool + block.off : NULL;
}

void peer_free(void *block) {
    PMEMoid at = {number, (uint64_t)((char *)block - (char *)pool)};
    pmemobj_free(&at);
}
