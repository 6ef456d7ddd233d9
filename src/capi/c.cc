#include "kvant/c.h"

#include <string>

#include "kvant/device_codec.h"

struct kvant_device_codec {
  std::unique_ptr<kvant::DeviceCodec> codec;
};

namespace {

static_assert(KVANT_TICKET_BYTES == kvant::kDeviceTicketBytes);

using kvant::DeviceAttendArgs;
using kvant::DevicePages;
using kvant::DeviceRows;
using kvant::DeviceSide;
using kvant::DeviceType;
using kvant::Result;
using kvant::Status;

thread_local std::string last_error;

kvant_status Report(const Status& status) {
  if (!status.ok()) last_error = status.message();
  return static_cast<kvant_status>(status.code());
}

Status Null(const char* name) { return Status::InvalidArgument(std::string(name) + " is null"); }

// "name:options" as in scheme text.
Result<kvant::CodecChoice> ParseChoice(const char* text) {
  const Result<kvant::Scheme> scheme = kvant::Scheme::Parse(text);
  if (!scheme.ok()) return scheme.status();
  return scheme->key;
}

bool ValidSide(kvant_side side) { return side >= KVANT_KEY && side <= KVANT_EXACT_VALUE; }
Status CheckSide(kvant_side side) {
  if (ValidSide(side)) return Status::Ok();
  return Status::InvalidArgument(kvant::StrFormat("side = %d; accepted: 0..3", side));
}

DevicePages PagesOf(const kvant_device_pages& p) {
  return {.key_pool = p.device_key_pool,
          .value_pool = p.device_value_pool,
          .table = p.device_table,
          .counts = p.device_counts,
          .max_pages = p.max_pages,
          .key_stride = p.key_stride,
          .value_stride = p.value_stride};
}

DeviceRows RowsOf(const kvant_device_rows& r) {
  return {.rows = r.device_rows,
          .type = static_cast<DeviceType>(r.type),
          .row_stride = r.row_stride,
          .pool = r.device_pool,
          .slot_stride = r.slot_stride};
}

kvant::DevicePageList ListOf(const kvant_page_list& l) {
  return {.pages = l.device_pages,
          .counts = l.device_counts,
          .max_pages = l.max_pages,
          .table = l.device_table,
          .table_counts = l.device_table_counts};
}

DeviceAttendArgs ArgsOf(const kvant_attend_args& a) {
  return {.sealed = PagesOf(a.sealed),
          .exact = PagesOf(a.exact),
          .sequences = a.sequences,
          .kv_heads = a.kv_heads,
          .heads_per_kv = a.heads_per_kv,
          .rows = a.rows,
          .query_type = static_cast<DeviceType>(a.query_type),
          .out_type = static_cast<DeviceType>(a.out_type),
          .scale = a.scale,
          .soft_cap = a.soft_cap,
          .maybe_sinks = a.device_sinks,
          .queries = a.device_queries,
          .out = a.device_out,
          .workspace = a.device_workspace,
          .workspace_bytes = a.workspace_bytes,
          .tickets = a.device_tickets,
          .sealed_ready = a.sealed_ready != 0,
          .ragged = a.ragged != 0,
          .fixed_pages = a.fixed_pages};
}

Status Create(const char* key, const char* value, int32_t dim, kvant_device_codec** out) {
  if (!key || !value || !out) return Null(!key ? "key" : !value ? "value" : "out");
  const Result<kvant::CodecChoice> key_choice = ParseChoice(key);
  if (!key_choice.ok()) return key_choice.status();
  const Result<kvant::CodecChoice> value_choice = ParseChoice(value);
  if (!value_choice.ok()) return value_choice.status();
  auto codec = kvant::DeviceCodec::Create(*key_choice, *value_choice, dim);
  if (!codec.ok()) return codec.status();
  *out = new kvant_device_codec{*std::move(codec)};
  return Status::Ok();
}

// No exception leaves the library: the only one to expect is that of memory.
template <typename Call>
kvant_status Guarded(Call call) {
  try {
    return Report(call());
  } catch (const std::exception& e) {
    return Report(Status::OutOfMemory(e.what()));
  }
}

}  // namespace

const char* kvant_error_message(void) { return last_error.c_str(); }

kvant_status kvant_device_codec_create(const char* key, const char* value, int32_t dim, kvant_device_codec** out) {
  return Guarded([&] { return Create(key, value, dim, out); });
}

void kvant_device_codec_destroy(kvant_device_codec* codec) { delete codec; }

size_t kvant_device_block_bytes(const kvant_device_codec* codec, kvant_side side) {
  return codec && ValidSide(side) ? codec->codec->BlockBytes(static_cast<DeviceSide>(side)) : 0;
}

kvant_status kvant_device_encode(const kvant_device_codec* codec, kvant_side side, const float* rows, void* block) {
  return Guarded([&] {
    if (!codec || !rows || !block) return Null(!codec ? "codec" : !rows ? "rows" : "block");
    KVANT_TRY(CheckSide(side));
    return codec->codec->Encode(static_cast<DeviceSide>(side), rows, block);
  });
}

kvant_status kvant_device_decode(const kvant_device_codec* codec, kvant_side side, const void* block, float* rows) {
  return Guarded([&] {
    if (!codec || !rows || !block) return Null(!codec ? "codec" : !rows ? "rows" : "block");
    KVANT_TRY(CheckSide(side));
    return codec->codec->Decode(static_cast<DeviceSide>(side), block, rows);
  });
}

kvant_status kvant_device_encode_pages(const kvant_device_codec* codec, const kvant_encode_args* args, void* stream) {
  return Guarded([&] {
    if (!codec || !args) return Null(!codec ? "codec" : "args");
    KVANT_TRY(CheckSide(args->side));
    return codec->codec->EncodePages({.side = static_cast<DeviceSide>(args->side),
                                      .pages = args->pages,
                                      .kv_heads = args->kv_heads,
                                      .rows = args->device_rows,
                                      .slots = args->device_slots,
                                      .pool = args->device_pool,
                                      .slot_stride = args->slot_stride,
                                      .refused = args->device_refused},
                                     stream);
  });
}

kvant_status kvant_device_decode_pages(const kvant_device_codec* codec, const kvant_decode_args* args, void* stream) {
  return Guarded([&] {
    if (!codec || !args) return Null(!codec ? "codec" : "args");
    KVANT_TRY(CheckSide(args->side));
    return codec->codec->DecodePages({.side = static_cast<DeviceSide>(args->side),
                                      .pages = args->pages,
                                      .kv_heads = args->kv_heads,
                                      .pool = args->device_pool,
                                      .slot_stride = args->slot_stride,
                                      .slots = args->device_slots,
                                      .rows = args->device_rows},
                                     stream);
  });
}

kvant_status kvant_device_write_rows(const kvant_device_codec* codec, const kvant_write_args* args, void* stream) {
  return Guarded([&] {
    if (!codec || !args) return Null(!codec ? "codec" : "args");
    return codec->codec->WriteRows({.keys = RowsOf(args->keys),
                                    .values = RowsOf(args->values),
                                    .count = args->count,
                                    .kv_heads = args->kv_heads,
                                    .targets = args->device_targets,
                                    .refused = args->device_refused},
                                   stream);
  });
}

kvant_status kvant_build_page_tables(const kvant_table_args* args, void* stream) {
  return Guarded([&] {
    if (!args) return Null("args");
    return kvant::BuildPageTables({.sealed = ListOf(args->sealed),
                                   .exact = ListOf(args->exact),
                                   .streams = args->streams,
                                   .rows = args->rows,
                                   .cells = args->cells,
                                   .maybe_mask = args->device_mask,
                                   .mask_row_stride = args->mask_row_stride,
                                   .mask_stream_stride = args->mask_stream_stride},
                                  stream);
  });
}

kvant_status kvant_attend_workspace_bytes(const kvant_device_codec* codec, const kvant_attend_args* args, size_t* out) {
  return Guarded([&] {
    if (!codec || !args || !out) return Null(!codec ? "codec" : !args ? "args" : "out");
    const Result<size_t> bytes = codec->codec->WorkspaceBytes(ArgsOf(*args));
    if (bytes.ok()) *out = *bytes;
    return bytes.status();
  });
}

kvant_status kvant_attend(const kvant_device_codec* codec, const kvant_attend_args* args, void* stream) {
  return Guarded([&] {
    if (!codec || !args) return Null(!codec ? "codec" : "args");
    return codec->codec->Attend(ArgsOf(*args), stream);
  });
}
