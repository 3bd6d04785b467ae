// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <support/catch.hpp>
#include <troika/device/host/eigen.hpp>
#include <troika/device/host/host.hpp>

TEST_CASE("a matrix of Eigen's is a view, and the product is Eigen's") {
  const troika::RowMajorMatrix<float> x = troika::RowMajorMatrix<float>::Random(5, 17),
                                      w = troika::RowMajorMatrix<float>::Random(9, 17);
  troika::HostDevice device;
  troika::HostStream stream(device);
  troika::HostTensor<float> y(device, {5, 9});
  linear(stream, troika::view_of(x), troika::view_of(w), y.view());
  CHECK((troika::as_eigen(y.view()) - x * w.transpose()).norm() < 1e-5f);
}

TEST_CASE("an Eigen view writes to the tensor, and takes two dimensions only") {
  std::vector<float> data(6, 0.0f);
  troika::as_eigen(troika::View<float>(data.data(), {2, 3}))(1, 0) = 7;
  CHECK(data[3] == 7);
  CHECK(troika::as_eigen(troika::View<const float>(data.data(), {3, 2}))(1, 1) == 7);
  CHECK_THROWS_AS(troika::as_eigen(troika::View<float>(data.data(), {6})), troika::Error);
}
