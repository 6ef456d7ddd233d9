// Task "tool-calls": does the model still write calls that a program can read?
//
// Counted is the format alone: one JSON object {"name": ..., "arguments": {...}} with the name of a tool that was offered and
// exactly its parameters, each of its type. Whether the call is a wise one is not judged.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "eval/task.h"

namespace kvant {

/// `lines`: JSON objects, one per line, {"prompt": text, "tools": [{"name": text, "parameters": {name: type}}]}, a type being
/// "string", "number", "integer" or "boolean". The prompt has to show the tools itself, in the words that suit the model.
/// Result: as ShareJson. Errors: those of ParseJsonLines, InvalidArgument for tools of another form; Prepare: a prompt that
/// exceeds the model's context.
Result<std::unique_ptr<Task>> MakeToolCalls(std::string_view lines, std::string name);

/// The same for prompts that come with kvant: a list of tools, two examples, a request.
std::unique_ptr<Task> MakeBuiltInToolCalls();

/// Is what the model wrote a call of one of `tools`? White space before the object is allowed, and anything behind it.
bool IsToolCall(std::string_view written, const nlohmann::json& tools);

}  // namespace kvant
