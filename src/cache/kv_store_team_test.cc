// What a team of threads must agree on.
#include <vector>

#include "base/team.h"
#include "cache/store_test_util.h"

namespace kvant::test {
namespace {

template <typename F>
std::vector<Status> Statuses(ThreadTeam& threads, F&& function) {
  std::vector<Status> statuses(static_cast<size_t>(threads.size()));
  threads.Run([&](const Team& team) { statuses[static_cast<size_t>(team.rank())] = function(team); });
  return statuses;
}

void ExpectAll(const std::vector<Status>& statuses, StatusCode code, const std::string& message) {
  for (const Status& status : statuses) {
    EXPECT_EQ(status.code(), code);
    EXPECT_THAT(status.message(), testing::HasSubstr(message));
  }
}

TEST(KvStoreTeam, AllMembersGetTheFirstErrorOfTheBatch) {
  ThreadTeam threads(3);
  TestStore store;
  std::vector<float> values = TestRows(Range(0, 600));
  for (const size_t row : {590u, 310u, 333u}) values[row * kRowValues] = NAN;
  for (int round = 0; round < 20; ++round) {
    ExpectAll(Statuses(threads, [&](const Team& team) { return store.WriteValues(0, Range(0, 600), values, team); }),
              StatusCode::kInvalidArgument, "row 310: ");
  }
  EXPECT_EQ(store->num_rows(0), 0);
  EXPECT_EQ(store.pool.used_bytes(), 0u);
}

TEST(KvStoreTeam, AllMembersGetOutOfMemory) {
  ThreadTeam threads(3);
  TestStore store({.limit_bytes = 10000});
  const std::vector<float> values = TestRows(Range(0, 600));
  ExpectAll(Statuses(threads, [&](const Team& team) { return store.WriteValues(0, Range(0, 600), values, team); }),
            StatusCode::kOutOfMemory, "limit of 10000");
  EXPECT_EQ(store.pool.used_bytes(), 0u);
}

TEST(KvStoreTeam, AllMembersGetTheFirstPageThatCannotBeSealed) {
  ThreadTeam threads(3);
  TestStore store;
  std::vector<float> values = TestRows(Range(0, 640));
  for (const size_t row : {600u, 130u}) values[row * kRowValues] = 2 * kGridMax;
  Statuses(threads, [&](const Team& team) { return store.WriteValues(0, Range(0, 640), values, team); });
  ExpectAll(Statuses(threads, [&](const Team& team) { return store->Seal(team, 0); }), StatusCode::kInvalidArgument,
            "head 0, rows 128..191: grid: value too large");
}

TEST(KvStoreTeam, FitsTheSameBasisAsOneThread) {
  ThreadTeam threads(3);
  const StoreOptions options = {.sink_tokens = 4, .codec = {.basis_min_tokens = 300, .basis_refit_tokens = 300}};
  TestStore alone(options);
  TestStore together(options);
  for (int64_t first = 0; first < 1000; first += 200) {
    alone.Append(0, first, first + 200);
    const std::vector<float> values = TestRows(Range(first, first + 200));
    ExpectAll(Statuses(threads,
                       [&](const Team& team) {
                         const Status status = together.WriteValues(0, Range(first, first + 200), values, team);
                         return status.ok() ? together->Seal(team, 0) : status;
                       }),
              StatusCode::kOk, "");
  }
  EXPECT_EQ(together.Read(0, 0, 1000), alone.Read(0, 0, 1000));
  EXPECT_EQ(together->View(0).size(), alone->View(0).size());
}

}  // namespace
}  // namespace kvant::test
