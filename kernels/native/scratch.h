// Working memory that a thread keeps between calls, and the loop that shares work among torch's threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace lkspace {

// At least `floats` floats, aligned to a cache line, this thread's until it asks again. Throws std::bad_alloc.
float* scratch(size_t floats);

// Floats of a call's own, undefined at first. Not std::vector: its functions, compiled for one instruction set, could be
// merged with those compiled for another.
class Memory {
   public:
    explicit Memory(size_t floats);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    float* const data;
};

// Whether this process was forked from one that may have had worker threads: GNU OpenMP would wait for them forever.
bool forked();

// Threads are started by the caller's OpenMP (in a process with torch: torch's own pool). Work is handed out piece by
// piece; results must not depend on who does which piece. The caller's rounding and denormal mode holds in every thread.
// Memory that runs out in a thread is thrown in the caller's.
template <class Work>
void share(int64_t pieces, [[maybe_unused]] int64_t threads, const Work& work) {
#if defined(_OPENMP)
    if (threads > 1 && pieces > 1 && !forked()) {
#if defined(__SSE2__)
        const unsigned mode = _mm_getcsr();
#endif
        std::atomic<bool> failed{false};
#pragma omp parallel num_threads(static_cast<int>(threads < pieces ? threads : pieces))
        {
#if defined(__SSE2__)
            const unsigned own = _mm_getcsr();
            _mm_setcsr(mode);
#endif
#pragma omp for schedule(dynamic, 1)
            for (int64_t piece = 0; piece < pieces; ++piece) {
                try {
                    work(piece);
                } catch (const std::bad_alloc&) {
                    failed = true;
                }
            }
#if defined(__SSE2__)
            _mm_setcsr(own);
#endif
        }
        if (failed) throw std::bad_alloc();
        return;
    }
#endif
    for (int64_t piece = 0; piece < pieces; ++piece) work(piece);
}

}  // namespace lkspace
