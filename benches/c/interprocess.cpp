// Boost.Interprocess as a peer of the bench `shared`.
#include <boost/interprocess/managed_mapped_file.hpp>
#include <cstddef>
#include <new>

namespace ipc = boost::interprocess;
static ipc::managed_mapped_file *heap;

extern "C" int peer_open(const char *path, size_t bytes) {
    try {
        heap = new ipc::managed_mapped_file(ipc::create_only, path, bytes);
        return 0;
    } catch (const ipc::interprocess_exception &) {
        return 1;
    }
}

extern "C" void *peer_malloc(size_t bytes) { return heap->allocate(bytes, std::nothrow); }

extern "C" void peer_free(void *block) { heap->deallocate(block); }
