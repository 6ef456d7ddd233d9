#include "eval/tool_calls.h"

#include <gtest/gtest.h>

#include "eval/task_test_util.h"

namespace kvant {
namespace {

using Json = nlohmann::json;
using test::Prepare;
using test::ResultOf;
using test::SomeText;

const Json kTools = {{{"name", "get"}, {"parameters", {{"city", "string"}, {"days", "integer"}}}},
                     {{"name", "stop"}, {"parameters", Json::object()}},
                     {{"name", "set"}, {"parameters", {{"x", "number"}, {"on", "boolean"}}}}};

TEST(IsToolCallTest, AcceptsTheGrammar) {
  for (const char* call :
       {R"({"name": "get", "arguments": {"city": "Rome", "days": 2}})",
        R"(  {"arguments":{"days":2,"city":"a } \" {"},"name":"get"} and more)", R"({"name": "stop", "arguments": {}})",
        R"({"name": "set", "arguments": {"x": 1, "on": true}})"}) {
    EXPECT_TRUE(IsToolCall(call, kTools)) << call;
  }
}

TEST(IsToolCallTest, RefusesEverythingElse) {
  for (const char* call :
       {"", "get(Rome)", "Sure: {\"name\": \"stop\", \"arguments\": {}}", R"({"name": "stop", "arguments": {})",
        R"({"name": "stop"})", R"(["stop"])", R"({"name": "go", "arguments": {}})",
        R"({"name": "stop", "arguments": []})", R"({"name": "stop", "arguments": {}, "id": 1})",
        R"({"name": "get", "arguments": {"city": "Rome"}})",
        R"({"name": "get", "arguments": {"city": "Rome", "days": "2"}})",
        R"({"name": "get", "arguments": {"city": "Rome", "days": 2.5}})",
        R"({"name": "get", "arguments": {"city": "Rome", "hours": 2}})", R"({'name': 'stop', 'arguments': {}})"}) {
    EXPECT_FALSE(IsToolCall(call, kTools)) << call;
  }
}

TEST(ToolCallsTest, BuiltInPromptsWork) {
  const auto task = MakeBuiltInToolCalls();
  ASSERT_TRUE(Prepare(*task).ok());
  const Json result = ResultOf(*task, "f16");  // copies the first example
  EXPECT_EQ(result["right"], 8);
  EXPECT_EQ(result["asked"], 8);
  EXPECT_EQ(ResultOf(*task, "blind")["right"], 0);
}

TEST(ToolCallsTest, PromptsComeFromAFile) {
  const std::string call = R"(Call: {"name": "get", "arguments": {"city": "Rome", "days": 2}})";
  const Json good = {{"prompt", call + "\nCall:"}, {"tools", kTools}};
  Json other = good;
  other["tools"] = {{{"name", "put"}, {"parameters", Json::object()}}};
  const auto task = MakeToolCalls(good.dump() + "\n" + other.dump(), "a.jsonl");
  ASSERT_TRUE(task.ok()) << task.status().message();
  ASSERT_TRUE(Prepare(**task).ok());
  EXPECT_EQ((*task)->Show(ResultOf(**task, "f16")), "1/2");
}

TEST(ToolCallsTest, RefusesToolsOfAnotherForm) {
  const auto error = [](const char* tools) {
    const std::string line = std::string("{\"prompt\": \"x\"") + tools + "}";
    return MakeToolCalls(line, "a").status().message();
  };
  EXPECT_EQ(error(""), "a, line 1: no list of \"tools\"");
  EXPECT_EQ(error(", \"tools\": []"), "a, line 1: no list of \"tools\"");
  EXPECT_EQ(error(", \"tools\": [{\"name\": \"f\"}]"),
            "a, line 1: a tool that is no {\"name\": text, \"parameters\": {name: type}}");
  EXPECT_EQ(error(", \"tools\": [{\"name\": \"f\", \"parameters\": {\"x\": \"float\"}}]"),
            "a, line 1: a parameter of an unknown type; accepted: string, number, integer, boolean");
}

}  // namespace
}  // namespace kvant
