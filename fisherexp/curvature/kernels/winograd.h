// 3x3 kernels by minimal filtering (Winograd 1980; Lavin & Gray 2016, the adjoint of their F(2x2, 3x3)): with the 2x2
// tiles g of the gradients and the 4x4 tiles x of the input that they meet, a sample's weight gradient is
//   Sᵀ [sum over tiles of (Bᵀ x B) * (A g Aᵀ)] S,
// entry by entry in the brackets: 16 products for 36. The halves of Lavin & Gray's S are in A here.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstring>

#include "tiles.h"

namespace {

constexpr int64_t TILES = 64;  // of a sample at a time: what is packed stays in the second cache
constexpr int64_t WIDE = 3;    // panels of a block at most; with what they are multiplied by, half of BLOCK_BYTES

// Worth it where vectors and rows are full and the products saved outweigh the way back, in products of an entry.
bool winograd_pays(const Shape& s) {
  if (s.kernel_width != 3 || s.features != 9 * s.channels || s.channels < 16 || s.outputs < ROWS) return false;
  constexpr int64_t BACK = 64;  // measured: 7x7 positions pay, 5x5 and fewer do not
  const int64_t tiles = (s.positions / s.width + 1) / 2 * ((s.width + 1) / 2);
  return 5 * (16 * s.images * tiles + BACK) < 4 * 9 * s.images * s.positions;
}

// From one of the 16 to the next: not a power of two, or all of them would want the same lines of the cache.
template <typename T>
int64_t input_step(int64_t count) { return (count + 1) * Vector<T>::columns; }
int64_t gradient_step(int64_t count) { return count * ROWS + 24; }

template <typename L>
void transform_input(L d[4][4]) {  // Bᵀ d B
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const L a = d[i][0] - d[i][2], b = d[i][1] + d[i][2], c = d[i][2] - d[i][1], e = d[i][1] - d[i][3];
    d[i][0] = a, d[i][1] = b, d[i][2] = c, d[i][3] = e;
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const L a = d[0][j] - d[2][j], b = d[1][j] + d[2][j], c = d[2][j] - d[1][j], e = d[1][j] - d[3][j];
    d[0][j] = a, d[1][j] = b, d[2][j] = c, d[3][j] = e;
  }
}

// Tiles [begin, end) of one sample's inputs, channels [first, first + width): (16, tiles, columns), zeros outside of
// the images; what lies behind `width` counts for nothing.
template <typename T>
void pack_inputs(const Shape& s, const T* all, int64_t sample, int64_t first, int64_t width, int64_t begin, int64_t end,
                 T* packed) {
  using Lanes = typename Vector<T>::type;
  constexpr int64_t lanes = Vector<T>::lanes, columns = Vector<T>::columns;
  const int64_t across = (s.width + 1) / 2, down = (s.positions / s.width + 1) / 2, step = input_step<T>(end - begin);
  for (int64_t t = begin; t < end; ++t, packed += columns) {
    const int64_t image = sample * s.images + t / (across * down);
    const int64_t top = t / across % down * 2 - s.padding[0], left = t % across * 2 - s.padding[1];
    const T* corner = all + image * s.x_strides[0] + top * s.x_strides[1] + left * s.x_strides[2] + first;
    const bool within = top >= 0 && top + 4 <= s.in[0] && left >= 0 && left + 4 <= s.in[1];
    for (int64_t c = 0; c < width; c += lanes) {
      Lanes d[4][4];
      if (within && width - c >= lanes) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j)
            d[i][j] = *reinterpret_cast<const Lanes*>(corner + i * s.x_strides[1] + j * s.x_strides[2] + c);
      } else {
        const int64_t some = std::min(lanes, width - c);
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j) {
            d[i][j] = Lanes{};
            if (top + i >= 0 && top + i < s.in[0] && left + j >= 0 && left + j < s.in[1])
              std::memcpy(&d[i][j], corner + i * s.x_strides[1] + j * s.x_strides[2] + c, some * sizeof(T));
          }
      }
      transform_input(d);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) *reinterpret_cast<Lanes*>(packed + (4 * i + j) * step + c) = d[i][j];
    }
  }
}

// Tiles [begin, end) of one sample's gradients, outputs [top, bottom): (rows / ROWS, 16, tiles, ROWS), zeros behind.
template <typename T>
void pack_gradients(const Shape& s, const T* all, at::IntArrayRef strides, int64_t sample, int64_t top, int64_t bottom,
                    int64_t begin, int64_t end, T* packed) {
  typedef T Rows __attribute__((vector_size(ROWS * sizeof(T)), aligned(alignof(T)), may_alias));
  const int64_t across = (s.width + 1) / 2, height = s.positions / s.width, down = (height + 1) / 2;
  const int64_t step = gradient_step(end - begin);
  for (int64_t t = begin; t < end; ++t, packed += ROWS) {
    const int64_t image = sample * s.images + t / (across * down), y = t / across % down * 2, x = t % across * 2;
    const T* corner = all + image * strides[0] + (y * s.width + x) * strides[1];
    for (int64_t o = top; o < bottom; o += ROWS) {
      const int64_t rows = std::min<int64_t>(ROWS, bottom - o);
      Rows g[2][2];
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
          g[i][j] = Rows{};
          if (y + i >= height || x + j >= s.width) continue;
          const T* from = corner + (i * s.width + j) * strides[1] + o * strides[2];
          if (strides[2] == 1 && rows == ROWS) g[i][j] = *reinterpret_cast<const Rows*>(from);
          else
            for (int64_t r = 0; r < rows; ++r) g[i][j][r] = from[r * strides[2]];
        }
      Rows half[4][2];
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        half[0][j] = g[0][j], half[3][j] = -g[1][j];
        half[1][j] = (g[0][j] + g[1][j]) * T(0.5), half[2][j] = (g[0][j] - g[1][j]) * T(0.5);
      }
      T* to = packed + (o - top) / ROWS * 16 * step;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        *reinterpret_cast<Rows*>(to + 4 * i * step) = half[i][0];
        *reinterpret_cast<Rows*>(to + (4 * i + 1) * step) = (half[i][0] + half[i][1]) * T(0.5);
        *reinterpret_cast<Rows*>(to + (4 * i + 2) * step) = (half[i][0] - half[i][1]) * T(0.5);
        *reinterpret_cast<Rows*>(to + (4 * i + 3) * step) = -half[i][1];
      }
    }
  }
}

// The square of Sᵀ m S added to the sums, one vector of each of ROWS rows: m (16, ROWS, columns), sums (9, ROWS,
// columns).
template <typename T>
void add_squared(const T* m, T* sums) {
  using Lanes = typename Vector<T>::type;
  constexpr int64_t columns = Vector<T>::columns, size = ROWS * columns;
  for (int64_t at = 0; at < size; at += columns) {
    Lanes half[3][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const auto product = [&](int i) { return *reinterpret_cast<const Lanes*>(m + (4 * i + j) * size + at); };
      const Lanes a = product(1), b = product(2);
      half[0][j] = product(0) + (a + b), half[1][j] = a - b, half[2][j] = (a + b) + product(3);
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const Lanes both = half[i][1] + half[i][2];
      const Lanes found[3] = {half[i][0] + both, half[i][1] - half[i][2], both + half[i][3]};
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) *reinterpret_cast<Lanes*>(sums + (3 * i + j) * size + at) += found[j] * found[j];
    }
  }
}

template <typename T>
void run_winograd(const Shape& s, const T* g, at::IntArrayRef g_strides, const T* x, T* total) {
  constexpr int64_t lanes = Vector<T>::lanes, columns = Vector<T>::columns, size = ROWS * columns;
  const int64_t panels = (s.channels + columns - 1) / columns, row_tiles = (s.outputs + ROWS - 1) / ROWS;
  const int64_t across = (panels + WIDE - 1) / WIDE, wide = (panels + across - 1) / across;
  const int64_t even = ((s.channels + panels - 1) / panels + lanes - 1) / lanes * lanes;  // channels of a panel
  const int64_t most = std::max<int64_t>(1, BLOCK_BYTES / 2 / (9 * size * int64_t(sizeof(T))) / wide);
  const int64_t threads = at::get_num_threads();
  int64_t parts = (row_tiles + most - 1) / most;  // blocks of outputs, as many as give threads equal shares
  if (across * s.groups % threads != 0 && parts < 8) parts = (parts + threads - 1) / threads * threads;
  const int64_t high = (row_tiles + parts - 1) / parts;
  parts = (row_tiles + high - 1) / high;
  const int64_t height = s.positions / s.width, all = s.images * ((height + 1) / 2) * ((s.width + 1) / 2);
  const int64_t some = std::min(TILES, all);
  at::parallel_for(0, s.groups * across * parts, 1, [&](int64_t start, int64_t behind) {
    Buffer<T> sums(wide * high * 9 * size), products((all > some ? wide * high : 1) * 16 * size);
    Buffer<T> gradients(high * 16 * gradient_step(some)), panel(16 * input_step<T>(some));
    for (int64_t block = start; block < behind; ++block) {
      const int64_t top = block % parts * high * ROWS, bottom = std::min(top + high * ROWS, s.outputs);
      const int64_t left = block / parts % across * wide, right = std::min(left + wide, panels);
      const int64_t group = block / parts / across;
      std::fill_n(sums.at, wide * high * 9 * size, T(0));
      for (int64_t sample = 0; sample < s.samples; ++sample)
        for (int64_t begin = 0, end; begin < all; begin = end) {
          end = std::min(begin + some, all);
          const int64_t count = end - begin;
          pack_gradients(s, g + group * s.outputs * g_strides[2], g_strides, sample, top, bottom, begin, end,
                         gradients.at);
          for (int64_t p = left; p < right; ++p) {
            const int64_t width = std::min(even, s.channels - p * even);
            if (width <= 0) break;
            pack_inputs(s, x + group * s.channels, sample, p * even, width, begin, end, panel.at);
            for (int64_t r = 0; r * ROWS < bottom - top; ++r)
              for (int64_t c = 0; c < width; c += lanes) {  // one vector at a time: 16 products stay in the first cache
                const int64_t pair = (p - left) * high + r;
                T* m = products.at + (all > some ? pair * 16 * size : 0) + c;
                for (int64_t f = 0; f < 16; ++f)
                  tile<T, 1>(gradients.at + (r * 16 + f) * gradient_step(count),
                             panel.at + f * input_step<T>(count) + c, 1, count, begin == 0, false, m + f * size,
                             nullptr);
                if (end == all) add_squared(m, sums.at + pair * 9 * size + c);
              }
          }
        }
      for (int64_t p = left; p < right; ++p)
        for (int64_t o = top; o < bottom; ++o)
          for (int64_t k = 0; k < 9; ++k) {
            const T* from = sums.at + (((p - left) * high + (o - top) / ROWS) * 9 + k) * size + o % ROWS * columns;
            T* to = total + (group * s.outputs + o) * s.features + k * s.channels + p * even;
            for (int64_t c = 0; c < std::min(even, s.channels - p * even); ++c) to[c] += from[c];
          }
    }
  });
}

}  // namespace
