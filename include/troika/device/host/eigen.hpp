// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>

#include <troika/core/shape.hpp>

namespace troika {

// A program's own Eigen matrices as views, and views as Eigen matrices, without a copy.

template <class T>
using RowMajorMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// (rows, columns) of a dense matrix whose rows lie one after another. A column-major one does not compile: its values
// would be read transposed.
template <class Matrix>
auto view_of(const Eigen::PlainObjectBase<Matrix>& matrix) {
  static_assert(Matrix::IsRowMajor || Matrix::IsVectorAtCompileTime,
                "troika's tensors are row-major: use troika::RowMajorMatrix, or assign to one");
  return View<const typename Matrix::Scalar>(matrix.data(), {matrix.rows(), matrix.cols()});
}

// A view of two dimensions, to compute with in Eigen; writes go through where T is not const.
template <class T>
auto as_eigen(View<T> view) {
  expects(view.shape().dims() == 2,
          [&] { return "an Eigen matrix has 2 dimensions, unlike " + view.shape().to_string(); });
  using Matrix = RowMajorMatrix<std::remove_const_t<T>>;
  using Mapped = std::conditional_t<std::is_const_v<T>, const Matrix, Matrix>;
  return Eigen::Map<Mapped>(view.data(), view.shape()[0], view.shape()[1]);
}

}  // namespace troika
