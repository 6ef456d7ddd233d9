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
  bool before_rope = false;
};

using Row = std::vector<float>;

Row RoundedToF16(Row row) {
  for (float& v : row) v = ToFloat(ToF16(v));
  return row;
}

/// What a sequence should hold.
struct Model {
  struct Cell {
    Row values;        ///< as the codec left them, when coded; else as they are read
    int32_t position;  ///< 0 where positions do not matter
    bool coded = false;
  };
  std::shared_ptr<const Rope> maybe_rope;
  std::map<int64_t, Cell> rows;
  std::set<int64_t> sealed;

  int64_t num_rows() const { return rows.empty() ? 0 : rows.rbegin()->first + 1; }

  void Turn(decltype(TurnRows) turn, int32_t position, Row& row) const {
    const int32_t positions[kHeads] = {position, position};
    if (maybe_rope != nullptr) turn(*maybe_rope, positions, kHeads, row.data());
  }

  Row Decoded(const Cell& cell) const {
    Row row = cell.values;
    if (cell.coded) Turn(TurnRows, cell.position, row);
    return row;
  }

  void Write(int64_t row, int salt, int32_t position) {
    if (sealed.erase(row / 64) != 0) {  // what was coded is exact from now on
      for (auto it = rows.lower_bound(row / 64 * 64); it != rows.end() && it->first / 64 == row / 64; ++it) {
        it->second = {RoundedToF16(Decoded(it->second)), it->second.position};
      }
    }
    rows[row] = {TestRows({row}, salt), position};
  }

  void Code(Cell& cell) const {
    Turn(TurnRowsBack, cell.position, cell.values);
    std::ranges::transform(cell.values, cell.values.begin(), [](float v) { return OnGrid(v); });
    cell.coded = true;
  }

  void Move(const std::vector<int32_t>& shift) {
    for (auto& [row, cell] : rows) {
      const int32_t by = row < std::ssize(shift) ? shift[static_cast<size_t>(row)] : 0;
      if (!cell.coded && by != 0) {
        Turn(TurnRowsBack, cell.position, cell.values);
        Turn(TurnRows, cell.position + by, cell.values);
        cell.values = RoundedToF16(cell.values);
      }
      cell.position += by;
    }
  }

  void Seal(const ModelOptions& options) {
    for (int64_t page = 0; (page + 1) * 64 + options.recent_tokens <= num_rows(); ++page) {
      const auto first = rows.lower_bound(page * 64);
      const auto end = rows.lower_bound((page + 1) * 64);
      if (std::distance(first, end) != 64 || !sealed.insert(page).second) continue;
      for (auto row = first; row != end; ++row) {
        if (row->first >= options.sink_tokens) Code(row->second);
      }
    }
  }

  void Truncate(int64_t num_rows) {
    rows.erase(rows.lower_bound(num_rows), rows.end());
    std::erase_if(sealed, [&](int64_t page) { return page * 64 >= num_rows; });
  }

  Row RowAt(int64_t row) const {
    const auto cell = rows.find(row);
    return cell == rows.end() ? Row(kRowValues, 0.0f) : Decoded(cell->second);
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
    const Row values = TestRows(rows, salt);
    std::vector<int32_t> positions;
    for (const int64_t row : rows)
      positions.push_back(GetParam().before_rope ? static_cast<int32_t>(row + 5 * salt) : 0);
    OnTeam([&](const Team& team) { return store_.WriteValues(sequence, rows, values, team, positions); });
    for (size_t i = 0; i < rows.size(); ++i) models_[sequence].Write(rows[i], salt, positions[i]);
  }

  /// Context shift: rows from somewhere on move together, those before stay.
  void Move(int sequence) {
    std::vector<int32_t> shift(static_cast<size_t>(models_[sequence].num_rows()));
    const auto first = shift.begin() + Below(std::ssize(shift) + 1);
    std::fill(first, shift.end(), static_cast<int32_t>(Below(200)));
    OnTeam([&](const Team& team) { return store_->MovePositions(team, sequence, shift); });
    models_[sequence].Move(shift);
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
        models_[sequence] = Model{store_->config().maybe_rope, {}, {}};
        return;
      case 7:
        if (GetParam().before_rope) return Move(sequence);
        return WriteSome(sequence);
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
      Row row;
      for (size_t c = 0; c < kRowValues; ++c) row.push_back(ToFloat(read[static_cast<size_t>(i) * kRowValues + c]));
      ASSERT_EQ(row, RoundedToF16(model.RowAt(first + i))) << "row " << first + i;
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
      ASSERT_EQ(row.values, model.RowAt(row.row));
      if (GetParam().before_rope) {
        ASSERT_EQ(store_->Position(sequence, row.row), cell->second.position);
      }
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
                    .recent_tokens = GetParam().recent_tokens,
                    .codec = {.keys_before_rope = GetParam().before_rope}}};
  ThreadTeam team_{GetParam().team_size};
  std::array<Model, kSequences> models_;
  std::mt19937 random_{17};
  int salt_ = 0;
};

TEST_P(ModelTest, MatchesAPlainTable) {
  for (Model& model : models_) model.maybe_rope = store_->config().maybe_rope;
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
         "_recent" + std::to_string(info.param.recent_tokens) + "_team" + std::to_string(info.param.team_size) +
         (info.param.before_rope ? "_before_rope" : "");
}

INSTANTIATE_TEST_SUITE_P(KvStore, ModelTest,
                         ::testing::Values(ModelOptions{Side::kKey, 0, 0, 1}, ModelOptions{Side::kKey, 5, 100, 1},
                                           ModelOptions{Side::kKey, 4, 64, 3}, ModelOptions{Side::kValue, 17, 0, 3},
                                           ModelOptions{Side::kValue, 64, 1, 3}, ModelOptions{Side::kValue, 0, 300, 1},
                                           ModelOptions{Side::kKey, 0, 0, 1, true},
                                           ModelOptions{Side::kKey, 5, 100, 3, true}),
                         Name);

}  // namespace
}  // namespace kvant::test
