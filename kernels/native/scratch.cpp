#include "scratch.h"

#include <atomic>
#include <cstdlib>
#include <new>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace lkspace {
namespace {

constexpr size_t LINE = 64;

struct Kept {
    void* block = nullptr;
    float* aligned = nullptr;
    size_t floats = 0;
    ~Kept() { std::free(block); }
};

thread_local Kept memory;
std::atomic<bool> in_child{false};

#if !defined(_WIN32)
const int watching = pthread_atfork(nullptr, nullptr, [] { in_child = true; });
#endif

}  // namespace

namespace {

float* allocated(size_t floats) {
    void* const block = std::malloc(floats * sizeof(float) + 1);
    if (!block) throw std::bad_alloc();
    return static_cast<float*>(block);
}

}  // namespace

Memory::Memory(size_t floats) : data(allocated(floats)) {}
Memory::~Memory() { std::free(data); }

bool forked() { return in_child; }

float* scratch(size_t floats) {
    if (memory.floats < floats) {
        std::free(memory.block);
        memory.floats = 0;
        memory.block = std::malloc(floats * sizeof(float) + LINE);
        if (!memory.block) throw std::bad_alloc();
        const auto address = reinterpret_cast<uintptr_t>(memory.block);
        memory.aligned = reinterpret_cast<float*>((address + LINE - 1) / LINE * LINE);
        memory.floats = floats;
    }
    return memory.aligned;
}

}  // namespace lkspace
