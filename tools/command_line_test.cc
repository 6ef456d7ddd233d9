#include "command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "command_tree.h"

namespace kvant {
namespace {

// The words of the first `kvant ...` in a shell command, without quotes; up to what the shell reads itself.
std::vector<std::string> KvantWords(const std::string& command) {
  std::vector<std::string> words(1);
  bool quoted = false;
  for (size_t i = command.find("kvant "); i < command.size(); ++i) {
    const char c = command[i];
    if (!quoted && (c == '|' || c == '>' || c == ')')) break;
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ' ' && !quoted) {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

TEST(CommandLineTest, EachVerbHasTwoToFourExamplesThatParse) {
  const CommandLine names;
  for (const Verb& verb : names.verbs()) {
    const std::string name = verb.command->get_name();
    EXPECT_GE(verb.examples.size(), 2u) << name;
    EXPECT_LE(verb.examples.size(), 4u) << name;
    for (const Example& example : verb.examples) {
      CommandLine line;
      std::vector<std::string> words = KvantWords(example.command);
      ASSERT_GE(words.size(), 2u) << example.command;
      EXPECT_EQ(words[1], name);
      std::reverse(words.begin(), words.end());
      words.pop_back();
      EXPECT_NO_THROW(line.app().parse(words)) << example.command;
      EXPECT_THAT(verb.command->help(), testing::HasSubstr(example.command));
    }
  }
}

TEST(CommandLineTest, OutputOptionsAreAcceptedBeforeAndBehindAVerb) {
  for (const char* text :
       {"--quiet --progress json codecs", "codecs -q --progress=json", "bench codec -q --progress=json"}) {
    CommandLine line;
    line.app().parse(text, false);
    EXPECT_TRUE(line.terminal().quiet) << text;
    EXPECT_EQ(line.terminal().progress, ProgressForm::kJson) << text;
  }
  CommandLine line;
  EXPECT_THROW(line.app().parse("codecs --progress=loud", false), CLI::ParseError);
}

TEST(CommandLineTest, DescriptionHasEachVerbAndItsOptions) {
  CommandLine line;
  const CommandText root = Describe(line.app());
  std::set<std::string> names;
  for (const CommandText* command : root.All()) names.insert(command->name);
  EXPECT_TRUE(names.contains("") && names.contains("eval") && names.contains("bench attend"));
  for (const CommandText* command : root.All()) {
    EXPECT_NE(command->help, "") << command->name;
    for (const OptionText& option : command->options) {
      EXPECT_NE(option.help, "") << command->name << " " << LongName(option);
      if (LongName(option) == "--progress") {
        EXPECT_THAT(option.choices, testing::ElementsAre("auto", "bar", "json", "none"));
      }
      const bool is_cache = LongName(option) == "--cache";
      EXPECT_EQ(is_cache, option.kind == ValueKind::kCache) << command->name << " " << LongName(option);
    }
    if (command->name == "run") {
      EXPECT_EQ(command->positionals.at(0).kind, ValueKind::kModel);
    }
  }
}

}  // namespace
}  // namespace kvant
