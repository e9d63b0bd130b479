// Sum over samples of squared per-sample weight gradients of convolutions and linear layers:
//   total[o, k] += sum_n (sum_l g[n, l, o] u[n, l, k])^2
// or, where several images make a sample, the square of the sum over those. u are the patches of the input, which are
// never formed as a whole. One image is copied into a frame of zeros; there the features of a patch that follow each other in memory are read in place, a panel of at most COLUMNS
// at a time, and only those of narrow kernels are packed first. Each tile of the product lives in registers, and its
// square goes straight to the running sum.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <utility>
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
constexpr int64_t BLOCK_BYTES = 16 * 1024;  // of the running sum: stays in the first cache over the samples

template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
  static constexpr int lanes = BYTES / sizeof(T), columns = VECTORS * lanes;
};

struct Shape {  // of one convolution; a linear layer is one with a 1x1 kernel
  int64_t samples, images, outputs, positions, width, channels, kernel_width, features;
  int64_t in[2], stride[2], padding[2], dilation[2];
  int64_t frame[2];  // height and width of the input with its border

  int64_t frame_size() const { return frame[0] * frame[1] * channels; }

  int64_t run() const {  // features that follow each other in memory
    return dilation[1] == 1 ? kernel_width * channels : channels;
  }
  int64_t offset(int64_t feature) const {  // of a feature in the frame, from where the patch begins
    const int64_t y = feature / (kernel_width * channels) * dilation[0];
    const int64_t x = feature / channels % kernel_width * dilation[1];
    return (y * frame[1] + x) * channels + feature % channels;
  }
};

// Some features of all patches of one sample, and how far apart they lie from one position to the next.
template <typename T>
struct Panel {
  const T* at;
  int64_t image, row, column;
};

// Gradients of one sample's results, from some output channel on, and how far apart they lie.
template <typename T>
struct Gradients {
  const T* at;
  int64_t image, position, output;
};

// R rows of one sample's product with V vectors of the panel, squared into `total`.
template <typename T, int R, int V>
void tile(const Shape& s, Panel<T> panel, Gradients<T> gradients, T* total, int64_t columns) {
  using Lanes = typename Vector<T>::type;
  constexpr int lanes = Vector<T>::lanes;
  Lanes sum[R][V] = {};
  for (int64_t image = 0; image < s.images; ++image) {
    const T *row = panel.at + image * panel.image, *g = gradients.at + image * gradients.image;
    for (int64_t l = 0; l < s.positions; l += s.width, row += panel.row) {
      const T* at = row;
      for (int64_t column = 0; column < s.width; ++column, at += panel.column, g += gradients.position) {
        Lanes p[V];
        for (int j = 0; j < V; ++j) p[j] = *reinterpret_cast<const Lanes*>(at + j * lanes);
        for (int r = 0; r < R; ++r) {
          const T factor = g[r * gradients.output];
          for (int j = 0; j < V; ++j) sum[r][j] += factor * p[j];
        }
      }
    }
  }
  for (int r = 0; r < R; ++r, total += s.features) {
    for (int j = 0; j < V; ++j) {
      T* to = total + j * lanes;
      const int64_t left = columns - j * lanes;
      if (left >= lanes) {
        *reinterpret_cast<Lanes*>(to) += sum[r][j] * sum[r][j];
      } else {  // behind the last feature the panel holds others
        const Lanes square = sum[r][j] * sum[r][j];
        for (int64_t k = 0; k < left; ++k) to[k] += square[k];
      }
    }
  }
}

// Rows [0, rows) of one sample's product with one panel.
template <typename T, int V>
void rows(const Shape& s, Panel<T> panel, Gradients<T> g, int64_t rows, T* total, int64_t columns) {
  int64_t o = 0;
  for (; o + ROWS <= rows; o += ROWS, g.at += ROWS * g.output, total += ROWS * s.features)
    tile<T, ROWS, V>(s, panel, g, total, columns);
  for (; o < rows; ++o, g.at += g.output, total += s.features) tile<T, 1, V>(s, panel, g, total, columns);
}

// One image, into the middle of a frame of zeros.
template <typename T>
void enframe(const Shape& s, const T* x, const int64_t* strides, T* frame) {
  const int64_t length = s.in[1] * s.channels;
  for (int64_t y = 0; y < s.in[0]; ++y) {
    const T* from = x + y * strides[1];
    T* to = frame + ((y + s.padding[0]) * s.frame[1] + s.padding[1]) * s.channels;
    if (strides[2] == s.channels) {
      std::memcpy(to, from, length * sizeof(T));
    } else {
      for (int64_t xx = 0; xx < s.in[1]; ++xx, from += strides[2], to += s.channels)
        std::memcpy(to, from, s.channels * sizeof(T));
    }
  }
}

// Features [first, first + columns) of all patches in a frame.
template <typename T>
void pack(const Shape& s, const T* frame, int64_t first, int64_t columns, T* packed) {
  const int64_t run = s.run();
  for (int64_t k = 0, length; k < columns; k += length) {
    length = std::min(run - (first + k) % run, columns - k);
    const T* row = frame + s.offset(first + k);
    T* to = packed + k;
    for (int64_t l = 0; l < s.positions; l += s.width, row += s.stride[0] * s.frame[1] * s.channels) {
      const T* from = row;
      for (int64_t column = 0; column < s.width; ++column, from += s.stride[1] * s.channels, to += Vector<T>::columns)
        for (int64_t c = 0; c < length; ++c) to[c] = from[c];
    }
  }
}

template <typename T>
void run(const Shape& s, const T* g, at::IntArrayRef g_strides, const T* x, at::IntArrayRef x_strides, T* total) {
  constexpr int64_t lanes = Vector<T>::lanes, columns = Vector<T>::columns;
  const bool in_place = s.run() >= lanes;
  std::vector<std::pair<int64_t, int64_t>> panels;  // first feature and how many; in place, within one run
  for (int64_t first = 0, width; first < s.features; first += width) {
    width = std::min(columns, (in_place ? s.run() - first % s.run() : s.features - first));
    panels.emplace_back(first, width);
  }
  const int64_t threads = at::get_num_threads(), count = panels.size();
  // Work is divided into blocks of the running sum, some panels wide; narrow sums also by rows.
  int64_t wide = std::max<int64_t>(1, BLOCK_BYTES / (s.outputs * columns * int64_t(sizeof(T))));
  wide = std::min(wide, std::max<int64_t>(1, count / threads));
  const int64_t groups = (count + wide - 1) / wide;
  int64_t high = groups >= threads ? s.outputs : (s.outputs + threads - 1) / threads;
  high = (high + ROWS - 1) / ROWS * ROWS;
  const int64_t parts = (s.outputs + high - 1) / high;
  at::parallel_for(0, groups * parts, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> frames(s.images * s.frame_size() + columns, T(0));  // vectors may reach behind the end
    std::vector<T> packed(in_place ? 0 : s.images * s.positions * columns, T(0));
    for (int64_t block = begin; block < end; ++block) {
      const int64_t top = block % parts * high, bottom = std::min(top + high, s.outputs);
      const int64_t left = block / parts * wide, right = std::min(left + wide, count);
      for (int64_t n = 0; n < s.samples; ++n) {
        for (int64_t i = 0; i < s.images; ++i)
          enframe(s, x + (n * s.images + i) * x_strides[0], x_strides.data(), frames.data() + i * s.frame_size());
        for (int64_t p = left; p < right; ++p) {
          const auto [first, width] = panels[p];
          Panel<T> panel{packed.data(), s.positions * columns, s.width * columns, columns};
          if (in_place)
            panel = {frames.data() + s.offset(first), s.frame_size(), s.stride[0] * s.frame[1] * s.channels,
                     s.stride[1] * s.channels};
          else
            for (int64_t i = 0; i < s.images; ++i)
              pack(s, frames.data() + i * s.frame_size(), first, width, packed.data() + i * panel.image);
          const Gradients<T> gradients{g + n * s.images * g_strides[0] + top * g_strides[2], g_strides[0], g_strides[1],
                                       g_strides[2]};
          T* sum = total + top * s.features + first;
          const int64_t vectors = (width + lanes - 1) / lanes;
          const auto product = vectors == 1 ? rows<T, 1> : vectors == 2 ? rows<T, 2> : rows<T, VECTORS>;
          product(s, panel, gradients, bottom - top, sum, width);
        }
      }
    }
  });
}

// g (N, L, O) with any strides; x (N, H, W, C) with adjacent channels; total (O, kernel height, kernel width, C)
// contiguous; `size` (output height and width, L their product), stride, padding before, and dilation of two axes;
// `images` of the N, which it divides, make a sample.
void add_squares(const at::Tensor& g, const at::Tensor& x, at::Tensor total, at::IntArrayRef size,
                 at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t images) {
  TORCH_CHECK(g.dim() == 3 && x.dim() == 4 && total.dim() == 4 && total.is_contiguous());
  TORCH_CHECK(x.stride(3) == 1 || x.size(3) == 1);
  TORCH_CHECK(g.dtype() == x.dtype() && g.dtype() == total.dtype() && g.is_cpu() && x.is_cpu() && total.is_cpu());
  TORCH_CHECK(g.size(0) == x.size(0) && g.size(2) == total.size(0) && x.size(3) == total.size(3));
  TORCH_CHECK(size.size() == 2 && size[0] * size[1] == g.size(1));
  TORCH_CHECK(images > 0 && g.size(0) % images == 0);
  Shape s{g.size(0) / images, images, g.size(2), g.size(1), size[1], x.size(3), total.size(2), total.numel() / total.size(0)};
  for (int a = 0; a < 2; ++a) {
    s.in[a] = x.size(a + 1);
    s.stride[a] = stride[a], s.padding[a] = padding[a], s.dilation[a] = dilation[a];
    // Padding behind the image may differ from that before it: the frame ends where the last patch does.
    const int64_t last = (size[a] - 1) * stride[a] + (total.size(a + 1) - 1) * dilation[a] + 1;
    s.frame[a] = std::max(s.in[a] + padding[a], last);
  }
  if (g.scalar_type() == at::kFloat) {
    run<float>(s, g.const_data_ptr<float>(), g.strides(), x.const_data_ptr<float>(), x.strides(), total.data_ptr<float>());
  } else {
    TORCH_CHECK(g.scalar_type() == at::kDouble, "float32 or float64");
    run<double>(s, g.const_data_ptr<double>(), g.strides(), x.const_data_ptr<double>(), x.strides(), total.data_ptr<double>());
  }
}

}  // namespace

TORCH_LIBRARY(fisherexp_curvature, library) {
  library.def("add_squares(Tensor g, Tensor x, Tensor(a!) total, int[] size, int[] stride, int[] padding, int[] dilation, int images=1) -> ()");
  library.impl("add_squares", c10::DispatchKey::CPU, &add_squares);
}
