// What the kernels share: vectors, buffers, the shape of a convolution, and a tile of a product held in registers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, ROWS = 8;  // 24 of 32 registers hold the tile
#elif defined(__AVX2__)
constexpr int BYTES = 32, ROWS = 4;  // 12 of 16
#else
constexpr int BYTES = 16, ROWS = 4;
#endif
constexpr int VECTORS = 3;
constexpr int64_t BLOCK_BYTES = 512 * 1024;  // of the running sum: stays in the second cache over the samples
constexpr int64_t PANEL_BYTES = 256 * 1024;  // of padded images, depthwise: read once for each offset of the kernel
constexpr int64_t POSITIONS = 128;           // at a time: panel and gradients stay in the first cache over the tiles

template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
  static constexpr int64_t lanes = BYTES / sizeof(T), columns = VECTORS * lanes;
};

// Zeros that begin where a line of the cache does: no vector lies across two.
template <typename T>
struct Buffer {
  std::vector<T> held;
  T* at;
  explicit Buffer(int64_t size) : held(size + BYTES / sizeof(T), T(0)) {
    void* start = held.data();
    size_t space = held.size() * sizeof(T);
    at = static_cast<T*>(std::align(BYTES, size * sizeof(T), start, space));
  }
};

// Of one convolution, outputs, channels and features in each of its groups; a linear layer is one with a 1x1 kernel and
// its positions in a row.
struct Shape {
  int64_t samples, images, groups, outputs, positions, width, channels, kernel_width, features;
  int64_t in[2], stride[2], padding[2], dilation[2], x_strides[3];
  bool rows_adjacent;  // features of a row of the kernel follow each other in memory

  int64_t run() const { return rows_adjacent ? kernel_width * channels : channels; }
};

// One tile of each sample's product, ROWS by V vectors, `positions` to a sample: continued from `partial` unless they
// are its first, left there unless they are its last; then its square goes to `total`.
template <typename T, int V>
void tile(const T* g, const T* panel, int64_t samples, int64_t positions, bool first, bool last, T* partial, T* total) {
  using Lanes = typename Vector<T>::type;
  constexpr int64_t lanes = Vector<T>::lanes, columns = Vector<T>::columns;
  for (int64_t n = 0; n < samples; ++n) {
    Lanes sum[ROWS][V];
    // Unrolled, or the compiler moves the tile through memory.
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
      for (int j = 0; j < V; ++j) sum[r][j] = Lanes{};
    if (!first) {
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
        for (int j = 0; j < V; ++j) sum[r][j] = *reinterpret_cast<const Lanes*>(partial + r * columns + j * lanes);
    }
    for (int64_t l = 0; l < positions; ++l, g += ROWS, panel += columns) {
      Lanes p[V];
#pragma GCC unroll 3
      for (int j = 0; j < V; ++j) p[j] = *reinterpret_cast<const Lanes*>(panel + j * lanes);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
        for (int j = 0; j < V; ++j) sum[r][j] += g[r] * p[j];
    }
    if (last) {
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
        for (int j = 0; j < V; ++j)
          *reinterpret_cast<Lanes*>(total + r * columns + j * lanes) += sum[r][j] * sum[r][j];
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
        for (int j = 0; j < V; ++j) *reinterpret_cast<Lanes*>(partial + r * columns + j * lanes) = sum[r][j];
    }
  }
}

// As `tile`, of whole samples, two of them at a time and half of the rows after the other half: squares go to `total`
// half as often, which counts where positions are few. Returns how many samples that were.
template <typename T, int V>
int64_t tile_of_pairs(const T* g, const T* panel, int64_t samples, int64_t positions, T* total) {
  using Lanes = typename Vector<T>::type;
  constexpr int64_t lanes = Vector<T>::lanes, columns = Vector<T>::columns;
  constexpr int HALF = ROWS / 2;
  for (int64_t n = 0; n < samples / 2; ++n, g += 2 * positions * ROWS, panel += 2 * positions * columns)
    for (int64_t top = 0; top < ROWS; top += HALF) {
      Lanes sum[2][HALF][V];
#pragma GCC unroll 2
      for (int s = 0; s < 2; ++s)
#pragma GCC unroll 4
        for (int r = 0; r < HALF; ++r)
#pragma GCC unroll 3
          for (int j = 0; j < V; ++j) sum[s][r][j] = Lanes{};
      const T *left = g + top, *right = panel;
      for (int64_t l = 0; l < positions; ++l, left += ROWS, right += columns) {
#pragma GCC unroll 2
        for (int s = 0; s < 2; ++s) {
          Lanes p[V];
#pragma GCC unroll 3
          for (int j = 0; j < V; ++j)
            p[j] = *reinterpret_cast<const Lanes*>(right + s * positions * columns + j * lanes);
#pragma GCC unroll 4
          for (int r = 0; r < HALF; ++r)
#pragma GCC unroll 3
            for (int j = 0; j < V; ++j) sum[s][r][j] += left[s * positions * ROWS + r] * p[j];
        }
      }
#pragma GCC unroll 4
      for (int r = 0; r < HALF; ++r)
#pragma GCC unroll 3
        for (int j = 0; j < V; ++j)
          *reinterpret_cast<Lanes*>(total + (top + r) * columns + j * lanes) +=
              sum[0][r][j] * sum[0][r][j] + sum[1][r][j] * sum[1][r][j];
    }
  return samples / 2 * 2;
}

}  // namespace
