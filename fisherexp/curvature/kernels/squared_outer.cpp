// Sum over samples of squared per-sample weight gradients of convolutions and linear layers:
//   total[o, k] += sum_n (sum_l g[n, l, o] u[n, l, k])^2      (in each group of channels)
// or, where several images make a sample, the square of the sum over those. u are the patches of the input, which are
// never formed as a whole: a panel of some features at some positions is packed with zeros for the border, so is g, and
// each tile of their product lives in registers until its square is added to a block of the running sum in cache. 3x3
// kernels without strides take fewer products (winograd.h).
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "tiles.h"
#include "winograd.h"

namespace {

constexpr int64_t FEW = 64;  // positions of a sample, up to which two samples are squared together

// Copies of `length` in steps of W, which it reaches; the last may overlap the one before.
template <typename T, int W>
void copy(const T* from, int64_t length, T* to) {
  for (int64_t c = 0; c + W <= length; c += W) std::memcpy(to + c, from + c, W * sizeof(T));
  if (length % W) std::memcpy(to + length - W, from + length - W, W * sizeof(T));
}

// What lies [inside, inside + length) in a run of the patches at positions [begin, end). The run begins (dy, dx) from
// where a window without padding would; zeros outside of the image.
template <typename T, int W>
void pack_run(const Shape& s, const T* all, int64_t dy, int64_t dx, int64_t inside, int64_t length, int64_t begin,
              int64_t end, T* to) {
  constexpr int64_t columns = Vector<T>::columns, lanes = Vector<T>::lanes;
  const int64_t last = s.in[1] * s.channels - length, step = s.stride[1] * s.channels;
  const int64_t height = s.positions / s.width;
  int64_t image = begin / s.positions, top = begin % s.positions / s.width, left = begin % s.width;
  for (int64_t l = begin; l < end; left = 0) {  // a row of the positions
    const int64_t until = std::min(end, l + s.width - left), x = left * s.stride[1] + dx, y = top * s.stride[0] + dy;
    const T* from = all + image * s.x_strides[0] + y * s.x_strides[1] + x * s.x_strides[2] + inside;
    const bool within = y >= 0 && y < s.in[0];
    for (int64_t at = x * s.channels + inside; l < until; ++l) {
      if (within && at >= 0 && at <= last) {
        copy<T, W>(from, length, to);
        if (length == columns)  // the next panel
          for (int64_t c = 0; c < columns; c += lanes) __builtin_prefetch(from + columns + c);
      } else {
        for (int64_t c = 0; c < length; ++c) to[c] = within && at + c >= 0 && at + c < last + length ? from[c] : T(0);
      }
      at += step, from += s.stride[1] * s.x_strides[2], to += columns;
    }
    if (++top == height) top = 0, ++image;
  }
}

// Features [first, first + width) of the patches at positions [begin, end), counted over all images.
template <typename T>
void pack(const Shape& s, const T* all, int64_t first, int64_t width, int64_t begin, int64_t end, T* packed) {
  constexpr int half = Vector<T>::lanes / 2;  // of a vector, which is stored in half the time
  const int64_t run = s.run(), runs = s.rows_adjacent ? 1 : s.kernel_width;
  for (int64_t k = 0, length; k < width; k += length) {
    const int64_t inside = (first + k) % run, number = (first + k) / run;  // of the run, counted over the kernel
    length = std::min(run - inside, width - k);
    const int64_t dy = number / runs * s.dilation[0] - s.padding[0];
    const int64_t dx = number % runs * s.dilation[1] - s.padding[1];
    const auto one = length >= half ? pack_run<T, half> : length >= 2 ? pack_run<T, 2> : pack_run<T, 1>;
    one(s, all, dy, dx, inside, length, begin, end, packed + k);
  }
}

// Gradients of outputs [top, bottom) at positions [begin, end): (tiles, positions, ROWS), zeros behind. Several tiles
// are packed together, so that whole lines of the cache are read.
template <typename T>
void pack(const Shape& s, const T* all, const int64_t* strides, int64_t top, int64_t bottom, int64_t begin,
          int64_t end, T* packed) {
  constexpr int64_t TILES = 8;
  const int64_t size = (end - begin) * ROWS;
  for (int64_t o = top; o < bottom; o += TILES * ROWS, packed += TILES * size) {
    const int64_t rows = std::min<int64_t>(TILES * ROWS, bottom - o), whole = strides[2] == 1 ? rows / ROWS : 0;
    T* to = packed;
    for (int64_t l = begin, image = begin / s.positions; l < end; ++image) {
      const int64_t until = std::min(end, (image + 1) * s.positions);
      const T* g = all + image * strides[0] + (l - image * s.positions) * strides[1] + o * strides[2];
      for (; l < until; ++l, g += strides[1], to += ROWS) {
        for (int64_t t = 0; t < whole; ++t) copy<T, ROWS>(g + t * ROWS, ROWS, to + t * size);
        for (int64_t t = whole; t * ROWS < rows; ++t)
          for (int64_t r = 0, row = t * ROWS; r < ROWS; ++r, ++row)
            to[t * size + r] = row < rows ? g[row * strides[2]] : T(0);
      }
    }
  }
}

template <typename T>
void run(const Shape& s, const T* g, at::IntArrayRef g_strides, const T* x, T* total) {
  constexpr int64_t lanes = Vector<T>::lanes, columns = Vector<T>::columns, size = ROWS * columns;
  const int64_t panels = (s.features + columns - 1) / columns, tiles = (s.outputs + ROWS - 1) / ROWS;
  // Work is divided into blocks of the running sum, some panels wide; by rows where outputs are too many for that or
  // threads would not get equally many.
  const int64_t threads = at::get_num_threads(), most = BLOCK_BYTES / (size * int64_t(sizeof(T)));
  int64_t high = tiles, wide = std::max<int64_t>(1, std::min(most / tiles, panels / threads));
  const int64_t blocks = (panels + wide - 1) / wide * s.groups;
  if (tiles > most || (blocks % threads != 0 && blocks < 8 * threads)) {
    const int64_t shares = std::max(threads, (tiles + most - 1) / most);
    high = (tiles + shares - 1) / shares;
    wide = std::clamp<int64_t>(most / high, 1, panels);
  }
  const int64_t across = (panels + wide - 1) / wide, parts = (tiles + high - 1) / high;
  wide = (panels + across - 1) / across, high = (tiles + parts - 1) / parts;  // blocks of one size: equal shares
  const int64_t all = s.images * s.positions;
  at::parallel_for(0, s.groups * across * parts, 1, [&](int64_t first, int64_t behind) {
    const int64_t several = std::max<int64_t>(1, POSITIONS / all), some = std::min(several * all, POSITIONS);
    Buffer<T> sums(wide * high * size), partial(all > some ? wide * high * size : 0);
    Buffer<T> gradients(high * ROWS * some), panel(columns * some);
    for (int64_t block = first; block < behind; ++block) {
      const int64_t top = block % parts * high * ROWS, bottom = std::min(top + high * ROWS, s.outputs);
      const int64_t left = block / parts % across * wide, right = std::min(left + wide, panels);
      const int64_t group = block / parts / across;
      std::fill_n(sums.at, wide * high * size, T(0));
      for (int64_t begin = 0, end; begin < s.samples * all; begin = end) {  // several samples or a part of one
        end = std::min(begin + some, all > some ? (begin / all + 1) * all : s.samples * all);
        const int64_t samples = std::max<int64_t>(1, (end - begin) / all), positions = (end - begin) / samples;
        pack(s, g + group * s.outputs * g_strides[2], g_strides.data(), top, bottom, begin, end, gradients.at);
        for (int64_t p = left; p < right; ++p) {
          const int64_t width = std::min(columns, s.features - p * columns), vectors = (width + lanes - 1) / lanes;
          pack(s, x + group * s.channels, p * columns, width, begin, end, panel.at);
          const auto product = vectors == 1 ? tile<T, 1> : vectors == 2 ? tile<T, 2> : tile<T, VECTORS>;
          const auto pairs = vectors == 1 ? tile_of_pairs<T, 1> : vectors == 2 ? tile_of_pairs<T, 2>
                                                                                : tile_of_pairs<T, VECTORS>;
          for (int64_t t = 0; t * ROWS < bottom - top; ++t) {
            const int64_t at = ((p - left) * high + t) * size;
            const T* from = gradients.at + t * ROWS * (end - begin);
            const int64_t done = all <= FEW ? pairs(from, panel.at, samples, positions, sums.at + at) : 0;
            if (done < samples)
              product(from + done * positions * ROWS, panel.at + done * positions * columns, samples - done, positions,
                      begin % all == 0, end % all == 0, partial.at + at, sums.at + at);
          }
        }
      }
      for (int64_t p = left; p < right; ++p)
        for (int64_t o = top; o < bottom; ++o) {
          const T* from = sums.at + ((p - left) * high * ROWS + o - top) * columns;
          T* to = total + (group * s.outputs + o) * s.features + p * columns;
          for (int64_t k = 0; k < std::min(columns, s.features - p * columns); ++k) to[k] += from[k];
        }
    }
  });
}

// Depthwise: one channel to a group. Channels lie in the lanes of vectors, and each offset of the kernel has a sum.

// sums[k] += sum over positions of g * (x moved by offsets[k]) for COUNT offsets; one vector of channels.
template <typename T, int COUNT>
void correlate(const T* g, const T* x, int64_t height, int64_t width, int64_t row, int64_t column,
               const int64_t* offsets, T* sums) {
  using Lanes = typename Vector<T>::type;
  constexpr int64_t lanes = Vector<T>::lanes;
  Lanes sum[COUNT];
#pragma GCC unroll 25
  for (int k = 0; k < COUNT; ++k) sum[k] = *reinterpret_cast<const Lanes*>(sums + k * lanes);
  for (int64_t y = 0; y < height; ++y, x += row) {
    const T* at = x;
    for (int64_t l = 0; l < width; ++l, g += lanes, at += column) {
      const Lanes here = *reinterpret_cast<const Lanes*>(g);
#pragma GCC unroll 25
      for (int k = 0; k < COUNT; ++k) sum[k] += here * *reinterpret_cast<const Lanes*>(at + offsets[k]);
    }
  }
#pragma GCC unroll 25
  for (int k = 0; k < COUNT; ++k) *reinterpret_cast<Lanes*>(sums + k * lanes) = sum[k];
}

// All offsets, as many at a time as there are registers for their sums.
template <typename T>
void correlate_all(const T* g, const T* x, int64_t height, int64_t width, int64_t row, int64_t column,
                   const std::vector<int64_t>& offsets, T* sums) {
  constexpr int MOST = BYTES == 64 ? 25 : 12;
  const int64_t all = offsets.size();
  for (int64_t k = 0, count; k < all; k += count) {
    const int64_t left = all - k;
    count = left >= MOST ? MOST : left >= 12 ? 12 : left >= 9 ? 9 : left >= 4 ? 4 : 1;
    const auto some = count == MOST ? correlate<T, MOST> : count == 12 ? correlate<T, 12> : count == 9
                          ? correlate<T, 9> : count == 4 ? correlate<T, 4> : correlate<T, 1>;
    some(g, x, height, width, row, column, offsets.data() + k, sums + k * Vector<T>::lanes);
  }
}

// One value of each of `width` channels, the first of them `channel`: from every `repeat`-th of the tensor's.
template <typename T>
void copy_channels(const T* from, int64_t step, int64_t channel, int64_t width, int64_t repeat, T* to) {
  if (step == 1 && repeat == 1) {
    if (width == Vector<T>::lanes) std::memcpy(to, from + channel, sizeof(T) * Vector<T>::lanes);
    else std::memcpy(to, from + channel, sizeof(T) * width);
    return;
  }
  for (int64_t c = 0; c < width; ++c) to[c] = from[(channel + c) / repeat * step];
}

template <typename T>
void run_depthwise(const Shape& s, const T* g, at::IntArrayRef g_strides, const T* x, T* total) {
  constexpr int64_t lanes = Vector<T>::lanes, SHARE = 8;  // samples that are one piece of work, whatever the threads
  const int64_t channels = s.groups * s.outputs, kernel_height = s.features / s.kernel_width;
  const int64_t blocks = (channels + lanes - 1) / lanes, shares = (s.samples + SHARE - 1) / SHARE;
  const int64_t height = s.positions / s.width, K = s.features;
  const int64_t x_width = (s.width - 1) * s.stride[1] + (s.kernel_width - 1) * s.dilation[1] + 1;
  const int64_t border = (kernel_height - 1) * s.dilation[0] + 1;
  const int64_t fitting = (PANEL_BYTES / int64_t(sizeof(T)) / (x_width * lanes) - border) / s.stride[0] + 1;
  const int64_t band = std::clamp<int64_t>(fitting, 1, height);  // rows of positions at a time
  std::vector<int64_t> offsets;
  for (int64_t k = 0; k < K; ++k)
    offsets.push_back((k / s.kernel_width * s.dilation[0] * x_width + k % s.kernel_width * s.dilation[1]) * lanes);
  std::vector<T> partial(shares * blocks * K * lanes, T(0));
  at::parallel_for(0, shares * blocks, 1, [&](int64_t first, int64_t behind) {
    Buffer<T> panel(((band - 1) * s.stride[0] + border) * x_width * lanes), gradients(band * s.width * lanes);
    Buffer<T> sums(K * lanes);
    for (int64_t item = first; item < behind; ++item) {
      const int64_t channel = item % blocks * lanes, width = std::min(lanes, channels - channel);
      if (width < lanes) {  // lanes behind the last channel
        std::fill_n(panel.at, ((band - 1) * s.stride[0] + border) * x_width * lanes, T(0));
        std::fill_n(gradients.at, band * s.width * lanes, T(0));
      }
      T* squares = partial.data() + item * K * lanes;
      const int64_t start = item / blocks * SHARE, stop = std::min(start + SHARE, s.samples);
      for (int64_t image = start * s.images; image < stop * s.images; ++image) {
        if (image % s.images == 0) std::fill_n(sums.at, K * lanes, T(0));
        for (int64_t top = 0; top < height; top += band) {
          const int64_t rows = std::min(band, height - top), high = (rows - 1) * s.stride[0] + border;
          T* to = panel.at;
          for (int64_t r = 0; r < high; ++r) {
            const int64_t y = top * s.stride[0] - s.padding[0] + r;
            const T* from = x + image * s.x_strides[0] + y * s.x_strides[1];
            for (int64_t c = 0; c < x_width; ++c, to += lanes) {
              const int64_t at = c - s.padding[1];
              if (y >= 0 && y < s.in[0] && at >= 0 && at < s.in[1])
                copy_channels(from + at * s.x_strides[2], 1, channel, width, s.outputs, to);
              else
                std::fill_n(to, lanes, T(0));
            }
          }
          to = gradients.at;
          const T* from = g + image * g_strides[0] + top * s.width * g_strides[1];
          for (int64_t l = 0; l < rows * s.width; ++l, from += g_strides[1], to += lanes)
            copy_channels(from, g_strides[2], channel, width, 1, to);
          correlate_all(gradients.at, panel.at, rows, s.width, s.stride[0] * x_width * lanes, s.stride[1] * lanes,
                        offsets, sums.at);
        }
        if (image % s.images == s.images - 1)
          for (int64_t k = 0; k < K * lanes; ++k) squares[k] += sums.at[k] * sums.at[k];
      }
    }
  });
  for (int64_t item = 0; item < shares * blocks; ++item)
    for (int64_t lane = 0, c = item % blocks * lanes; lane < lanes && c < channels; ++lane, ++c)
      for (int64_t k = 0; k < K; ++k) total[c * K + k] += partial[(item * K + k) * lanes + lane];
}

// g (N, L, O) with any strides; x (N, H, W, C) with adjacent channels; total (O, kernel height, kernel width, C)
// contiguous, C the channels of one group; `size` (output height and width, L their product), stride, padding before, and
// dilation of two axes; `images` of the N, which it divides, make a sample.
void add_squares(const at::Tensor& g, const at::Tensor& x, at::Tensor total, at::IntArrayRef size,
                 at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t images,
                 int64_t groups) {
  TORCH_CHECK(g.dim() == 3 && x.dim() == 4 && total.dim() == 4 && total.is_contiguous());
  TORCH_CHECK(x.stride(3) == 1 || x.size(3) == 1);
  TORCH_CHECK(g.dtype() == x.dtype() && g.dtype() == total.dtype() && g.is_cpu() && x.is_cpu() && total.is_cpu());
  TORCH_CHECK(g.size(0) == x.size(0) && g.size(2) == total.size(0) && x.size(3) == groups * total.size(3));
  TORCH_CHECK(size.size() == 2 && size[0] * size[1] == g.size(1));
  TORCH_CHECK(images > 0 && g.size(0) % images == 0 && groups > 0 && g.size(2) % groups == 0);
  Shape s{g.size(0) / images, images, groups, g.size(2) / groups, g.size(1), size[1], total.size(3), total.size(2),
          total.numel() / total.size(0)};
  for (int a = 0; a < 2; ++a) {
    s.in[a] = x.size(a + 1);
    s.stride[a] = stride[a], s.padding[a] = padding[a], s.dilation[a] = dilation[a];
  }
  std::copy_n(x.strides().data(), 3, s.x_strides);
  s.rows_adjacent = dilation[1] == 1 && x.stride(2) == s.channels;
  const bool depthwise = groups > 1 && s.channels == 1, one = dilation[0] == 1 && dilation[1] == 1;
  const bool minimal = !depthwise && one && stride[0] == 1 && stride[1] == 1 && winograd_pays(s);
  if (g.scalar_type() == at::kFloat) {
    (depthwise ? run_depthwise<float> : minimal ? run_winograd<float> : run<float>)(s, g.const_data_ptr<float>(), g.strides(), x.const_data_ptr<float>(), total.data_ptr<float>());
  } else {
    TORCH_CHECK(g.scalar_type() == at::kDouble, "float32 or float64");
    (depthwise ? run_depthwise<double> : minimal ? run_winograd<double> : run<double>)(s, g.const_data_ptr<double>(), g.strides(), x.const_data_ptr<double>(), total.data_ptr<double>());
  }
}

}  // namespace

TORCH_LIBRARY(fisherexp_curvature, library) {
  library.def("add_squares(Tensor g, Tensor x, Tensor(a!) total, int[] size, int[] stride, int[] padding, int[] dilation, int images=1, int groups=1) -> ()");
  library.impl("add_squares", c10::DispatchKey::CPU, &add_squares);
}
