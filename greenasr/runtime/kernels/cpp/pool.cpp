#include "pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
static inline void pause() { _mm_pause(); }
#else
static inline void pause() { asm volatile("yield" ::: "memory"); }
#endif

namespace greenasr {
namespace {

constexpr int kSpins = 1500;  // some tens of microseconds before a thread goes to sleep

struct Pool {
  std::mutex busy;  // held by the thread whose job runs
  int started = 0;  // workers; grows under `busy`

  // Job number in the upper half, next chunk in the lower: a worker that comes late cannot take a chunk of a
  // job it has not read.
  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<int> done{0};
  alignas(64) std::atomic<Chunk> fn{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<int> chunks{0};
  std::atomic<int> limit{0};  // workers allowed into this job

  std::atomic<int> sleeping{0};
  std::mutex door;
  std::condition_variable bell;

  void work(uint32_t job) {
    for (;;) {
      uint64_t now = ticket.load(std::memory_order_acquire);
      if (uint32_t(now >> 32) != job) return;
      Chunk f = fn.load(std::memory_order_relaxed);
      void* c = context.load(std::memory_order_relaxed);
      uint32_t n = uint32_t(chunks.load(std::memory_order_relaxed)), next = uint32_t(now);
      if (next >= n) return;
      if (!ticket.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
      f(c, int(next));
      done.fetch_add(1, std::memory_order_release);
    }
  }

  void serve(int number) {
    uint32_t seen = 0;
    for (;;) {
      int spins = 0;
      uint32_t job;
      while ((job = uint32_t(ticket.load(std::memory_order_acquire) >> 32)) == seen) {
        if (++spins < kSpins) {
          pause();
          continue;
        }
        std::unique_lock<std::mutex> lock(door);
        sleeping.fetch_add(1);
        bell.wait(lock, [&] { return uint32_t(ticket.load() >> 32) != seen; });
        sleeping.fetch_sub(1);
      }
      seen = job;
      if (number < limit.load(std::memory_order_relaxed)) work(job);
    }
  }

  void run(int n, Chunk f, void* c, int workers) {
    while (started < workers) {
      int number = started++;
      std::thread([this, number] { serve(number); }).detach();
    }
    // Nobody can hold a ticket of the old job: all its chunks are done.
    uint32_t job = uint32_t(ticket.load(std::memory_order_relaxed) >> 32) + 1;
    if (job == 0) job = 1;
    ticket.store(uint64_t(job) << 32 | 0xffffffffu, std::memory_order_seq_cst);  // closed while it is written
    fn.store(f, std::memory_order_relaxed);
    context.store(c, std::memory_order_relaxed);
    chunks.store(n, std::memory_order_relaxed);
    limit.store(workers, std::memory_order_relaxed);
    done.store(0, std::memory_order_relaxed);
    job = job + 1 == 0 ? 1 : job + 1;
    ticket.store(uint64_t(job) << 32, std::memory_order_seq_cst);
    if (sleeping.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(door);
      bell.notify_all();
    }
    work(job);
    int spins = 0;
    while (done.load(std::memory_order_acquire) != n) {
      if (++spins < kSpins) pause();
      else sched_yield();
    }
  }
};

// Never destroyed: its threads may outlive main().
std::atomic<Pool*> pool{nullptr};
std::atomic<int> wanted{0};

// Threads do not survive a fork: the child begins with a pool of its own.
void forget() { pool.store(new Pool); }

Pool& the_pool() {
  Pool* found = pool.load(std::memory_order_acquire);
  if (!found) {
    static std::once_flag once;
    std::call_once(once, [] {
      pool.store(new Pool);
      pthread_atfork(nullptr, nullptr, forget);
    });
    found = pool.load(std::memory_order_acquire);
  }
  return *found;
}

}  // namespace

int cores() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  unsigned n = std::thread::hardware_concurrency();
  return n ? int(n) : 1;
}

int threads() {
  int n = wanted.load(std::memory_order_relaxed);
  if (n == 0) {
    n = cores();
    wanted.store(n, std::memory_order_relaxed);
  }
  return n;
}

void set_threads(int n) {
  int most = cores();
  if (n < 1 || n > most)
    throw std::invalid_argument("asked for " + std::to_string(n) + " threads, this process may use 1 to " +
                                std::to_string(most) + ": more threads than cores only wait for each other");
  wanted.store(n, std::memory_order_relaxed);
}

void parallel(int chunks, Chunk fn, void* context) {
  int most = threads();
  if (chunks > 1 && most > 1) {
    Pool& p = the_pool();
    std::unique_lock<std::mutex> lock(p.busy, std::try_to_lock);
    if (lock.owns_lock()) return p.run(chunks, fn, context, (most < chunks ? most : chunks) - 1);
  }
  for (int i = 0; i < chunks; i++) fn(context, i);
}

}  // namespace greenasr
