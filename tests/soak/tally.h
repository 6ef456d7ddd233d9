// KL divergences by operation: what a soak reports, and what it fails on.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "kvant/status.h"
#include "operation.h"

namespace kvant {

struct Limits {
  double kl = 0.5;        ///< nats, of a single row of logits
  double kl_mean = 0.01;  ///< nats, of all rows
};

class Tally {
 public:
  /// The rows of logits that an operation gave. Errors: Internal when one exceeds `limits` or is not a number.
  Status Add(OperationKind kind, std::span<const double> kl, const Limits& limits);
  /// Internal when the mean of all rows exceeds `limits`, which says little of a few rows.
  Status CheckMean(const Limits& limits) const;

  int64_t operations() const { return operations_; }
  int64_t rows() const { return rows_; }
  /// "KL mean 1.2e-04, p99 1.1e-03, max 2.0e-02"
  std::string Line() const;
  /// A line for each operation, with its number, rows and KL.
  std::string Table() const;
  /// {"kl": {rows, mean, p99, max}, "by_operation": {"speculate": {operations, rows, mean, p99, max}, ...}}
  nlohmann::ordered_json ToJson() const;

 private:
  struct Row {
    int64_t operations = 0;
    std::vector<double> kl;
  };
  std::vector<double> All() const;

  std::array<Row, kOperationKinds> by_kind_;
  int64_t operations_ = 0, rows_ = 0;
  double sum_ = 0;
};

}  // namespace kvant
