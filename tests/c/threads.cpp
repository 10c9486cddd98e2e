// Threads of every kind that C++ and POSIX have, each of which allocates, frees what others allocated, and looks at what is in
// its blocks. If all was as it should be it says nothing, and ends with 0. With an argument its main thread ends first.

#include "check.h"
#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

// A block that knows what is in it.
struct Block {
    size_t bytes;
    uint64_t seed;

    static Block *make(size_t bytes, uint64_t seed) {
        Block *block = static_cast<Block *>(malloc(sizeof(Block) + bytes));
        CHECK(block != nullptr);
        *block = Block{bytes, seed};
        fill(block + 1, bytes, seed);
        return block;
    }

    void check() const {
        CHECK(is_filled(this + 1, bytes, seed));
    }
};

void unmake(Block *block) {
    if (block != nullptr) {
        block->check();
        free(block);
    }
}

// Of another length, in place or not.
Block *remake(Block *block, size_t bytes) {
    size_t kept = bytes < block->bytes ? bytes : block->bytes;
    Block *fresh = static_cast<Block *>(realloc(block, sizeof(Block) + bytes));
    CHECK(fresh != nullptr && is_filled(fresh + 1, kept, fresh->seed));
    fresh->bytes = bytes;
    fill(fresh + 1, bytes, fresh->seed);
    return fresh;
}

// Mostly small sizes, sometimes some pages, seldom many.
size_t some_size(uint64_t &state) {
    size_t pick = below(&state, 1000);
    return pick < 900 ? below(&state, 600) : pick < 997 ? below(&state, 20000) : below(&state, 2 << 20);
}

// Where blocks change hands.
enum { SLOTS = 512 };
std::atomic<Block *> slots[SLOTS];

// So many allocations, each block of which some thread frees.
void work(uint64_t seed, int turns) {
    uint64_t state = 2 * seed + 1;
    std::vector<Block *> held(100);
    for (int turn = 0; turn < turns; turn++) {
        Block *&mine = held[below(&state, held.size())];
        switch (below(&state, 4)) {
        case 0:
            mine = slots[below(&state, SLOTS)].exchange(mine);
            break;
        case 1:
            if (mine != nullptr) {
                mine = remake(mine, some_size(state));
                break;
            }
            [[fallthrough]];
        default:
            unmake(mine);
            mine = Block::make(some_size(state), seed ^ turn);
        }
    }
    for (Block *mine : held) {
        unmake(mine);
    }
}

// Before `main`.

std::map<std::string, std::string> before_main_in_cpp = [] {
    std::map<std::string, std::string> map;
    for (int number = 0; number < 500; number++) {
        map["key " + std::to_string(number)] = std::string(number, 'x');
    }
    return map;
}();

Block *blocks_before_main[300];
Block *first_block;

__attribute__((constructor(101))) void before_all_initialisers() {
    first_block = Block::make(5000, 17);
}

__attribute__((constructor)) void before_main_in_c() {
    for (int size = 0; size < 300; size++) {
        blocks_before_main[size] = Block::make(size * 7, size);
    }
    // A thread before `main`.
    std::thread(work, 99, 2000).join();
}

void check_before_main() {
    for (int number = 0; number < 500; number++) {
        CHECK(before_main_in_cpp["key " + std::to_string(number)] == std::string(number, 'x'));
    }
    for (Block *block : blocks_before_main) {
        CHECK(block != nullptr);
        unmake(block);
    }
    first_block->check();
}

// After `main`.

void at_the_end() {
    std::vector<std::string> words;
    for (int number = 0; number < 1000; number++) {
        words.push_back(std::string(number % 300, 'y'));
    }
    work(7, 2000);
    unmake(first_block);
}

__attribute__((destructor)) void after_all_handlers() {
    work(8, 2000);
    unmake(Block::make(100000, 3));
}

// Ends of threads.

// Its destructor runs at the end of a thread, and allocates and frees.
struct AtThreadEnd {
    Block *block = nullptr;
    std::vector<std::string> words;

    ~AtThreadEnd() {
        unmake(block);
        work(21, 300);
        unmake(Block::make(3000, 5));
    }
};

thread_local AtThreadEnd at_thread_end;
thread_local std::unique_ptr<std::map<int, std::string>> another;

// How often the destructors of keys ran; each goes on for some rounds.
std::atomic<int> key_rounds;
pthread_key_t keys[4];

struct KeyValue {
    int rounds;
    int key;
    Block *block;
};

// Runs after the destructors of thread-locals; allocates and frees, some of it in what it sets anew.
void at_key_end(void *at) {
    KeyValue *value = static_cast<KeyValue *>(at);
    key_rounds++;
    work(31 + value->rounds, 200);
    unmake(value->block);
    unmake(Block::make(4000 * value->rounds, 6));
    if (value->rounds > 1) {
        KeyValue *next = static_cast<KeyValue *>(malloc(sizeof(KeyValue)));
        *next = KeyValue{value->rounds - 1, value->key, Block::make(200 * value->rounds, 4)};
        CHECK(pthread_setspecific(keys[value->key], next) == 0);
    }
    free(value);
}

void set_key(int key, int rounds) {
    KeyValue *value = static_cast<KeyValue *>(malloc(sizeof(KeyValue)));
    *value = KeyValue{rounds, key, Block::make(1000 * key, 9)};
    CHECK(pthread_setspecific(keys[key], value) == 0);
}

// Leaves something to do for each of its ends. Which of them was set up first differs.
void *with_ends(void *at) {
    long number = reinterpret_cast<long>(at);
    if (number % 2 == 0) {
        set_key(number % 4, 1 + number % 3);
    }
    at_thread_end.block = Block::make(number * 50, number);
    if (number % 3 == 0) {
        another = std::make_unique<std::map<int, std::string>>();
        for (int key = 0; key < 100; key++) {
            (*another)[key] = std::string(key, 'z');
        }
    }
    at_thread_end.words.assign(20, std::string(number, 'w'));
    if (number % 2 == 1) {
        set_key(number % 4, 1 + number % 3);
    }
    if (number % 5 == 0) {
        pthread_exit(Block::make(number, 1));
    }
    return Block::make(number, 1);
}

// A first touch of the allocator in the destructor of a key.
void *with_nothing_but_a_key(void *at) {
    CHECK(pthread_setspecific(keys[0], at) == 0);
    return nullptr;
}

pthread_t begin(void *(*body)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, nullptr, body, argument) == 0);
    return thread;
}

void ends_of_threads() {
    for (pthread_key_t &key : keys) {
        CHECK(pthread_key_create(&key, at_key_end) == 0);
    }
    int expected = 0;
    for (long number = 0; number < 120; number += 6) {
        pthread_t threads[7];
        for (long one = 0; one < 6; one++) {
            threads[one] = begin(with_ends, reinterpret_cast<void *>(number + one));
            expected += 1 + (number + one) % 3;
        }
        KeyValue *value = static_cast<KeyValue *>(malloc(sizeof(KeyValue)));
        *value = KeyValue{2, 0, Block::make(100, 2)};
        threads[6] = begin(with_nothing_but_a_key, value);
        expected += 2;
        for (pthread_t thread : threads) {
            void *result = nullptr;
            CHECK(pthread_join(thread, &result) == 0);
            unmake(static_cast<Block *>(result));
        }
    }
    CHECK(key_rounds == expected);
}

// Threads that are cancelled: what they hold is freed while the stack is taken down.
void *until_cancelled(void *at) {
    std::vector<std::string> words(100, std::string(100, 'c'));
    at_thread_end.block = Block::make(100, 8);
    static_cast<std::atomic<int> *>(at)->fetch_add(1);
    for (;;) {
        pause();
    }
}

void cancelled_threads() {
    std::atomic<int> ready(0);
    std::vector<pthread_t> threads;
    for (int one = 0; one < 20; one++) {
        threads.push_back(begin(until_cancelled, &ready));
    }
    while (ready < 20) {
        sched_yield();
    }
    for (pthread_t thread : threads) {
        void *result = nullptr;
        CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    }
}

// What C++ makes of the allocator.

struct alignas(256) Wide {
    char bytes[700];
};

void ways_of_cpp() {
    std::unique_ptr<Wide[]> wide(new Wide[5]);
    CHECK(reinterpret_cast<uintptr_t>(wide.get()) % 256 == 0);
    volatile size_t beyond = PTRDIFF_MAX - 64;
    CHECK(new (std::nothrow) char[beyond] == nullptr);
    bool was_thrown = false;
    try {
        std::vector<char> large(beyond);
    } catch (const std::bad_alloc &) {
        was_thrown = true;
    }
    CHECK(was_thrown);
}

// Threads of all kinds.

void *short_life(void *at) {
    uint64_t state = reinterpret_cast<uint64_t>(at) * 2 + 1;
    free(malloc(below(&state, 200)));
    std::string word(below(&state, 100), 's');
    // Somebody else frees it.
    unmake(slots[below(&state, SLOTS)].exchange(Block::make(some_size(state), state)));
    return Block::make(below(&state, 300), 11);
}

void short_threads() {
    enum { ALL = 2000, AT_ONCE = 20 };
    for (long number = 0; number < ALL; number += AT_ONCE) {
        pthread_t threads[AT_ONCE];
        for (long one = 0; one < AT_ONCE; one++) {
            threads[one] = begin(short_life, reinterpret_cast<void *>(number + one));
        }
        for (pthread_t thread : threads) {
            void *result = nullptr;
            CHECK(pthread_join(thread, &result) == 0);
            unmake(static_cast<Block *>(result));
        }
    }
}

void detached_threads() {
    auto left = std::make_shared<std::atomic<int>>(60);
    for (int number = 0; number < 60; number++) {
        std::thread([left, number] {
            work(number, 100);
            at_thread_end.block = Block::make(100, number);
            left->fetch_sub(1);
        }).detach();
    }
    while (*left > 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

void tasks() {
    std::vector<std::future<std::vector<std::string>>> futures;
    for (int number = 0; number < 100; number++) {
        futures.push_back(std::async(std::launch::async, [number] {
            std::vector<std::string> words;
            for (int one = 0; one < 100; one++) {
                words.push_back(std::to_string(number * one) + std::string(one, '.'));
            }
            if (number % 10 == 9) {
                throw std::runtime_error(words.back());
            }
            return words;
        }));
    }
    for (int number = 0; number < 100; number++) {
        std::string last = std::to_string(number * 99) + std::string(99, '.');
        try {
            CHECK(futures[number].get().back() == last);
            CHECK(number % 10 != 9);
        } catch (const std::runtime_error &error) {
            CHECK(number % 10 == 9 && error.what() == last);
        }
    }
}

// One thread makes blocks, another frees them, in bulk.
void pipeline() {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Block *> queue;
    bool done = false;
    std::thread consumer([&] {
        std::unique_lock<std::mutex> lock(mutex);
        while (!done || !queue.empty()) {
            changed.wait(lock, [&] { return done || !queue.empty(); });
            std::vector<Block *> taken;
            taken.swap(queue);
            lock.unlock();
            for (Block *block : taken) {
                unmake(block);
            }
            lock.lock();
        }
    });
    uint64_t state = 77;
    for (int turn = 0; turn < 60000; turn++) {
        Block *block = Block::make(below(&state, 300), turn);
        std::lock_guard<std::mutex> lock(mutex);
        queue.push_back(block);
        changed.notify_one();
    }
    std::unique_lock<std::mutex> lock(mutex);
    done = true;
    changed.notify_one();
    lock.unlock();
    consumer.join();
}

// Forks.

int status_of(pid_t child) {
    int how = -1;
    CHECK(child > 0);
    CHECK(waitpid(child, &how, 0) == child);
    return how;
}

// In a child: the heap is whole, whatever the parent's other threads were at.
[[noreturn]] void in_the_child(int number, bool forks_again) {
    failures = 0;
    alarm(200);
    work(number, 3000);
    std::thread(work, number + 1, 1000).join();
    if (forks_again) {
        pid_t child = fork();
        if (child == 0) {
            in_the_child(number + 500, false);
        }
        work(number + 2, 300);
        CHECK(status_of(child) == 0);
    }
    for (std::atomic<Block *> &slot : slots) {
        unmake(slot.exchange(nullptr));
    }
    fflush(stdout);
    // One half runs the handlers and the destructors.
    if (number % 2 == 0) {
        exit(status());
    }
    _exit(status());
}

void busy_forks() {
    std::atomic<bool> done(false);
    std::vector<std::thread> busy;
    for (int one = 0; one < 6; one++) {
        busy.emplace_back([&done, one] {
            for (uint64_t seed = one; !done; seed += 6) {
                work(seed, 500);
            }
        });
    }
    for (int number = 0; number < 40; number++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            in_the_child(number, number % 4 == 0);
        }
        work(number, 100);
        CHECK(status_of(child) == 0);
    }
    done = true;
    for (std::thread &thread : busy) {
        thread.join();
    }
}

void busy_threads() {
    std::vector<std::thread> threads;
    for (int one = 0; one < 8; one++) {
        threads.emplace_back(work, 1000 + one, 20000);
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
}

// The other threads go on when the main thread has ended, and the last one ends the process.
void *last_one(void *main_thread) {
    CHECK(pthread_join(*static_cast<pthread_t *>(main_thread), nullptr) == 0);
    work(12, 3000);
    return nullptr;
}

} // namespace

int main(int count, char **) {
    alarm(300);
    std::atexit(at_the_end);
    check_before_main();
    if (count > 1) {
        static pthread_t main_thread = pthread_self();
        CHECK(pthread_detach(begin(last_one, &main_thread)) == 0);
        at_thread_end.block = Block::make(10, 10);
        pthread_exit(nullptr);
    }
    ways_of_cpp();
    busy_threads();
    ends_of_threads();
    cancelled_threads();
    short_threads();
    detached_threads();
    tasks();
    pipeline();
    busy_forks();
    for (std::atomic<Block *> &slot : slots) {
        unmake(slot.exchange(nullptr));
    }
    return status();
}
