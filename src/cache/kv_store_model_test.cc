// Random operations against a plain table of rows, by one thread and by a team; every read must match to the
// bit.
#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/team.h"
#include "cache/store_test_util.h"

namespace kvant::test {
namespace {

constexpr int kSequences = 3;
constexpr int64_t kRows = 700;

struct ModelOptions {
  Side side;
  int sink_tokens;
  int recent_tokens;
  int team_size;
};

/// What a sequence should hold.
struct Model {
  struct Cell {
    int salt;
    bool coded;
  };
  std::map<int64_t, Cell> rows;
  std::set<int64_t> sealed;

  int64_t num_rows() const { return rows.empty() ? 0 : rows.rbegin()->first + 1; }

  void Write(int64_t row, int salt) {
    sealed.erase(row / 64);
    rows[row] = {salt, false};
  }

  void Seal(const ModelOptions& options) {
    for (int64_t page = 0; (page + 1) * 64 + options.recent_tokens <= num_rows(); ++page) {
      const auto first = rows.lower_bound(page * 64);
      const auto end = rows.lower_bound((page + 1) * 64);
      if (std::distance(first, end) != 64 || !sealed.insert(page).second) continue;
      for (auto row = first; row != end; ++row) row->second.coded |= row->first >= options.sink_tokens;
    }
  }

  void Truncate(int64_t num_rows) {
    rows.erase(rows.lower_bound(num_rows), rows.end());
    std::erase_if(sealed, [&](int64_t page) { return page * 64 >= num_rows; });
  }

  std::vector<float> Row(int64_t row) const {
    const auto cell = rows.find(row);
    if (cell == rows.end()) return std::vector<float>(kRowValues, 0.0f);
    std::vector<float> values = TestRows({row}, cell->second.salt);
    if (cell->second.coded) std::ranges::transform(values, values.begin(), [](float v) { return OnGrid(v); });
    return values;
  }
};

class ModelTest : public ::testing::TestWithParam<ModelOptions> {
 protected:
  /// Runs `function` on the team and checks that all members got the same Status.
  template <typename F>
  void OnTeam(F&& function) {
    std::vector<Status> statuses(static_cast<size_t>(team_.size()));
    team_.Run([&](const Team& team) { statuses[static_cast<size_t>(team.rank())] = function(team); });
    for (const Status& status : statuses) ASSERT_TRUE(status.ok()) << status.message();
  }

  int64_t Below(int64_t bound) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(bound)); }

  void WriteSome(int sequence) {
    std::vector<int64_t> rows;
    if (Below(2) == 0) {  // as libllama fills cells: a run, sometimes over what is there
      const int64_t first = Below(std::min(models_[sequence].num_rows() + 1, kRows));
      rows = Range(first, std::min(kRows, first + 1 + Below(Below(2) == 0 ? 400 : 4)));
    } else {
      for (int64_t i = Below(20); i >= 0; --i) rows.push_back(Below(kRows));
    }
    const int salt = ++salt_;
    const std::vector<float> values = TestRows(rows, salt);
    OnTeam([&](const Team& team) { return store_.WriteValues(sequence, rows, values, team); });
    for (const int64_t row : rows) models_[sequence].Write(row, salt);
  }

  void Seal(int sequence) {
    OnTeam([&](const Team& team) { return store_->Seal(team, sequence); });
    models_[sequence].Seal(GetParam());
  }

  void Fork(int from, int to) {
    ASSERT_TRUE(store_->Fork(from, to).ok());
    models_[to] = models_[from];
  }

  void Truncate(int sequence) {
    const int64_t num_rows = Below(models_[sequence].num_rows() + 2);
    ASSERT_TRUE(store_->Truncate(sequence, num_rows).ok());
    models_[sequence].Truncate(num_rows);
  }

  void Step() {
    const int sequence = static_cast<int>(Below(kSequences));
    switch (Below(16)) {
      case 0:
        return Truncate(sequence);
      case 1:
        return Fork(static_cast<int>(Below(kSequences)), sequence);
      case 2:
        store_->Clear(sequence);
        models_[sequence] = Model();
        return;
      case 3:
      case 4:
      case 5:
      case 6:
        return Seal(sequence);
      default:
        return WriteSome(sequence);
    }
  }

  void CheckReads(int sequence) {
    const Model& model = models_[sequence];
    const int64_t first = Below(kRows), count = Below(kRows);
    std::vector<F16> read(static_cast<size_t>(count) * kRowValues);
    OnTeam([&](const Team& team) {
      return store_->Read(team, sequence, first, count, {.data = read.data(), .row_stride = kRowValues});
    });
    for (int64_t i = 0; i < count; ++i) {
      std::vector<float> row;
      for (size_t c = 0; c < kRowValues; ++c) row.push_back(ToFloat(read[static_cast<size_t>(i) * kRowValues + c]));
      ASSERT_EQ(row, model.Row(first + i)) << "row " << first + i;
    }
  }

  void CheckView(int sequence) {
    const Model& model = models_[sequence];
    ASSERT_EQ(store_->num_rows(sequence), model.num_rows());
    const std::vector<SeenRow> seen = ReadView(*store_.store, sequence);
    ASSERT_EQ(seen.size(), model.rows.size());
    auto cell = model.rows.begin();
    for (const SeenRow& row : seen) {
      ASSERT_EQ(row.row, cell->first);  // every live row once, in order
      ASSERT_EQ(row.values, model.Row(row.row));
      ASSERT_EQ(row.exact, !model.sealed.contains(row.row / 64) || row.row < GetParam().sink_tokens);
      ++cell;
    }
  }

  void CheckFootprint() {
    size_t rows = 0;
    for (const Model& model : models_) rows += model.rows.size();
    ASSERT_EQ(store_->footprint().rows, rows);
    ASSERT_EQ(store_->footprint().total(), store_.pool.used_bytes());
  }

  TestStore store_{{.side = GetParam().side,
                    .num_sequences = kSequences,
                    .sink_tokens = GetParam().sink_tokens,
                    .recent_tokens = GetParam().recent_tokens}};
  ThreadTeam team_{GetParam().team_size};
  std::array<Model, kSequences> models_;
  std::mt19937 random_{17};
  int salt_ = 0;
};

TEST_P(ModelTest, MatchesAPlainTable) {
  for (int step = 0; step < 300; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    Step();
    const int sequence = static_cast<int>(Below(kSequences));
    CheckReads(sequence);
    CheckView(sequence);
    CheckFootprint();
    if (HasFatalFailure()) return;
  }
}

std::string Name(const ::testing::TestParamInfo<ModelOptions>& info) {
  return std::string(info.param.side == Side::kKey ? "K" : "V") + "_sink" + std::to_string(info.param.sink_tokens) +
         "_recent" + std::to_string(info.param.recent_tokens) + "_team" + std::to_string(info.param.team_size);
}

INSTANTIATE_TEST_SUITE_P(KvStore, ModelTest,
                         ::testing::Values(ModelOptions{Side::kKey, 0, 0, 1}, ModelOptions{Side::kKey, 5, 100, 1},
                                           ModelOptions{Side::kKey, 4, 64, 3}, ModelOptions{Side::kValue, 17, 0, 3},
                                           ModelOptions{Side::kValue, 64, 1, 3}, ModelOptions{Side::kValue, 0, 300, 1}),
                         Name);

}  // namespace
}  // namespace kvant::test
