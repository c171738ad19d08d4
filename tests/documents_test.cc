#include "io/documents.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>
#include <cstring>

#include <string>
#include <vector>

#include "io/utf8.h"
#include "tests/files.h"

namespace gsae::test {
namespace {

using Texts = std::vector<std::string>;

std::string gzip(const std::string& text) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(compressBound(text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

Texts all(DocumentReader& reader) {
  Texts texts;
  for (std::string text; reader.next(text);) texts.push_back(text);
  return texts;
}
Texts read(const std::string& path, DocumentOptions options = {}) {
  DocumentReader reader(path, options);
  return all(reader);
}

class Documents : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& bytes) {
    write_bytes(folder / name, bytes);
    return folder / name;
  }
  TempFolder folder;
};

TEST(Utf8, FindsTheFirstBadByte) {
  // Unicode 15, table 3-7 and its neighbours: each of these is ill-formed from byte 1 on
  for (const char* bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x7F", "\xE0\x9F\xBF", "\xE1\x80", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xF1\x80\x80"})
    EXPECT_EQ(valid_utf8_prefix(std::string("a") + bad + "bcdefghijkl"), 1u) << bad;
  for (const char* good : {"\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    const std::string text = std::string("abcdefg") + good + "hijklmnop";
    EXPECT_EQ(valid_utf8_prefix(text), text.size()) << good;
  }
  EXPECT_EQ(valid_utf8_prefix("abcdefghij\xFF"), 10u);
  EXPECT_EQ(valid_utf8_prefix(""), 0u);
}

TEST_F(Documents, JsonLines) {
  const std::string lines =
      "\xEF\xBB\xBF{\"text\": \"one\\nline \\u00e9 \\ud83d\\udc0b\"}\r\n"
      "\n"
      "  \t\r\n"
      "{\"id\": {\"text\": \"inner\", \"n\": [1, {\"text\": 2}]}, \"text\": \"two\", \"x\": null}\n"
      "{\"text\": \"\"}\n"
      "{\"text\": \"last\"}";  // without a newline
  const Texts want = {"one\nline é 🐋", "two", "", "last"};
  EXPECT_EQ(read(file("a.jsonl", lines)), want);
  EXPECT_EQ(read(file("a.jsonl.gz", gzip(lines))), want);
  EXPECT_EQ(read(file("a.jsonl.zst", zstd(lines))), want);
  // several members or frames, cut anywhere, are one text
  EXPECT_EQ(read(file("b.jsonl.gz", gzip(lines.substr(0, 50)) + gzip(lines.substr(50)))), want);
  EXPECT_EQ(read(file("b.jsonl.zst", zstd(lines.substr(0, 50)) + zstd("") + zstd(lines.substr(50)))), want);
  EXPECT_EQ(read(file("c.jsonl", "{\"body\": \"x\", \"text\": 3}"), {.text_field = "body"}), (Texts{"x"}));
}

// Longer than every buffer on the way, and of no regular period.
TEST_F(Documents, LongLinesAndManyBlocks) {
  std::string lines;
  Texts want;
  for (size_t i = 0; i < 20; ++i) {
    want.push_back(std::string(i * i * 1700, static_cast<char>('a' + i % 26)) + std::to_string(i));
    lines += "{\"text\":\"" + want.back() + "\"}\n";
  }
  EXPECT_EQ(read(file("a.jsonl", lines)), want);
  EXPECT_EQ(read(file("a.jsonl.gz", gzip(lines))), want);
  EXPECT_EQ(read(file("a.jsonl.zst", zstd(lines))), want);
}

TEST_F(Documents, EachMalformedLineIsAnErrorOrASkip) {
  const std::pair<const char*, const char*> bad[] = {{"{\"text\": \"x\"", "JSON"},
                                                     {"{\"text\": \"x\"} x", "JSON"},
                                                     {"not json", "JSON"},
                                                     {"[\"text\"]", "an array instead of a JSON object"},
                                                     {"\"text\"", "a string instead"},
                                                     {"{\"body\": \"x\"}", "no field 'text'"},
                                                     {"{\"text\": 1}", "is a number"},
                                                     {"{\"text\": [\"x\"]}", "is an array"},
                                                     {"{\"text\": {\"text\": \"x\"}}", "is an object"},
                                                     {"{\"text\": null}", "is null"},
                                                     {"{\"text\": \"\xFF\"}", "UTF-8"},
                                                     {"{\"text\": \"\\ud83d\"}", "surrogate"},
                                                     {"{\"text\": \"x\", \"y\": \"\xC3(\"}", "UTF-8"},
                                                     {"{}", "no field"}};
  for (const auto& [line, why] : bad) {
    const std::string path =
        file("a.jsonl", "{\"text\": \"good\"}\n\n" + std::string(line) + "\n{\"text\": \"after\"}\n");
    EXPECT_ERROR(read(path), path + ":3: ");
    EXPECT_ERROR(read(path), why);
    DocumentReader reader(path, {.skip_bad = true});
    EXPECT_EQ(all(reader), (Texts{"good", "after"})) << line;
    EXPECT_EQ(reader.skipped().count, 1) << line;
    EXPECT_TRUE(reader.skipped().first.starts_with(path + ":3: ")) << reader.skipped().first;
  }
}

TEST_F(Documents, DeepNestingTakesNoStack) {
  const std::string deep(2'000'000, '[');
  EXPECT_ERROR(read(file("a.jsonl", "{\"x\": " + deep + "\n")), ":1: ");
  const std::string closed = "{\"x\": " + deep + std::string(deep.size(), ']') + ", \"text\": \"t\"}";
  EXPECT_EQ(read(file("b.jsonl", closed)), (Texts{"t"}));
}

TEST_F(Documents, OverlongLinesAreNotHeld) {
  const std::string path =
      file("a.jsonl", "{\"text\": \"good\"}\n{\"text\": \"" + std::string(3 << 20, 'x') + "\"}\n{\"text\": \"after\"}");
  DocumentOptions options{.max_line_bytes = 1 << 20};
  EXPECT_ERROR(read(path, options), ":2: the line is longer than 1 MiB");
  options.skip_bad = true;
  EXPECT_EQ(read(path, options), (Texts{"good", "after"}));
  // bytes that come one line after the other, as long as it takes: no more of them is read than it takes to say so
  struct Endless : ByteSource {
    size_t read(char* out, size_t n) override { return std::memset(out, 'x', n), given += n, n; }
    size_t given = 0;
  };
  auto endless = std::make_unique<Endless>();
  const size_t& given = endless->given;
  LineReader lines(std::move(endless), 1 << 20);
  std::string_view line;
  EXPECT_THROW(lines.next(line), LineTooLong);
  EXPECT_LT(given, size_t{2} << 20);
  // the last line, without an end
  EXPECT_EQ(read(file("b.jsonl", "{\"text\": \"good\"}\n" + std::string(3 << 20, 'x')), options), (Texts{"good"}));
}

TEST_F(Documents, TruncatedOrCorruptCompression) {
  std::string lines;
  for (int i = 0; i < 20'000; ++i) lines += "{\"text\": \"" + std::to_string(i * 7919 % 100'003) + "\"}\n";
  for (const bool use_zstd : {false, true}) {
    const std::string name = use_zstd ? "a.jsonl.zst" : "a.jsonl.gz", whole = use_zstd ? zstd(lines) : gzip(lines);
    ASSERT_EQ(read(file(name, whole)).size(), 20'000u);
    for (const size_t length : {whole.size() / 2, whole.size() - 1, size_t{12}, size_t{3}}) {
      const std::string path = file(name, whole.substr(0, length));
      EXPECT_ERROR(read(path), "truncated");
      EXPECT_ERROR(read(path), path + ":");
      DocumentReader reader(path, {.skip_bad = true});
      EXPECT_LE(all(reader).size(), 20'000u);  // all of them, if only the checksum behind is cut
      EXPECT_EQ(reader.skipped().count, 1);
    }
    std::string corrupt = whole;
    for (size_t i = 0; i < 40; ++i) corrupt[whole.size() / 2 + i] ^= 0x55;
    EXPECT_ERROR(read(file(name, corrupt)), ":");
    EXPECT_ERROR(read(file(name, lines)), "corrupt");  // not compressed at all
    EXPECT_ERROR(read(file(name, whole + "garbage")), "corrupt");
  }
}

TEST_F(Documents, AShortTextFileIsOneDocument) {
  EXPECT_EQ(read(file("a.txt", "one\n\ntwo\n")), (Texts{"one\n\ntwo\n"}));
  EXPECT_EQ(read(file("a.txt.gz", gzip("one\n\ntwo\n"))), (Texts{"one\n\ntwo\n"}));
  EXPECT_EQ(read(file("b.txt", "\xEF\xBB\xBFx\r\n")), (Texts{"x\r\n"}));
  EXPECT_EQ(read(file("c.txt.zst", zstd(""))), Texts{});
}

TEST_F(Documents, LongTextIsCutAtBlankLinesLinesAndCharacters) {
  const auto pieces = [&](const std::string& text) { return read(file("a.txt", text), {.max_text_bytes = 10}); };
  EXPECT_EQ(pieces("0123456789"), (Texts{"0123456789"}));
  EXPECT_EQ(pieces("ab\n\ncd\n\nef\ngh"), (Texts{"ab\n\ncd\n\n", "ef\ngh"}));
  EXPECT_EQ(pieces("ab\r\n\r\ncd\nefghij"), (Texts{"ab\r\n\r\n", "cd\nefghij"}));
  EXPECT_EQ(pieces("ab\ncd\nefghijklmn"), (Texts{"ab\ncd\n", "efghijklmn"}));
  EXPECT_EQ(pieces("abcdefghijklmno"), (Texts{"abcdefghij", "klmno"}));
  EXPECT_EQ(pieces("abcdefgh🐋ijk"), (Texts{"abcdefgh", "🐋ijk"}));
  EXPECT_EQ(pieces("abcdefghé🐋ijk"), (Texts{"abcdefghé", "🐋ijk"}));
  std::string text;
  for (int i = 0; i < 1000; ++i) text += i % 3 ? "é🐋x\n" : "\n";
  std::string together;
  for (const std::string& piece : pieces(text)) {
    EXPECT_LE(piece.size(), 10u);
    together += piece;
  }
  EXPECT_EQ(together, text);
  // so few bytes at a time that the decompressor holds back more than it gives
  EXPECT_EQ(read(file("a.txt.zst", zstd(text)), {.max_text_bytes = 10}), pieces(text));
  EXPECT_EQ(read(file("a.txt.gz", gzip(text)), {.max_text_bytes = 10}), pieces(text));
}

TEST_F(Documents, InvalidTextIsAnErrorOrASkip) {
  const std::string path = file("a.txt",
                                "ab\n\ncd\n\ne\xFF"
                                "f\n\ngh");
  EXPECT_ERROR(read(path), path + ":5: not UTF-8 (byte 0xff)");
  DocumentReader reader(path, {.skip_bad = true, .max_text_bytes = 5});
  EXPECT_EQ(all(reader), (Texts{"ab\n\n", "cd\n\n", "gh"}));
  EXPECT_EQ(reader.skipped().count, 1);
  EXPECT_TRUE(reader.skipped().first.starts_with(path + ":5: ")) << reader.skipped().first;
  // not UTF-8 at all: nowhere to cut
  EXPECT_ERROR(read(file("b.txt", std::string(100, '\x80')), {.max_text_bytes = 10}), ":1: not UTF-8");
}

TEST_F(Documents, RefusesWhatItCannotRead) {
  EXPECT_ERROR(read(folder / "absent.txt"), "absent.txt: No such file");
  EXPECT_ERROR(read(file("a.json", "{}")), ".jsonl");
  EXPECT_ERROR(read(file("a.parquet", "x")), "must end in");
  EXPECT_ERROR(read(file("a.gz", "x")), "must end in");
  EXPECT_ERROR(read(file("empty.txt", "")), "is empty");
  EXPECT_ERROR(read(file("tokens.npy", "x")), "holds tokens");
  std::filesystem::create_directory(folder / "folder.txt");
  EXPECT_ERROR(read(folder / "folder.txt"), "it is a folder");
  ASSERT_EQ(mkfifo((folder / "pipe.txt").c_str(), 0600), 0);
  EXPECT_ERROR(read(folder / "pipe.txt"), "use - for a pipe");  // and does not wait for a writer
}

}  // namespace
}  // namespace gsae::test
