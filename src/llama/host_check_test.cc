#include "llama/host_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvant {
namespace {

using testing::HasSubstr;

TEST(HostCheck, TheGgmlWeLinkIsTheOneWeWereBuiltAgainst) {
  const Status status = CheckHost(LoadedGgml(), BuiltAgainst());
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST(HostCheck, OtherBuildsAreRefusedWithBothNames) {
  const GgmlBuild ours = {"0.25.3", "0c1e57098"};
  for (const GgmlBuild& host : {GgmlBuild{"0.25.4", "0c1e57098"}, GgmlBuild{"0.25.3", "ffffffff"}}) {
    const Status status = CheckHost(host, ours);
    EXPECT_EQ(status.code(), StatusCode::kNotSupported);
    EXPECT_THAT(status.message(), HasSubstr(std::string(host.version) + " (" + std::string(host.commit) + ")"));
    EXPECT_THAT(status.message(), HasSubstr("0.25.3 (0c1e57098)"));
  }
}

TEST(HostCheck, ABuildThatDoesNotKnowItsCommitIsRefused) {
  EXPECT_FALSE(CheckHost({"0.25.3", "unknown"}, {"0.25.3", "unknown"}).ok());
}

}  // namespace
}  // namespace kvant
