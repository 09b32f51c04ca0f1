// The Python module: NumPy arrays in and out, the interpreter's lock released while a kernel runs.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#include "linear.hpp"
#include "pool.hpp"
#include "tdnnf.hpp"

namespace nb = nanobind;
using namespace greenasr;

namespace {

std::string shape_of(const Py_buffer& b) {
  std::string s = "(";
  for (int i = 0; i < b.ndim; i++) s += (i ? ", " : "") + std::to_string(b.shape[i]);
  return s + (b.ndim == 1 ? ",)" : ")");
}

// A borrowed array: `kind` is the letter of its items ('f' float32, 'i' int32, 'b' int8), the last axis contiguous.
class View {
 public:
  View(nb::handle object, const char* name, char kind, bool writable = false) : name_(name) {
    if (PyObject_GetBuffer(object.ptr(), &b_, PyBUF_FORMAT | PyBUF_STRIDES | (writable ? PyBUF_WRITABLE : 0)) != 0) {
      PyErr_Clear();
      throw nb::type_error((std::string(name) + " is not " + (writable ? "a writable" : "an") +
                            " array that can be read in place: pass a NumPy array")
                               .c_str());
    }
    const char* f = b_.format ? b_.format : "B";
    if (*f == '<' || *f == '=' || *f == '@') f++;
    bool same = f[0] == kind || (kind == 'i' && f[0] == 'l' && b_.itemsize == 4);
    if (!same || f[1] != 0) fail(std::string("items of kind '") + f + "', expected '" + kind + "'");
    if (b_.ndim > 0 && b_.strides[b_.ndim - 1] != b_.itemsize && b_.shape[b_.ndim - 1] > 1)
      fail("a last axis that is not contiguous: pass numpy.ascontiguousarray of it");
  }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() { PyBuffer_Release(&b_); }

  [[noreturn]] void fail(const std::string& found) const {
    std::string text = std::string(name_) + " " + shape_of(b_) + " has " + found;
    throw std::invalid_argument(text);
  }
  void expect(std::initializer_list<Py_ssize_t> shape) const {
    bool same = int(shape.size()) == b_.ndim;
    int i = 0;
    for (Py_ssize_t n : shape) same = same && (n < 0 || b_.shape[i] == n), i++;
    if (same) return;
    std::string text = "(";
    i = 0;
    for (Py_ssize_t n : shape) text += (i++ ? ", " : "") + (n < 0 ? std::string("…") : std::to_string(n));
    fail("a shape other than " + text + ")");
  }
  int ndim() const { return b_.ndim; }
  Py_ssize_t size(int axis) const { return b_.shape[axis]; }
  // Items from one row to the next.
  ptrdiff_t stride() const {
    if (b_.strides[0] % b_.itemsize) fail("rows that do not begin on an item");
    return b_.strides[0] / b_.itemsize;
  }
  bool dense() const { return PyBuffer_IsContiguous(&b_, 'C'); }
  size_t items() const { return size_t(b_.len / b_.itemsize); }
  template <class T>
  T* data() const {
    return static_cast<T*>(b_.buf);
  }

 private:
  const char* name_;
  Py_buffer b_;
};

// An array or None.
class Maybe {
 public:
  Maybe(nb::handle object, const char* name, char kind, std::initializer_list<Py_ssize_t> shape) {
    if (object.is_none()) return;
    view_ = new (room_) View(object, name, kind);
    try {
      view_->expect(shape);
    } catch (...) {
      view_->~View();
      throw;
    }
  }
  Maybe(const Maybe&) = delete;
  Maybe& operator=(const Maybe&) = delete;
  ~Maybe() {
    if (view_) view_->~View();
  }
  template <class T>
  const T* data() const {
    return view_ ? view_->data<T>() : nullptr;
  }
  ptrdiff_t stride() const { return view_ ? view_->stride() : 0; }
  View* operator->() const { return view_; }
  explicit operator bool() const { return view_ != nullptr; }

 private:
  alignas(View) unsigned char room_[sizeof(View)];
  View* view_ = nullptr;
};

void add_part(Matrix& w, nb::handle codes, int bits, nb::handle steps) {
  View c(codes, "codes", 'b'), s(steps, "steps", 'f');
  c.expect({-1, w.cols()});
  if (!c.dense() || !s.dense()) throw std::invalid_argument("codes and steps must be contiguous");
  nb::gil_scoped_release free;
  w.add(c.data<int8_t>(), int(c.size(0)), bits, s.data<float>(), s.items());
}

void py_linear(const Matrix& w, nb::handle x, nb::handle out, nb::handle bias, int relu, nb::handle scale,
               nb::handle shift, nb::handle residual, float weight, nb::handle index, bool float_activations) {
  View from(x, "x", 'f'), to(out, "out", 'f', true);
  from.expect({-1, -1});
  Maybe taps(index, "index", 'i', {-1, -1});
  const Py_ssize_t n_taps = taps ? taps->size(1) : 1, count = taps ? taps->size(0) : from.size(0);
  if (from.size(1) * n_taps != w.cols())
    from.fail(std::to_string(n_taps) + " times its width as inputs, the matrix has " + std::to_string(w.cols()));
  to.expect({count, w.rows()});
  Maybe b(bias, "bias", 'f', {w.rows()}), s(scale, "scale", 'f', {w.rows()}), h(shift, "shift", 'f', {w.rows()});
  Maybe r(residual, "residual", 'f', {count, w.rows()});
  if (relu < 0 || relu > 3) throw std::invalid_argument("relu is 0, 1 (before scale and shift), 2 (last) or 3 (gelu)");
  if (count > INT32_MAX / 64) throw std::invalid_argument("too many rows at once");
  if (taps) {
    if (!taps->dense()) taps->fail("gaps: pass numpy.ascontiguousarray of it");
    const int32_t* i = taps.data<int32_t>();
    for (size_t k = 0; k < taps->items(); k++)
      if (i[k] < -1 || i[k] >= from.size(0))
        taps->fail("the row " + std::to_string(i[k]) + ", x has " + std::to_string(from.size(0)));
  }
  Source source{from.data<float>(), from.stride(), int(from.size(1)), int(n_taps), taps.data<int32_t>(), 0, 0};
  Epilogue e{to.data<float>(), to.stride(), b.data<float>(), s.data<float>(), h.data<float>(),
             r.data<float>(),  r.stride(),  weight,          Relu(relu)};
  nb::gil_scoped_release free;
  if (float_activations) linear_float(w, source, int(count), e);
  else linear(w, source, int(count), e);
}

void py_gather(const Matrix& w, nb::handle rows, nb::handle out) {
  View i(rows, "rows", 'i'), to(out, "out", 'f', true);
  i.expect({-1});
  to.expect({i.size(0), w.cols()});
  const int32_t* at = i.data<int32_t>();
  for (Py_ssize_t k = 0; k < i.size(0); k++)
    if (at[k] < 0 || at[k] >= w.rows())
      i.fail("the row " + std::to_string(at[k]) + ", the matrix has " + std::to_string(w.rows()));
  nb::gil_scoped_release free;
  for (Py_ssize_t k = 0; k < i.size(0); k++) w.row(at[k], to.data<float>() + k * to.stride());
}

void py_vocabulary(const Matrix& w, nb::handle x, nb::handle chosen, nb::handle bias, nb::handle scores,
                   nb::handle normalizer, bool float_activations) {
  View from(x, "x", 'f'), ids(chosen, "chosen", 'i'), to(scores, "scores", 'f', true), lse(normalizer, "normalizer", 'f', true);
  from.expect({-1, w.cols()});
  ids.expect({from.size(0), -1});
  to.expect({from.size(0), ids.size(1)});
  lse.expect({from.size(0)});
  Maybe b(bias, "bias", 'f', {w.rows()});
  if (!ids.dense() || !to.dense()) throw std::invalid_argument("chosen and scores must be contiguous");
  for (size_t k = 0; k < ids.items(); k++)
    if (ids.data<int32_t>()[k] < 0 || ids.data<int32_t>()[k] >= w.rows())
      ids.fail("the column " + std::to_string(ids.data<int32_t>()[k]) + ", the vocabulary has " + std::to_string(w.rows()));
  Source source{from.data<float>(), from.stride(), int(from.size(1)), 1, nullptr, 0, 0};
  nb::gil_scoped_release free;
  (float_activations ? vocabulary_float : vocabulary)(w, source, int(from.size(0)), b.data<float>(), ids.data<int32_t>(),
                                                      int(ids.size(1)), to.data<float>(), lse.data<float>());
}

// Layers one above the other, tuples (input, recurrent, bias), on frames (T, N, I); state h and c (layers, N, D).
void py_lstm(nb::list layers, nb::handle x, nb::handle h, nb::handle c, nb::handle out, bool float_activations) {
  const Py_ssize_t depth = Py_ssize_t(nb::len(layers));
  if (depth < 1) throw std::invalid_argument("an LSTM has a layer at least");
  View from(x, "x", 'f'), hidden(h, "h", 'f', true), cell(c, "c", 'f', true), to(out, "out", 'f', true);
  from.expect({-1, -1, -1});
  struct Layer {
    const Matrix *input, *recurrent;
    const float* bias;
  };
  std::vector<Layer> found;
  Py_ssize_t inputs = from.size(2), dim = inputs;
  for (nb::handle each : layers) {
    const nb::tuple t = nb::cast<nb::tuple>(each);
    if (nb::len(t) != 3) throw std::invalid_argument("a layer is two matrices and a bias");
    Layer l{nb::cast<const Matrix*>(t[0]), nb::cast<const Matrix*>(t[1]), nullptr};
    dim = l.recurrent->cols();
    if (l.recurrent->rows() != 4 * dim || l.input->rows() != 4 * dim)
      throw std::invalid_argument("an LSTM of width " + std::to_string(dim) + " has two matrices of " +
                                  std::to_string(4 * dim) + " rows, found " + std::to_string(l.input->rows()) + " and " +
                                  std::to_string(l.recurrent->rows()));
    if (l.input->cols() != inputs)
      throw std::invalid_argument("an LSTM that reads " + std::to_string(l.input->cols()) + " numbers has " +
                                  std::to_string(inputs) + " before it");
    if (!found.empty() && dim != inputs) throw std::invalid_argument("LSTMs in one call are of one width");
    l.bias = Maybe(nb::object(t[2]), "bias", 'f', {4 * dim}).data<float>();
    found.push_back(l);
    inputs = dim;
  }
  hidden.expect({depth, from.size(1), dim});
  cell.expect({depth, from.size(1), dim});
  to.expect({from.size(0), from.size(1), dim});
  for (const View* v : {&from, &hidden, &cell, &to})
    if (!v->dense()) v->fail("gaps: pass numpy.ascontiguousarray of it");
  if (from.size(0) * from.size(1) > INT32_MAX / 64) throw std::invalid_argument("too many frames at once");
  nb::gil_scoped_release free;
  const float* read = from.data<float>();
  for (Py_ssize_t i = 0; i < depth; i++) {
    const Layer& l = found[size_t(i)];
    const ptrdiff_t at = i * from.size(1) * dim;
    lstm(*l.input, *l.recurrent, l.bias, Source{read, l.input->cols(), l.input->cols(), 1, nullptr, 0, 0},
         int(from.size(0)), int(from.size(1)), hidden.data<float>() + at, cell.data<float>() + at, to.data<float>(),
         float_activations);
    read = to.data<float>();  // which the next layer reads as a whole before it writes there
  }
}

void py_depthwise(nb::handle x, nb::handle taps, nb::handle out, nb::handle bias, int stride, int dilation, int pad,
                  int relu) {
  View from(x, "x", 'f'), filter(taps, "taps", 'f'), to(out, "out", 'f', true);
  from.expect({-1, -1});
  filter.expect({-1, from.size(1)});
  if (!filter.dense()) filter.fail("gaps: pass numpy.ascontiguousarray of it");
  to.expect({-1, from.size(1)});
  Maybe b(bias, "bias", 'f', {from.size(1)});
  if (stride < 1 || dilation < 1 || pad < 0 || relu < 0 || relu > 2)
    throw std::invalid_argument("stride and dilation are at least 1, padding at least 0");
  const Py_ssize_t reach = from.size(0) + 2 * pad - dilation * (filter.size(0) - 1);
  const Py_ssize_t rows = reach < 1 ? 0 : (reach - 1) / stride + 1;
  if (to.size(0) != rows) to.fail("another length than " + std::to_string(rows));
  Filter f{filter.data<float>(), int(filter.size(0)), int(from.size(1)), stride, dilation, pad};
  Epilogue e;
  e.out = to.data<float>(), e.stride = to.stride(), e.bias = b.data<float>(), e.relu = Relu(relu);
  nb::gil_scoped_release free;
  depthwise(f, from.data<float>(), from.stride(), int(from.size(0)), int(rows), e);
}

// Four matrices and eight vectors of a Transformer block, kept alive by Python.
struct PyBlock {
  nb::object kept;
  Block b;
  PyBlock(nb::list matrices, nb::list vectors, int heads, bool float_activations) : kept(nb::make_tuple(nb::tuple(matrices), nb::tuple(vectors))) {
    if (nb::len(matrices) != 4 || nb::len(vectors) != 8) throw std::invalid_argument("a block has 4 matrices and 8 vectors");
    const Matrix** to[4] = {&b.qkv, &b.out, &b.w1, &b.w2};
    for (int i = 0; i < 4; i++) *to[i] = nb::cast<const Matrix*>(matrices[i]);
    const int d = b.qkv->cols(), f = b.w1->rows();
    b.heads = heads, b.float_activations = float_activations;
    if (heads < 1 || d % heads || b.qkv->rows() != 3 * d || b.out->rows() != d || b.out->cols() != d ||
        b.w1->cols() != d || b.w2->rows() != d || b.w2->cols() != f)
      throw std::invalid_argument("the matrices of a block of width " + std::to_string(d) + " do not fit each other");
    const char* names[8] = {"qkv bias", "out bias", "w1 bias", "w2 bias", "gain", "bias", "second gain", "second bias"};
    const Py_ssize_t sizes[8] = {3 * d, d, f, d, d, d, d, d};
    const float** vec[8] = {&b.qkv_bias, &b.out_bias, &b.w1_bias, &b.w2_bias, &b.gain1, &b.bias1, &b.gain2, &b.bias2};
    for (int i = 0; i < 8; i++) {
      Maybe v(nb::object(vectors[i]), names[i], 'f', {sizes[i]});
      if (!v && i >= 4) throw std::invalid_argument(std::string(names[i]) + " of a norm is missing");
      *vec[i] = v.data<float>();
    }
  }
};

// Blocks one after another, of which each has its own keys and values.
void py_transformer(nb::list blocks, nb::handle rows, int n, nb::handle keys, nb::handle values, int past) {
  std::vector<const Block*> found;
  for (nb::handle each : blocks) found.push_back(&nb::cast<const PyBlock&>(each).b);
  if (found.empty()) throw std::invalid_argument("a Transformer needs a block");
  View x(rows, "rows", 'f', true), k(keys, "keys", 'f', true), v(values, "values", 'f', true);
  const int d = found[0]->qkv->cols(), heads = found[0]->heads, dim = d / heads;
  for (const Block* b : found)
    if (b->qkv->cols() != d || b->heads != heads) throw std::invalid_argument("blocks of one width and number of heads");
  x.expect({-1, d});
  if (n < 1 || x.size(0) % n || x.size(0) == 0) x.fail("rows that are not a multiple of the hypotheses");
  const int t = int(x.size(0) / n);
  k.expect({Py_ssize_t(found.size()), n, heads, dim, -1});
  const Py_ssize_t room = k.size(4);
  v.expect({Py_ssize_t(found.size()), n, heads, room, dim});
  if (past < 0 || past + t > room)
    k.fail("too little room for " + std::to_string(past) + " past and " + std::to_string(t) + " new tokens");
  if (!x.dense() || !k.dense() || !v.dense()) throw std::invalid_argument("rows, keys and values must be contiguous");
  nb::gil_scoped_release free;
  for (size_t i = 0; i < found.size(); i++) {
    const size_t at = i * size_t(n) * size_t(d) * size_t(room);
    transformer_block(*found[i], x.data<float>(), n, t, k.data<float>() + at, v.data<float>() + at, int(room), past);
  }
}

// Maps of a TDNN-F, each a tuple (matrix, bias, scale, shift), kept alive by Python.
struct PyTdnnf {
  nb::object kept;
  Tdnnf net;
  PyTdnnf(nb::handle front, nb::handle input, nb::list layers, nb::list heads, std::vector<int> strides, int feat_dim,
          int ivector_dim, int splice, int third, int at, float bypass)
      : kept(nb::make_tuple(front, input, nb::tuple(layers), nb::tuple(heads))) {
    if (nb::len(layers) != 2 * strides.size() || nb::len(heads) != 4)
      throw std::invalid_argument("a TDNN-F has two maps for each of its " + std::to_string(strides.size()) +
                                  " layers and 4 behind them");
    net.feat_dim = feat_dim, net.ivector_dim = ivector_dim, net.splice = splice, net.third = third, net.at = at;
    net.bypass = bypass;
    if (!front.is_none()) net.front = map(front);
    net.input = map(input);
    for (size_t i = 0; i < strides.size(); i++)
      net.layers.push_back({map(layers[2 * i]), map(layers[2 * i + 1]), strides[i]});
    for (size_t i = 0; i < 4; i++) net.heads[i] = map(heads[i]);
    net.check();
  }
  static Map map(nb::handle given) {
    const nb::tuple t = nb::cast<nb::tuple>(given);
    if (nb::len(t) != 4) throw std::invalid_argument("a map is a matrix, its bias, scale and shift");
    Map m;
    m.w = nb::cast<const Matrix*>(t[0]);
    const char* names[3] = {"bias", "scale", "shift"};
    const float** to[3] = {&m.bias, &m.scale, &m.shift};
    for (size_t i = 0; i < 3; i++) *to[i] = Maybe(nb::object(t[i + 1]), names[i], 'f', {m.w->rows()}).data<float>();
    return m;
  }
};

// `norms`: scale and shift, or None twice, of the input layer and of every layer; or None.
void py_tdnnf(const PyTdnnf& network, nb::handle feats, nb::handle ivectors, nb::handle norms, nb::handle out) {
  const Tdnnf& net = network.net;
  View x(feats, "feats", 'f'), to(out, "out", 'f', true);
  x.expect({-1, net.feat_dim});
  if (x.size(0) > INT32_MAX / 64) throw std::invalid_argument("too many frames at once");
  to.expect({net.outputs(int(x.size(0))), net.heads[3].w->rows()});
  Maybe i(ivectors, "ivectors", 'f', {x.size(0), net.ivector_dim});
  if (net.ivector_dim && !i) throw std::invalid_argument("the network reads i-vectors");
  std::vector<const float*> found;
  if (!norms.is_none())
    for (nb::handle each : nb::cast<nb::list>(norms))
      found.push_back(Maybe(each, "norm", 'f', {net.input.w->rows()}).data<float>());
  if (!found.empty() && found.size() != 2 * (net.layers.size() + 1))
    throw std::invalid_argument("norms of " + std::to_string(net.layers.size() + 1) + " layers are two each");
  for (size_t k = 0; k + 1 < found.size(); k += 2)
    if (!found[k] != !found[k + 1]) throw std::invalid_argument("a norm is a scale and a shift");
  nb::gil_scoped_release free;
  tdnnf(net, x.data<float>(), x.stride(), int(x.size(0)), i.data<float>(), i.stride(),
        found.empty() ? nullptr : found.data(), to.data<float>(), to.stride());
}

void py_layer_norm(nb::handle x, nb::handle gain, nb::handle bias, float eps, nb::handle out) {
  View from(x, "x", 'f'), g(gain, "gain", 'f'), b(bias, "bias", 'f'), to(out, "out", 'f', true);
  from.expect({-1, -1});
  g.expect({from.size(1)});
  b.expect({from.size(1)});
  to.expect({from.size(0), from.size(1)});
  for (Py_ssize_t m = 0; m < from.size(0); m++)
    kernels().layer_norm(from.data<float>() + m * from.stride(), int(from.size(1)), g.data<float>(), b.data<float>(), eps,
                         to.data<float>() + m * to.stride());
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // the interpreter may exit with matrices alive
  m.doc() = "Kernels for packed low-bit weights; greenasr/runtime/kernels/native.py describes them.";
  nb::class_<Matrix>(m, "Matrix")
      .def(nb::init<int, int>(), nb::arg("cols"), nb::arg("group") = 0)
      .def("add", &add_part, nb::arg("codes"), nb::arg("bits"), nb::arg("steps"))
      .def("add_generated", &Matrix::add_generated, nb::arg("seed"), nb::arg("layer"), nb::arg("rows"),
           nb::arg("zeros"), nb::arg("structured"), nb::arg("step"))
      .def_prop_ro("rows", &Matrix::rows)
      .def_prop_ro("cols", &Matrix::cols)
      .def_prop_ro("group", &Matrix::group)
      .def_prop_ro("nbytes", &Matrix::bytes)
      .def_prop_rw("step", &Matrix::step, &Matrix::set_step)
      .def("gather", &py_gather, nb::arg("rows"), nb::arg("out"));
  m.def("linear", &py_linear, nb::arg("matrix"), nb::arg("x"), nb::arg("out"), nb::arg("bias") = nb::none(),
        nb::arg("relu") = 0, nb::arg("scale") = nb::none(), nb::arg("shift") = nb::none(),
        nb::arg("residual") = nb::none(), nb::arg("residual_weight") = 1.0f, nb::arg("index") = nb::none(),
        nb::arg("float_activations") = false);
  m.def("vocabulary", &py_vocabulary, nb::arg("matrix"), nb::arg("x"), nb::arg("chosen"), nb::arg("bias").none(),
        nb::arg("scores"), nb::arg("normalizer"), nb::arg("float_activations") = false);
  m.def("lstm", &py_lstm, nb::arg("layers"), nb::arg("x"), nb::arg("h"), nb::arg("c"), nb::arg("out"),
        nb::arg("float_activations") = false);
  m.def("depthwise", &py_depthwise, nb::arg("x"), nb::arg("taps"), nb::arg("out"), nb::arg("bias") = nb::none(),
        nb::arg("stride") = 1, nb::arg("dilation") = 1, nb::arg("pad") = 0, nb::arg("relu") = 0);
  nb::class_<PyBlock>(m, "TransformerBlock")
      .def(nb::init<nb::list, nb::list, int, bool>(), nb::arg("matrices"), nb::arg("vectors"), nb::arg("heads"),
           nb::arg("float_activations") = false);
  m.def("transformer", &py_transformer, nb::arg("blocks"), nb::arg("rows"), nb::arg("n"), nb::arg("keys"),
        nb::arg("values"), nb::arg("past"));
  nb::class_<PyTdnnf>(m, "Tdnnf")
      .def(nb::init<nb::handle, nb::handle, nb::list, nb::list, std::vector<int>, int, int, int, int, int, float>(),
           nb::arg("front").none(), nb::arg("input"), nb::arg("layers"), nb::arg("heads"), nb::arg("strides"),
           nb::arg("feat_dim"), nb::arg("ivector_dim"), nb::arg("splice"), nb::arg("third"), nb::arg("at"),
           nb::arg("bypass"));
  m.def("tdnnf", &py_tdnnf, nb::arg("network"), nb::arg("feats"), nb::arg("ivectors").none(), nb::arg("norms").none(),
        nb::arg("out"));
  m.def("layer_norm", &py_layer_norm, nb::arg("x"), nb::arg("gain"), nb::arg("bias"), nb::arg("eps"), nb::arg("out"));
  m.def("read_rate", &read_rate, nb::arg("bytes"), nb::arg("seconds"), nb::call_guard<nb::gil_scoped_release>());
  m.def("peak_rate", &peak_rate, nb::arg("seconds"), nb::call_guard<nb::gil_scoped_release>());
  m.def("isa", [] { return std::string(kernels().name); });
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const Kernels* k : all_kernels()) names.push_back(k->name);
    return names;
  });
  m.def("use_isa", [](const std::string& name) { choose_kernels(name); }, nb::arg("name"));
  m.def("threads", &threads);
  m.def("cores", &cores);
  m.def("set_threads", &set_threads, nb::arg("n"));
}
