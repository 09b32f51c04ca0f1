// A pool of threads of our own: one job at a time, cut into chunks that whoever is free takes.
#pragma once

namespace greenasr {

using Chunk = void (*)(void* context, int chunk);

int cores();            // that this process may run on
int threads();          // that a job may use, the caller included
void set_threads(int);  // 1 to cores(); throws std::invalid_argument otherwise

// fn(context, 0) … fn(context, chunks - 1), each once, in any order, on this thread and the pool's.  While another
// thread's job holds the pool the caller works alone.
void parallel(int chunks, Chunk fn, void* context);

}  // namespace greenasr
